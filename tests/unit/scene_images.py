"""Images and networks that the tests of the whole-image enrichers share."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.image import Facts, Image, Pixels


def image(pixels: Pixels, key: int = 0) -> Image:
    height, width = pixels.shape[:2]
    return Image(key, pixels, width, height, Facts("PNG", pixels.nbytes, f"{key:064x}", width, height))


def textured(seed: int, height: int = 240, width: int = 320) -> Pixels:
    """A picture with something everywhere: noise at several sizes, in colour."""
    import cv2

    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for cells in (4, 12, 40):
        noise = random.random((cells, cells, 3), dtype=np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / 3
    return np.clip(picture * 255, 0, 255).astype(np.uint8)


class CountingNetwork:
    """Takes what EfficientNet takes and counts how many pictures it was given: class 281 for bright ones, else 7."""

    def __init__(self) -> None:
        self.looked = 0

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        pictures = inputs["images"]
        self.looked += len(pictures)
        logits = np.full((len(pictures), 1000), -64, np.int8)
        features = np.full((len(pictures), 9, 9, 1280), -128, np.int8)
        for row, picture in enumerate(pictures):
            bright = picture.mean() > 128
            logits[row, 281 if bright else 7] = 127
            features[row, :, :, : 640 if bright else 1280] = 100
        return {"logits": logits, "features": features}


class OneNetwork:
    """A loader that gives the same network under every name."""

    device = "cpu"
    threads = 1

    def __init__(self, network: Any) -> None:
        self._network = network

    def network(self, name: str) -> Any:
        return self._network

    def path(self, name: str) -> str:
        raise AssertionError(name)
