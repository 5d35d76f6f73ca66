"""MTCNN: three small networks, each looking closer at what the one before left; five landmarks come from the last.

Kaipeng Zhang et al. (2016), see `mtcnn_graphs`; thresholds and steps as in the package `mtcnn` 1.0.0.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.alignment import box_matrix, chip
from enrichers.contract import Network
from enrichers.detection import Detections, Floats, canvas_size, keep_best
from enrichers.image import Pixels

#: side in pixels of what the proposals' network sees, the step of its grid, and the smallest face looked for
CELL, STRIDE, SMALLEST = 12, 2, 20

#: each level of the pyramid is this much smaller than the one before
SHRINK = 0.709

#: least scores after each network; the caller may ask for more of the last one
PROPOSED, REFINED, SURE = 0.6, 0.7, 0.8

#: overlaps (intersection over union) allowed within a level of the pyramid, across levels and after the refinement
WITHIN_LEVEL, ACROSS_LEVELS = 0.5, 0.7

#: faces in one call of the second and third network
FACES_A_CALL = 64


class MTCNN:
    """The cascade on its three networks, as a `Detector`."""

    looks_again = False

    def __init__(self, proposals: Network, refinement: Network, output: Network) -> None:
        self._proposals, self._refinement, self._output = proposals, refinement, output

    def detect(self, pictures: Sequence[Pixels], side: int, min_score: float) -> list[Detections]:
        return [self._detect(picture, side, min_score) for picture in pictures]

    def _detect(self, picture: Pixels, side: int, min_score: float) -> Detections:
        height, width = picture.shape[:2]
        (w, h), _ = canvas_size(width, height, side)
        small = np.asarray(cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA), np.uint8)
        boxes = self._refined(small, self._proposed(small))
        return self._described(small, boxes, min_score).scaled(width / w, height / h)

    def _proposed(self, picture: Pixels) -> Floats:
        """Squares (n, 4) that may hold a face."""
        height, width = picture.shape[:2]
        found, scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
        scale = CELL / SMALLEST
        while min(height, width) * scale >= CELL:
            size = (round(width * scale), round(height * scale))
            level = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
            outputs = self._proposals.run({"image": normalised([level])})
            score = outputs["scores"][0, 1]
            rows, columns = np.nonzero(score > PROPOSED)
            corner = np.stack([columns, rows], axis=1) * STRIDE
            offsets = outputs["boxes"][0][:, rows, columns].T * CELL
            boxes = corners_to_boxes(np.concatenate([corner, corner + CELL], axis=1) + offsets) / scale
            kept = keep_best(boxes, score[rows, columns], WITHIN_LEVEL)
            found.append(boxes[kept])
            scores.append(score[rows, columns][kept])
            scale *= SHRINK
        boxes = np.concatenate(found)
        return squared(boxes[keep_best(boxes, np.concatenate(scores), ACROSS_LEVELS)])

    def _refined(self, picture: Pixels, boxes: Floats) -> Floats:
        offsets, scores, _ = _run(self._refinement, picture, boxes, 24)
        kept = scores > REFINED
        boxes, scores = adjusted(boxes[kept], offsets[kept]), scores[kept]
        return squared(boxes[keep_best(boxes, scores, ACROSS_LEVELS)])

    def _described(self, picture: Pixels, boxes: Floats, min_score: float) -> Detections:
        offsets, scores, points = _run(self._output, picture, boxes, 48)
        kept = scores > max(min_score, SURE)
        boxes, offsets, scores, points = boxes[kept], offsets[kept], scores[kept], points[kept]
        landmarks = np.stack([points[:, :5], points[:, 5:]], axis=2) * (boxes[:, None, 2:] + 1) + boxes[:, None, :2] - 1
        return _without_nested(Detections(adjusted(boxes, offsets), scores, landmarks.astype(np.float32)))


def _run(network: Network, picture: Pixels, boxes: Floats, side: int) -> tuple[Floats, Floats, Floats]:
    """Offsets (n, 4), scores (n,) and landmarks (n, 10; zeros where the network gives none) of each square."""
    parts = [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 10), np.float32))]
    for start in range(0, len(boxes), FACES_A_CALL):
        some = boxes[start : start + FACES_A_CALL]
        cuts = [chip(picture, box_matrix((x, y, w, h), 0.0, side), side, black=True) for x, y, w, h in some.tolist()]
        outputs = network.run({"image": normalised(cuts)})
        points = outputs.get("landmarks", np.zeros((len(some), 10), np.float32))
        parts.append((outputs["boxes"], outputs["scores"][:, 1], points))
    offsets, scores, landmarks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return offsets, scores, landmarks


def normalised(pictures: Sequence[Pixels]) -> Floats:
    """Pictures of one size → the networks' input."""
    batch: NDArray[np.float32] = np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray((batch - 127.5) / 128)


def corners_to_boxes(corners: NDArray[np.floating]) -> Floats:
    """left, top, right, bottom → x, y, width, height."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float32)


def adjusted(boxes: Floats, offsets: Floats) -> Floats:
    """Boxes moved by a network's offsets: of left, top, right and bottom, in shares of the box."""
    sizes = np.tile(boxes[:, 2:] + 1, 2)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return corners_to_boxes(corners + offsets * sizes)


def squared(boxes: Floats) -> Floats:
    """Squares with the middles of boxes and their longer sides."""
    longer = boxes[:, 2:].max(axis=1, keepdims=True)
    return np.concatenate([boxes[:, :2] + (boxes[:, 2:] - longer) / 2, longer, longer], axis=1)


def _without_nested(faces: Detections) -> Detections:
    """Without faces whose shared area with a better one is more than 0.7 of the smaller: one face seen at two sizes."""
    left = list(np.argsort(-faces.scores, kind="stable"))
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(int(best))
        x, y, w, h = faces.boxes[best]

        def shared(other: int, x: float = x, y: float = y, w: float = w, h: float = h) -> float:
            ox, oy, ow, oh = faces.boxes[other]
            area = max(0.0, min(x + w, ox + ow) - max(x, ox)) * max(0.0, min(y + h, oy + oh) - max(y, oy))
            return float(area / max(min(w * h, ow * oh), 1e-9))

        left = [other for other in left if shared(other) <= ACROSS_LEVELS]
    return faces.chosen(np.array(kept, dtype=np.intp))
