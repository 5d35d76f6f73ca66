"""The forms of object detectors: how each prepares pictures for its network and reads what the network says."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers import coco
from enrichers.catalogue import Entry, nearest
from enrichers.contract import Loader, Network
from enrichers.errors import ModelCorrupt, SettingInvalid
from enrichers.image import Pixels, resized
from enrichers.runtimes import RUNTIME_OPTIONS
from enrichers.windows import Boxes

#: pictures given to a network in one call: more do not make a CPU faster, and cost memory
BATCH = 8

#: class names that a catalogue entry can name by `options.names` instead of listing them
NAMES: Mapping[str, Sequence[str | None]] = {"coco80": coco.NAMES, "coco90": coco.SPARSE_NAMES}

#: grey that fills what a picture leaves of a square input
PADDING = 114


class ObjectDetector(ABC):
    """Finds objects of named classes in pictures."""

    #: the entry's options that this form understands, with their defaults
    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, network: Network, given: Mapping[str, Any], names: Sequence[str | None]) -> None:
        """`given` is filled from `options`; `names` are the classes' names, None for numbers that are unused."""
        self.network = network
        self.given = {**self.options, **given}
        self.names = names

    def detect(self, pictures: Sequence[Pixels], min_score: float) -> list[Boxes]:
        """Boxes that score at least `min_score` in each picture ((h, w, 3) uint8 RGB); they may overlap each other.
        Raises ModelCorrupt where the network's output has not the shape of this form."""
        size = int(self.given["batch"]) if "batch" in self.given else BATCH
        found: list[Boxes] = []
        for start in range(0, len(pictures), size):
            found += self._detect(pictures[start : start + size], min_score)
        return [self._named(boxes) for boxes in found]

    @abstractmethod
    def _detect(self, pictures: Sequence[Pixels], min_score: float) -> list[Boxes]: ...

    def _named(self, boxes: Boxes) -> Boxes:
        named = [0 <= number < len(self.names) and self.names[number] is not None for number in boxes.classes]
        return boxes.chosen(np.array(named, bool))

    def _outputs(self, inputs: Mapping[str, NDArray[Any]], count: int) -> list[NDArray[Any]]:
        values = list(self.network.run(inputs).values())
        if len(values) < count:
            raise ModelCorrupt(f"the network has {len(values)} outputs where its form has {count}")
        return values


def stretched(picture: Pixels, size: int) -> Pixels:
    """The picture as a square of `size` pixels, whatever its shape was."""
    shrinks = picture.shape[0] > size and picture.shape[1] > size
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR  # AP 0.327; 0.322 with the faster `resized`
    return np.asarray(cv2.resize(picture, (size, size), interpolation=interpolation), np.uint8)


