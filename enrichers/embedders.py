"""Embedders turn whole pictures into vectors whose cosine says how alike the pictures are."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from enrichers.contract import Loader, Vector
from enrichers.efficientnet import CELLS, EfficientNet, Seen, activations
from enrichers.image import Image, Pixels

#: exponent of the generalised mean that pools the feature map (Radenović et al., "Fine-tuning CNN Image Retrieval",
#: 2017): above 1, a part of the picture weighs more than in the mean, which finds crops and screenshots better
POWER = 3.0

#: cells a side of the four overlapping corners of the feature map that are pooled by themselves (as in Tolias et al.,
#: "Particular object retrieval with integral max-pooling of CNN activations", 2016): a crop is one of them rather than
#: the whole
CORNER = 6


class Embedding(NamedTuple):
    """What an embedder makes of one picture; all vectors have length 1."""

    vector: Vector  #: (d,)
    regions: NDArray[np.float32]  #: (r, d), of parts of the picture; r is 0 where the embedder has none


class Embedder(Protocol):
    """Embeds pictures."""

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """The images of a batch; at least one."""
        ...

    def embed_pictures(self, pictures: Sequence[Pixels]) -> list[Embedding]:
        """Pictures, (h, w, 3) uint8 RGB each, that belong to no image; at least one."""
        ...


class FeatureMapEmbedder:
    """EfficientNet-lite3's last feature map, pooled as a whole and by its corners: (1280,), (4, 1280)."""

    def __init__(self, loader: Loader) -> None:
        self._network = EfficientNet(loader)

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        return [pooled(seen) for seen in self._network.look(images)]

    def embed_pictures(self, pictures: Sequence[Pixels]) -> list[Embedding]:
        return [pooled(seen) for seen in self._network.look_at(pictures)]


def pooled(seen: Seen) -> Embedding:
    powers = activations(seen.features) ** np.float32(POWER)
    far = CELLS - CORNER
    corners = [powers[y : y + CORNER, x : x + CORNER] for y in (0, far) for x in (0, far)]
    return Embedding(_mean(powers), np.stack([_mean(corner) for corner in corners]))


def _mean(powers: NDArray[np.float32]) -> Vector:
    return unit(powers.mean(axis=(0, 1)) ** np.float32(1 / POWER))


def unit(vector: NDArray[np.float32]) -> Vector:
    """The vector at length 1; zeros stay zeros."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)


def pack_regions(regions: NDArray[np.float32]) -> bytes:
    """(r, d) → r × d int8, each vector by its largest number."""
    largest = np.maximum(np.abs(regions).max(axis=1, keepdims=True), 1e-12) if len(regions) else 1.0
    return np.round(regions / largest * 127).astype(np.int8).tobytes()


def unpack_regions(packed: bytes, dimensions: int) -> NDArray[np.float32]:
    """The vectors of `pack_regions`, at length 1: (r, dimensions)."""
    rows = np.frombuffer(packed, np.int8).reshape(-1, dimensions).astype(np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)
