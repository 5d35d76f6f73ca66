"""Similarity: the vector for reverse image search, hashes for near-duplicates, keypoints that prove a find."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from enrichers.clip import ClipEmbedder
from enrichers.contract import Enricher, Failure, Form, Loader, Result, Weights
from enrichers.efficientnet import MODEL, SIDE
from enrichers.embedders import Embedder, FeatureMapEmbedder, pack_regions
from enrichers.hashes import dhash
from enrichers.image import Image
from enrichers.keypoints import Keypoints
from enrichers.properties import phash


class Similarity(Enricher):
    """EfficientNet-lite3's pooled feature map, or the vector of the setting `model`, a CLIP; pHash, dHash and ORB
    keypoints."""

    name = "similarity"
    version = 1
    libraries: ClassVar[tuple[str, ...]] = ("ai-edge-litert", "opencv-python-headless")
    shares = MODEL
    defaults: ClassVar[Mapping[str, Any]] = {"model": MODEL, "keypoints": 256}

    @property
    def form(self) -> Form:
        return Form(max_side=2 * SIDE)

    def weights(self) -> tuple[Weights, ...]:
        return self.catalogue.weights(self.settings["model"])

    def load(self, loader: Loader) -> None:
        entry = self.catalogue.entry(self.settings["model"])
        if entry.name == MODEL:
            self.embedder: Embedder = FeatureMapEmbedder(loader)
        else:
            self.embedder = ClipEmbedder(entry, loader)

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        embeddings = self.embedder.embed(images)
        answers = []
        for image, embedding in zip(images, embeddings, strict=True):
            points, descriptors = Keypoints.find(image.pixels, self.settings["keypoints"]).pack()
            answers.append(
                Result(
                    {
                        "vector": embedding.vector,
                        "regions": pack_regions(embedding.regions),
                        "phash": phash(image.pixels),
                        "dhash": dhash(image.pixels),
                        "keypoints": {"count": len(descriptors) // 32, "points": points, "descriptors": descriptors},
                    }
                )
            )
        return answers
