"""Runs dlib's own models: face detectors, landmarks, the face embedding. dlib holds the interpreter lock meanwhile."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.catalogue import nearest
from enrichers.errors import DeviceUnavailable, ModelCorrupt, ModelMissing, SettingInvalid
from enrichers.runtimes import Plan, resolved

Arrays = dict[str, NDArray[Any]]


class DlibNetwork:
    """One of dlib's models; `plan.options["kind"]` says which (KINDS).

    "hog" (in dlib itself, no file) and "cnn" find faces: `images` (n, h, w, 3) uint8 RGB → `boxes` (n, k, 4) float32,
    left, top, width, height in pixels, and `scores` (n, k), dlib's distances from its decision boundary; where an image
    has fewer than k faces, the rest score −inf. "landmarks": `images` and `boxes` (n, 4), one a row → `points`
    (n, points, 2) float32. "embedding": `chips` (n, 150, 150, 3) uint8 RGB → `embeddings` (n, 128) float32.
    """

    def __init__(self, path: Path | None, plan: Plan) -> None:
        """Raises ModelMissing without dlib, SettingInvalid for an unknown kind, ModelCorrupt for another file, and
        DeviceUnavailable for a kind that runs on a GPU where this dlib was built without CUDA."""
        try:
            import dlib
        except ImportError:
            raise ModelMissing("dlib's models need the package dlib; install the extra `dlib`") from None
        kind = plan.options.get("kind", "")
        if kind not in KINDS:
            raise SettingInvalid(f"no model of runtime dlib is of kind {kind!r}{nearest(kind, KINDS)}")
        load, self._call, inputs, outputs, on_gpu = KINDS[kind]
        if plan.device == "cuda" and on_gpu and not dlib.DLIB_USE_CUDA:
            raise DeviceUnavailable('device "cuda": this dlib was built without CUDA; use device = "cpu"')
        self.device = plan.device if on_gpu else "cpu"
        try:
            self._model = load(dlib, str(path))
        except RuntimeError as error:
            raise ModelCorrupt(f"{path} cannot be loaded by dlib: {error}") from error
        self._dlib = dlib
        self._inputs = resolved(plan.inputs, inputs, "input", Path(str(path)))
        self._outputs = resolved(plan.outputs, outputs, "output", Path(str(path)))

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        given = {self._inputs[name]: array for name, array in inputs.items()}
        found = self._call(self._dlib, self._model, given)
        return {name: found[theirs] for name, theirs in self._outputs.items()}


#: how often pictures are doubled in size before they are searched: dlib's detectors find faces from 80 pixels on
DOUBLED = 1


def _hog(dlib: Any, detector: Any, given: Arrays) -> Arrays:
    found = []
    for image in given["images"]:
        rectangles, distances, _ = detector.run(image, DOUBLED, 0.0)
        found.append(list(zip(rectangles, distances, strict=True)))
    return _padded(found)


def _cnn(dlib: Any, detector: Any, given: Arrays) -> Arrays:
    found = detector(list(given["images"]), DOUBLED, len(given["images"]))
    return _padded([[(face.rect, face.confidence) for face in faces] for faces in found])


def _padded(found: Sequence[Sequence[tuple[Any, float]]]) -> Arrays:
    most = max(map(len, found), default=0)
    boxes = np.zeros((len(found), most, 4), np.float32)
    scores = np.full((len(found), most), -np.inf, np.float32)
    for row, faces in enumerate(found):
        for column, (rectangle, distance) in enumerate(faces):
            boxes[row, column] = rectangle.left(), rectangle.top(), rectangle.width(), rectangle.height()
            scores[row, column] = distance
    return {"boxes": boxes, "scores": scores}


def _landmarks(dlib: Any, predictor: Any, given: Arrays) -> Arrays:
    rows = []
    for image, (left, top, width, height) in zip(given["images"], np.round(given["boxes"]).astype(int), strict=True):
        rectangle = dlib.rectangle(int(left), int(top), int(left + width) - 1, int(top + height) - 1)
        rows.append([(point.x, point.y) for point in predictor(image, rectangle).parts()])
    return {"points": np.array(rows, np.float32)}


def _embedding(dlib: Any, model: Any, given: Arrays) -> Arrays:
    vectors = model.compute_face_descriptor(list(given["chips"]))
    return {"embeddings": np.array(vectors, np.float32)}


Call = Callable[[Any, Any, Arrays], Arrays]

#: kind → how dlib loads its file, how it is called, its inputs and outputs, and whether dlib can run it on a GPU
KINDS: Mapping[str, tuple[Callable[[Any, str], Any], Call, Sequence[str], Sequence[str], bool]] = {
    "hog": (lambda dlib, path: dlib.get_frontal_face_detector(), _hog, ("images",), ("boxes", "scores"), False),
    "cnn": (lambda dlib, path: dlib.cnn_face_detection_model_v1(path), _cnn, ("images",), ("boxes", "scores"), True),
    "landmarks": (
        lambda dlib, path: dlib.shape_predictor(path),
        _landmarks,
        ("images", "boxes"),
        ("points",),
        False,
    ),
    "embedding": (
        lambda dlib, path: dlib.face_recognition_model_v1(path),
        _embedding,
        ("chips",),
        ("embeddings",),
        True,
    ),
}
