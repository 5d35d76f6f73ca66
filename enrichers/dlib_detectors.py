"""dlib's own face detectors, HOG and CNN, with its five-point landmark model."""

from collections.abc import Sequence

import cv2
import numpy as np

from enrichers.alignment import similarity, template
from enrichers.contract import Network
from enrichers.detection import Detections, Floats, grouped_canvases
from enrichers.image import Pixels

#: canvas pixels in one call: the CNN holds the activations of all of them, at twice their size
PIXELS_A_CALL = 2 * 640 * 480


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
    """One of dlib's detectors, as a `Detector`. It holds the interpreter lock and, on a CPU, runs on one thread."""

    looks_again = False

    def __init__(self, detector: Network, landmarks: Network) -> None:
        """Networks of the runtime dlib: one of kind "hog" or "cnn", and the five-point one of kind "landmarks"."""
        self._detector, self._landmarks = detector, landmarks

    def detect(self, pictures: Sequence[Pixels], side: int, min_score: float) -> list[Detections]:
        found = [Detections.none()] * len(pictures)
        for members, canvases, factors in grouped_canvases(pictures, side, PIXELS_A_CALL):
            answer = self._detector.run({"images": canvases})
            rows = zip(members, canvases, answer["boxes"], answer["scores"], factors, strict=True)
            for index, canvas, boxes, distances, (x, y) in rows:
                faces = self._described(canvas, boxes, 1 / (1 + np.exp(-2 * distances)))
                found[index] = faces.above(min_score).scaled(x, y)
        return found

    def _described(self, picture: Pixels, boxes: Floats, scores: Floats) -> Detections:
        """dlib's scores are distances from its decision boundary; the logistic function of twice that, which `scores`
        hold, is 0.5 on it."""
        solid = (scores > 0) & (boxes[:, 2:] > 1).all(axis=1)
        if not solid.any():
            return Detections.none()
        boxes, scores = boxes[solid], scores[solid]
        images = np.broadcast_to(picture, (len(boxes), *picture.shape))
        corners = self._landmarks.run({"images": images, "boxes": boxes})["points"]
        points = np.stack([five_landmarks(five) for five in corners])
        return Detections.joined([Detections(boxes, scores.astype(np.float32), points)])