def letterboxed(picture: Pixels, size: int, centred: bool) -> tuple[Pixels, tuple[float, float, float, float]]:
    """The picture in a grey square of `size` pixels, its shape kept; and (left, top, width, height) of the picture
    in it, in pixels."""
    height, width = picture.shape[:2]
    scale = min(size / height, size / width)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = ((size - inner[0]) // 2, (size - inner[1]) // 2) if centred else (0, 0)
    square = np.full((size, size, 3), PADDING, np.uint8)
    square[top : top + inner[1], left : left + inner[0]] = resized(picture, *inner)
    return square, (left, top, *inner)


def scored(corners: NDArray[Any], scores: NDArray[Any], min_score: float) -> Boxes:
    """(n, 4) corners and (n, classes) scores → one box for each class that reaches `min_score`, clipped to the
    picture, without the empty ones."""
    rows, classes = np.nonzero(scores >= min_score)
    chosen = np.clip(corners[rows], 0, 1).astype(np.float32)
    solid = (chosen[:, 2:] > chosen[:, :2]).all(axis=1)
    return Boxes(
        chosen[solid], scores[rows, classes][solid].astype(np.float32), classes[solid].astype(np.int64, copy=False)
    )


class Ssd(ObjectDetector):
    """A frozen SSD of the TensorFlow Object Detection API, entered behind its resizing and left before its
    non-maximum suppression, both of which take one picture after another.

    Its network takes `image` (n, size, size, 3) float32 RGB in [0, 255] and gives `boxes` (n, anchors, 4) as top,
    left, bottom, right shares, and `scores` (n, anchors, classes).
    """

    options: ClassVar[Mapping[str, Any]] = {"size": 300}

    def _detect(self, pictures: Sequence[Pixels], min_score: float) -> list[Boxes]:
        images = np.stack([stretched(picture, self.given["size"]) for picture in pictures]).astype(np.float32)
        outputs = self.network.run({"image": images})
        corners = outputs["boxes"][..., [1, 0, 3, 2]]
        return [scored(c, s, min_score) for c, s in zip(corners, outputs["scores"], strict=True)]


class TensorFlowDetection(ObjectDetector):
    """A SavedModel (or ONNX graph) of the TensorFlow Object Detection API with all that it holds.

    Takes `input_tensor` (1, h, w, 3) uint8 RGB of any size and gives `detection_boxes` (1, n, 4) as top, left,
    bottom, right shares, `detection_scores` (1, n) and `detection_classes` (1, n), counted from 1. Exported models
    take one picture a call.
    """

    options: ClassVar[Mapping[str, Any]] = {"input": "input_tensor", "max_side": 1024}

    def _detect(self, pictures: Sequence[Pixels], min_score: float) -> list[Boxes]:
        return [self._one(picture, min_score) for picture in pictures]

    def _one(self, picture: Pixels, min_score: float) -> Boxes:
        limit = self.given["max_side"] / max(picture.shape[:2])
        if limit < 1:
            picture = np.asarray(cv2.resize(picture, None, fx=limit, fy=limit, interpolation=cv2.INTER_AREA), np.uint8)
        outputs = self.network.run({self.given["input"]: picture[None]})
        try:
            corners, scores = outputs["detection_boxes"][0], outputs["detection_scores"][0]
            classes = outputs["detection_classes"][0]
        except KeyError as error:
            raise ModelCorrupt(f"the network has no output {error}; it has {', '.join(outputs)}") from None
        count = int(outputs["num_detections"][0]) if "num_detections" in outputs else len(scores)
        kept = (scores >= min_score) & (np.arange(len(scores)) < count)
        corners = np.clip(corners[kept][:, [1, 0, 3, 2]], 0, 1).astype(np.float32)
        return Boxes(corners, scores[kept].astype(np.float32), classes[kept].astype(np.int64) - 1)


class Yolox(ObjectDetector):
    """YOLOX as its authors export it to ONNX (Ge et al. 2021): BGR in [0, 255], the picture in the upper left of a
    grey square, raw grids of strides 8, 16 and 32: (1, cells, 5 + classes) with offsets from the cell, logarithms of
    the sizes, and scores in [0, 1]."""

    options: ClassVar[Mapping[str, Any]] = {"size": 640, "strides": (8, 16, 32), "batch": 1}

    def _detect(self, pictures: Sequence[Pixels], min_score: float) -> list[Boxes]:
        size = self.given["size"]
        placed = [letterboxed(picture, size, centred=False) for picture in pictures]
        images = np.stack([square[..., ::-1].transpose(2, 0, 1) for square, _ in placed]).astype(np.float32)
        name = next(iter(self.network.inputs))
        (raw,) = self._outputs({name: images}, 1)[:1]
        cells, strides = _cells(size, self.given["strides"])
        if raw.ndim != 3 or raw.shape[1] != len(cells):
            raise ModelCorrupt(
                f"the network's output is {raw.shape} where a YOLOX of {size} pixels has {len(cells)} rows"
            )
        centres = (raw[..., :2] + cells) * strides
        sizes = np.exp(raw[..., 2:4]) * strides
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)
        scores = raw[..., 4:5] * raw[..., 5:]
        return [
            scored(_inside(c, place), s, min_score) for c, s, (_, place) in zip(corners, scores, placed, strict=True)
        ]


