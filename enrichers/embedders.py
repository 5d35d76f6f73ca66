"""Embedders turn whole pictures into vectors whose cosine says how alike the pictures are."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from enrichers.contract import Loader, Vector
from enrichers.efficientnet import EfficientNet, Seen, activations
from enrichers.image import Image, Pixels

#: exponent of the generalised mean that pools the feature map (Radenović et al., "Fine-tuning CNN Image Retrieval",
#: 2017): above 1, a part of the picture weighs more than in the mean, which finds crops and screenshots better
POWER = 3.0


class Embedder(Protocol):
    """Gives one vector a picture, shape (d,) float32, of length 1."""

    def embed(self, images: Sequence[Image]) -> list[Vector]:
        """The images of a batch; at least one."""
        ...

    def embed_pictures(self, pictures: Sequence[Pixels]) -> list[Vector]:
        """Pictures, (h, w, 3) uint8 RGB each, that belong to no image; at least one."""
        ...


class FeatureMapEmbedder:
    """EfficientNet-lite3's last feature map, pooled: (1280,)."""

    def __init__(self, loader: Loader) -> None:
        self._network = EfficientNet(loader)

    def embed(self, images: Sequence[Image]) -> list[Vector]:
        return [pooled(seen) for seen in self._network.look(images)]

    def embed_pictures(self, pictures: Sequence[Pixels]) -> list[Vector]:
        return [pooled(seen) for seen in self._network.look_at(pictures)]


def pooled(seen: Seen) -> Vector:
    powers = activations(seen.features).astype(np.float32) ** POWER
    return unit(powers.mean(axis=(0, 1)) ** (1 / POWER))


def unit(vector: NDArray[np.float32]) -> Vector:
    """The vector at length 1; zeros stay zeros."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)
