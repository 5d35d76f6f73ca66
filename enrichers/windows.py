"""Cuts pictures into overlapping windows, and puts together what was detected in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.image import Pixels

#: share of a window that its neighbour shows too: an object of up to that share is whole in one of them
#: (0.2 is what SAHI, Akyon et al. 2022, takes)
OVERLAP = 0.25

#: share of a window's side within which a box's edge counts as lying on the border: 6 of the 300 pixels of the
#: default network's input, about as exact as its boxes are
BORDER = 0.02

#: overlap (intersection over union) above which two boxes of one class are the same object
SAME_IOU = 0.6


@dataclass(frozen=True, slots=True)
class Boxes:
    """Objects found in one picture."""

    corners: NDArray[np.float32]  #: (n, 4) left, top, right, bottom, as shares of the picture's width and height
    scores: NDArray[np.float32]  #: (n,) in [0, 1]
    classes: NDArray[np.int64]  #: (n,) indices into the detector's names

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Boxes":
        return Boxes(self.corners[which], self.scores[which], self.classes[which])

    @classmethod
    def joined(cls, parts: Sequence["Boxes"]) -> "Boxes":
        return cls(
            np.concatenate([p.corners for p in parts]),
            np.concatenate([p.scores for p in parts]),
            np.concatenate([p.classes for p in parts]),
        )


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a picture, in pixels; `right` and `bottom` are those behind its last."""

    left: int
    top: int
    right: int
    bottom: int

    def cut(self, picture: Pixels) -> Pixels:
        """The pixels of a picture that the window shows; a view."""
        return picture[self.top : self.bottom, self.left : self.right]

    def whole(self, found: Boxes, width: int, height: int) -> Boxes:
        """Boxes as shares of this window → those that its border does not cut, as shares of the picture, which has
        `width` × `height` pixels. A border that is the picture's own cuts nothing."""
        low = np.array([BORDER if self.left > 0 else -1, BORDER if self.top > 0 else -1])
        high = np.array([1 - BORDER if self.right < width else 2, 1 - BORDER if self.bottom < height else 2])
        uncut = np.concatenate([found.corners[:, :2] > low, found.corners[:, 2:] < high], axis=1).all(axis=1)
        kept = found.chosen(np.asarray(uncut, np.bool_))
        own = np.array([self.right - self.left, self.bottom - self.top] * 2, np.float32)
        corners = (kept.corners * own + [self.left, self.top] * 2) / ([width, height] * 2)
        return Boxes(corners.astype(np.float32), kept.scores, kept.classes)


def grid(columns: int, rows: int, width: int, height: int) -> list[Window]:
    """`columns` × `rows` windows that cover a picture of `width` × `height` pixels; neighbours share `OVERLAP` of
    their side."""
    spans = [(left, top) for top in _spans(rows, height) for left in _spans(columns, width)]
    return [Window(left, top, right, bottom) for (left, right), (top, bottom) in spans]


def _spans(count: int, length: int) -> list[tuple[int, int]]:
    size = length / (count - (count - 1) * OVERLAP)
    starts = [min(length - 1, round(i * size * (1 - OVERLAP))) for i in range(count)]
    return [(start, min(length, max(start + 1, start + round(size)))) for start in starts[:-1]] + [(starts[-1], length)]


def distinct(found: Boxes, same_iou: float = SAME_IOU) -> Boxes:
    """The boxes, best first, without those that overlap a better one of their class by more than `same_iou` (greedy
    non-maximum suppression)."""
    if not len(found):
        return found
    sizes = found.corners[:, 2:] - found.corners[:, :2]
    rectangles = np.concatenate([found.corners[:, :2], sizes], axis=1).astype(np.float64)
    suppress: Any = cv2.dnn.NMSBoxesBatched  # its stubs know only lists
    kept = np.asarray(suppress(rectangles, found.scores, found.classes.astype(np.int32), 0.0, same_iou), np.int64)
    order = np.argsort(-found.scores[kept], kind="stable")
    return found.chosen(kept[order])
