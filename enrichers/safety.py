"""Safety: how likely a picture is pornographic."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from enrichers.contract import Enricher, Failure, Form, Loader, Result, Weights
from enrichers.errors import SettingInvalid
from enrichers.image import Image, Pixels

MODEL = "open_nsfw"

#: the network's input: the middle 224 × 224 of the picture squeezed to 256 × 256
SQUEEZED, SIDE = 256, 224

#: mean of the training set, BGR
MEAN = np.array([104.0, 117.0, 123.0], dtype=np.float32)

#: quality of the JPEG that the picture goes through, as the network's training pictures did
JPEG_QUALITY = 75


class Safety(Enricher):
    """Yahoo's Open-NSFW, a ResNet-50 thin (Mahadeokar and Pesavento, "Open Sourcing a Deep Learning Solution for
    Detecting NSFW Images", 2016)."""

    name = "safety"
    version = 1
    concurrent = True
    libraries: ClassVar[tuple[str, ...]] = ("pillow",)
    defaults: ClassVar[Mapping[str, Any]] = {"safe_below": 0.2, "nsfw_from": 0.8}

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        if not 0 <= settings["safe_below"] <= settings["nsfw_from"] <= 1:
            raise SettingInvalid("enrichers.safety: 0 ≤ safe_below ≤ nsfw_from ≤ 1 must hold")

    @property
    def form(self) -> Form:
        return Form(max_side=2 * SQUEEZED)

    def weights(self) -> tuple[Weights, ...]:
        return self.catalogue.weights(MODEL)

    def load(self, loader: Loader) -> None:
        self._network = loader.network(MODEL)

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        batch = np.stack([prepared(image.pixels) for image in images])
        (scores,) = self._network.run({"input_0": batch}).values()
        return [Result(self.answer(float(score))) for score in scores[:, 1]]

    def answer(self, score: float) -> dict[str, Any]:
        return {"nsfw": round(score, 4), "label": self.label(score)}

    def label(self, score: float) -> str:
        if score < self.settings["safe_below"]:
            return "safe"
        return "nsfw" if score >= self.settings["nsfw_from"] else "unsure"


def prepared(pixels: Pixels) -> NDArray[np.float32]:
    """(h, w, 3) uint8 RGB → (224, 224, 3) float32 BGR, less the mean: what the published classifier does
    (classify_nsfw.py of yahoo/open_nsfw), its way through JPEG included."""
    squeezed = Pillow.fromarray(pixels).resize((SQUEEZED, SQUEEZED), Pillow.Resampling.BILINEAR)
    _, jpeg = cv2.imencode(".jpg", np.asarray(squeezed)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    bgr = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), dtype=np.float32)
    edge = (SQUEEZED - SIDE) // 2
    return bgr[edge : edge + SIDE, edge : edge + SIDE] - MEAN
