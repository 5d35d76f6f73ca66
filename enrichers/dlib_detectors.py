"""dlib's own face detectors, HOG and CNN, with its five-point landmark model."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from enrichers.alignment import similarity, template
from enrichers.detection import Detections, Floats, canvas_size
from enrichers.errors import ModelMissing
from enrichers.image import Pixels

#: how often pictures are doubled in size before they are searched: dlib's detectors find faces from 80 pixels on
DOUBLED = 1


def import_dlib() -> Any:
    """The module dlib. Raises ModelMissing where it is not installed."""
    try:
        import dlib
    except ImportError:
        raise ModelMissing("dlib's detectors need the package dlib; install the extra `dlib`") from None
    return dlib


def five_landmarks(corners: Floats) -> Floats:
    """dlib's five points (5, 2) — outer and inner corner of the eye on the right, then on the left, and the base of the
    nose, as seen — → the five landmarks (5, 2) of other detectors. The base of the nose lies below its tip, and the
    mouth is not among dlib's points: both come from dlib's own chips, laid onto the eyes and the base of the nose."""
    right, left, base = corners[0:2].mean(axis=0), corners[2:4].mean(axis=0), corners[4]
    chip = template("dlib", 150)
    matrix = similarity(np.stack([left, right, base]), np.stack([chip[0], chip[1], np.array(NOSE_BASE)]))
    inverse = cv2.invertAffineTransform(matrix)
    placed = chip @ inverse[:, :2].T + inverse[:, 2]
    return np.stack([left, right, placed[2], placed[3], placed[4]]).astype(np.float32)


#: where the base of the nose is in a dlib chip of 150 pixels, between its tip and the mouth
NOSE_BASE = (74.0, 86.0)


class DlibDetector:
    """One of dlib's detectors, as a `Detector`. It holds the interpreter lock and runs on one thread."""

    looks_again = False

    def __init__(self, weights: str | None, landmarks: str) -> None:
        """`weights`: the CNN detector's file, or None for the HOG detector, which is part of dlib; `landmarks`: the
        file of the five-point shape predictor. Raises ModelMissing."""
        dlib = import_dlib()
        self._is_cnn = weights is not None
        self._detector = dlib.cnn_face_detection_model_v1(weights) if self._is_cnn else dlib.get_frontal_face_detector()
        self._points = dlib.shape_predictor(landmarks)

    def detect(self, pictures: Sequence[Pixels], side: int, min_score: float) -> list[Detections]:
        return [self._detect(picture, side).above(min_score) for picture in pictures]

    def _detect(self, picture: Pixels, side: int) -> Detections:
        height, width = picture.shape[:2]
        (w, h), _ = canvas_size(width, height, side)
        small = np.ascontiguousarray(cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        found = [(r, s) for r, s in self._search(small) if r.width() > 1 and r.height() > 1]
        if not found:
            return Detections.none()
        points = []
        for rectangle, _ in found:
            shape = self._points(small, rectangle)
            points.append(five_landmarks(np.array([[p.x, p.y] for p in shape.parts()], np.float32)))
        boxes = [[r.left(), r.top(), r.width(), r.height()] for r, _ in found]
        scores = np.array([s for _, s in found], np.float32)
        faces = Detections(np.array(boxes, np.float32), scores, np.stack(points))
        return faces.scaled(width / w, height / h)

    def _search(self, picture: Pixels) -> list[tuple[Any, float]]:
        """Rectangles and scores. dlib's scores are distances from its decision boundary; the logistic function of twice
        that is 0.5 on it."""
        if self._is_cnn:
            return [(m.rect, _logistic(m.confidence)) for m in self._detector(picture, DOUBLED)]
        rectangles, distances, _ = self._detector.run(picture, DOUBLED, 0.0)
        return [(r, _logistic(d)) for r, d in zip(rectangles, distances, strict=True)]


def _logistic(distance: float) -> float:
    return float(1 / (1 + np.exp(-2 * distance)))