def _cells(size: int, strides: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(cells, 2) columns and rows of all grids, and (cells, 1) their strides."""
    grids = [np.stack(np.meshgrid(np.arange(size // s), np.arange(size // s)), -1).reshape(-1, 2) for s in strides]
    factors = [np.full((len(cells), 1), s) for cells, s in zip(grids, strides, strict=True)]
    return np.concatenate(grids).astype(np.float32), np.concatenate(factors).astype(np.float32)


def _inside(corners: NDArray[Any], place: tuple[float, float, float, float]) -> NDArray[Any]:
    """Pixels of the square input → shares of the picture that lies in it."""
    left, top, width, height = place
    shares: NDArray[Any] = (corners - [left, top, left, top]) / [width, height, width, height]
    return shares


class Yolov4(ObjectDetector):
    """YOLOv3 and YOLOv4 in the forms of the TensorFlow port (github.com/hunglc007/tensorflow-yolov4-tflite): RGB in
    [0, 1], stretched to a square.

    Its SavedModel gives one tensor (1, n, 4 + classes): top, left, bottom, right shares and scores. Its TensorFlow
    Lite files give two, (1, n, 4) centre x, centre y, width, height in pixels of the input, and (1, n, classes). One
    picture a call: its filtering mixes up the pictures of a batch.
    """

    options: ClassVar[Mapping[str, Any]] = {"size": 416, "batch": 1}

    def _detect(self, pictures: Sequence[Pixels], min_score: float) -> list[Boxes]:
        size = self.given["size"]
        images = np.stack([stretched(picture, size) for picture in pictures]).astype(np.float32) / 255
        values = self._outputs({next(iter(self.network.inputs)): images}, 1)
        if len(values) == 1:
            corners, scores = values[0][0, :, [1, 0, 3, 2]].T, values[0][0, :, 4:]
        else:
            boxes, scores = sorted((value[0] for value in values[:2]), key=lambda value: value.shape[-1] != 4)
            corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=-1) / size
        return [scored(corners, scores, min_score)]


class Yolo(ObjectDetector):
    """YOLOv8 and its successors as exported to ONNX: RGB in [0, 1], letterboxed, one tensor (n, 4 + classes, cells)
    with centre x, centre y, width, height in pixels of the input, and scores."""

    options: ClassVar[Mapping[str, Any]] = {"size": 640, "batch": 1}

    def _detect(self, pictures: Sequence[Pixels], min_score: float) -> list[Boxes]:
        placed = [letterboxed(picture, self.given["size"], centred=True) for picture in pictures]
        images = np.stack([square.transpose(2, 0, 1) for square, _ in placed]).astype(np.float32) / 255
        raw = self._outputs({next(iter(self.network.inputs)): images}, 1)[0].transpose(0, 2, 1)
        corners = np.concatenate([raw[..., :2] - raw[..., 2:4] / 2, raw[..., :2] + raw[..., 2:4] / 2], axis=-1)
        return [
            scored(_inside(c, place), s, min_score)
            for c, s, (_, place) in zip(corners, raw[..., 4:], placed, strict=True)
        ]


FORMS: Mapping[str, type[ObjectDetector]] = {
    "ssd": Ssd,
    "tf_detection": TensorFlowDetection,
    "yolox": Yolox,
    "yolov4": Yolov4,
    "yolo": Yolo,
}


def open_detector(entry: Entry, loader: Loader) -> ObjectDetector:
    """The detector of a catalogue entry, loaded. Raises SettingInvalid for a form or option that there is not, and
    what `Loader.network` raises."""
    form = FORMS.get(entry.form or "")
    if form is None:
        raise SettingInvalid(f"model {entry.name!r} has form {entry.form!r}{nearest(entry.form or '', FORMS)}")
    own = {key: value for key, value in entry.options.items() if key not in {*RUNTIME_OPTIONS, "names"}}
    for key in own:
        if key not in form.options:
            raise SettingInvalid(f"model {entry.name!r}: unknown option {key!r}{nearest(key, form.options)}")
    detector = form(loader.network(entry.name), own, class_names(entry, loader))
    detector.detect([np.zeros((480, 640, 3), np.uint8)], 1.0)  # runtimes finish their graphs in the first call
    return detector


def class_names(entry: Entry, loader: Loader) -> Sequence[str | None]:
    """The names of the model's classes: those that `options.names` lists or names ("coco80", "coco90"), or the lines
    of the file that is its part `labels`."""
    if labels := entry.parts.get("labels"):
        with open(loader.path(labels), encoding="utf-8") as stream:
            return [line.strip() for line in stream]
    names = entry.options.get("names", "coco80")
    if isinstance(names, str):
        if names not in NAMES:
            raise SettingInvalid(f"model {entry.name!r}: unknown names {names!r}{nearest(names, NAMES)}")
        return NAMES[names]
    return [str(name) for name in names]
