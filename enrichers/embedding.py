"""Face embedding models: how each wants its faces, as its catalogue entry says, and the vectors they give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.alignment import TEMPLATES, Matrix, box_matrix, chip, similarity, template
from enrichers.contract import Network, Vector
from enrichers.detection import Detections
from enrichers.errors import SettingInvalid
from enrichers.image import Pixels
from enrichers.runtimes import RUNTIME_OPTIONS

#: chips in one call of the network: beyond it a CPU gains nothing and activations grow
CHIPS_A_CALL = 16


@dataclass(frozen=True, slots=True)
class View:
    """One look at a face: mirrored or not, and its zoom about the chip's middle. A face's vector is the mean over its
    views."""

    mirrored: bool = False
    zoom: float = 1.0


#: the setting `views` → what is looked at
VIEWS: Mapping[str, tuple[View, ...]] = {
    "plain": (View(),),
    "mirror": (View(), View(mirrored=True)),
    "crossed": (View(mirrored=True), View(zoom=1.15)),
    "full": (View(), View(mirrored=True), View(zoom=1.15)),
    "four": (View(), View(mirrored=True), View(zoom=1.15), View(mirrored=True, zoom=1.15)),
}


@dataclass(frozen=True, slots=True)
class Preparation:
    """How pixels become a model's input; the fields are the `options` of its catalogue entry."""

    size: int  #: side of the square chip in pixels
    align: str = "arcface"  #: a template of enrichers.alignment, or "box": the upright box with `margin`
    zoom: float = 1.0  #: how much larger the face is than in the template, about the chip's middle
    margin: float = 0.0  #: share of the box's longer side that is added on each side, for align = "box"
    colour: str = "rgb"  #: or "bgr", or "grey" (one channel)
    layout: str = "nchw"  #: or "nhwc"
    dtype: str = "float32"  #: or "uint8", which takes neither mean nor deviation
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)  #: subtracted, in units of 0–255, in the order of `colour`
    deviation: tuple[float, ...] = (1.0, 1.0, 1.0)  #: then divided by
    prewhiten: bool = False  #: instead of mean and deviation: each chip's own (FaceNet)

    @classmethod
    def parse(cls, model: str, options: Mapping[str, Any]) -> "Preparation":
        """Where a graph has several inputs or outputs, the options `inputs` must name the one as `chips`, `outputs` the
        other as `embeddings`. Raises SettingInvalid naming the model and the option that is missing, unknown or has an
        impossible value."""
        own: dict[str, Any] = {key: v for key, v in options.items() if key not in RUNTIME_OPTIONS}
        own |= {key: tuple(v) for key, v in own.items() if isinstance(v, list)}
        try:
            made = cls(**own)
        except TypeError as error:
            raise SettingInvalid(f"model {model!r}: {error}") from None
        choices = {
            "align": (*TEMPLATES, "box"),
            "colour": ("rgb", "bgr", "grey"),
            "layout": ("nchw", "nhwc"),
            "dtype": ("float32", "uint8"),
        }
        for key, valid in choices.items():
            if getattr(made, key) not in valid:
                raise SettingInvalid(f"model {model!r}: {key} = {getattr(made, key)!r} is none of {', '.join(valid)}")
        return made

    def matrix(self, box: NDArray[np.float32], landmarks: NDArray[np.float32], zoom: float = 1.0) -> Matrix:
        """Picture → chip for a face with `box` (4,) and `landmarks` (5, 2)."""
        if self.align == "box":
            x, y, width, height = (float(v) for v in box)
            grown = (1 + 2 * self.margin) / (zoom * self.zoom)
            return box_matrix((x, y, width, height), (grown - 1) / 2, self.size)
        return similarity(landmarks, template(self.align, self.size, zoom * self.zoom))

    def tensor(self, chips: Sequence[Pixels]) -> NDArray[Any]:
        """Chips, (size, size, 3) uint8 RGB each → the network's input."""
        batch = np.stack(chips)
        if self.colour == "bgr":
            batch = batch[..., ::-1]
        elif self.colour == "grey":
            batch = np.stack([cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY) for chip in batch])[..., None]
        if self.layout == "nchw":
            batch = batch.transpose(0, 3, 1, 2)
        if self.dtype == "uint8":
            return np.ascontiguousarray(batch)
        values = np.ascontiguousarray(batch, dtype=np.float32)
        if self.prewhiten:
            axes = (1, 2, 3)
            deviation = np.maximum(values.std(axis=axes, keepdims=True), 1 / np.sqrt(values[0].size))
            return np.asarray((values - values.mean(axis=axes, keepdims=True)) / deviation, np.float32)
        shape = (1, -1, 1, 1) if self.layout == "nchw" else (1, 1, 1, -1)
        mean, deviation = (np.array(v, np.float32).reshape(shape) for v in (self.mean, self.deviation))
        return np.asarray((values - mean) / deviation, np.float32)


class Embedder:
    """A face embedding model on its network."""

    def __init__(self, name: str, network: Network, preparation: Preparation, views: Sequence[View]) -> None:
        self.name = name
        self._network = network
        self._preparation = preparation
        self._views = views

    def chips(self, pixels: Pixels, faces: Detections) -> list[Pixels]:
        """The views of all faces of a picture, face by face."""
        found = []
        for box, landmarks in zip(faces.boxes, faces.landmarks, strict=True):
            plain: dict[float, Pixels] = {}
            for view in self._views:
                if view.zoom not in plain:
                    matrix = self._preparation.matrix(box, landmarks, view.zoom)
                    plain[view.zoom] = chip(pixels, matrix, self._preparation.size)
                found.append(plain[view.zoom][:, ::-1] if view.mirrored else plain[view.zoom])
        return found

    def embed(self, chips: Sequence[Pixels]) -> list[Vector]:
        """The vector of each face whose views `chips` gave, in their order: the mean over a face's views of what the
        model gives, not normalised."""
        parts = [
            self._run(self._preparation.tensor(chips[i : i + CHIPS_A_CALL])) for i in range(0, len(chips), CHIPS_A_CALL)
        ]
        if not parts:
            return []
        vectors = np.concatenate(parts).reshape(len(chips), -1)
        means = vectors.reshape(-1, len(self._views), vectors.shape[1]).mean(axis=1)
        return [np.ascontiguousarray(vector, dtype=np.float32) for vector in means]

    def _run(self, tensor: NDArray[Any]) -> NDArray[Any]:
        inputs = self._network.inputs
        outputs = self._network.run({"chips" if "chips" in inputs else inputs[0]: tensor})
        return outputs["embeddings"] if "embeddings" in outputs else next(iter(outputs.values()))
