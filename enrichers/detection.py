"""What a face detector gives, and what all of them share: canvases, overlaps, non-maximum suppression."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from enrichers.alignment import Matrix, box_matrix, chip
from enrichers.image import Pixels, resized

#: side in pixels of the cut that a face is looked at again on, and the share of it that the face's box takes:
#: CenterFace is most exact for faces of about 64 pixels
AGAIN_SIDE, AGAIN_SHARE = 128, 0.5

#: a face that is looked at again is the same if the boxes overlap by this (intersection over union)
AGAIN_OVERLAP = 0.3

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Detections:
    """The faces found in one picture, best first, in pixels of that picture.

    `boxes` is (n, 4): x, y, width, height; `scores` (n,) in [0, 1]; `landmarks` (n, 5, 2): left eye, right eye, nose,
    left and right corner of the mouth, as seen in the picture.
    """

    boxes: Floats
    scores: Floats
    landmarks: Floats

    @classmethod
    def none(cls) -> "Detections":
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))

    @classmethod
    def joined(cls, parts: Sequence["Detections"]) -> "Detections":
        """All faces of `parts`, best first."""
        if not parts:
            return cls.none()
        every = cls(
            np.concatenate([p.boxes for p in parts]),
            np.concatenate([p.scores for p in parts]),
            np.concatenate([p.landmarks for p in parts]),
        )
        return every.chosen(np.argsort(-every.scores, kind="stable"))

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> "Detections":
        return Detections(self.boxes[which], self.scores[which], self.landmarks[which])

    def above(self, score: float) -> "Detections":
        return self.chosen(self.scores > score)

    def scaled(self, x: float, y: float) -> "Detections":
        """The same faces in a picture that is `x` times as wide and `y` times as high."""
        factors = np.array([x, y], np.float32)
        return Detections(self.boxes * np.tile(factors, 2), self.scores, self.landmarks * factors)

    def moved(self, x: float, y: float) -> "Detections":
        """The same faces in a picture that begins `x` pixels further left and `y` pixels further up."""
        shift = np.array([x, y], np.float32)
        return Detections(
            self.boxes + np.concatenate([shift, [0, 0]]).astype(np.float32), self.scores, self.landmarks + shift
        )

    def suppressed(self, overlap: float) -> "Detections":
        """Without the faces that overlap a better one by more than `overlap` (intersection over union)."""
        return self.chosen(keep_best(self.boxes, self.scores, overlap))


class Detector(Protocol):
    """Finds faces in pictures."""

    #: whether a face that it found is to be looked for again, at one fixed size (`looked_at_again`)
    looks_again: bool

    def detect(self, pictures: Sequence[Pixels], side: int, min_score: float) -> list[Detections]:
        """The faces in each of `pictures` ((h, w, 3) uint8 RGB) with a score above `min_score`, looked for after
        shrinking its longest side to `side` pixels, in pixels of the picture as given."""
        ...


def looked_at_again(
    detector: Detector, pictures: Sequence[Pixels], found: Sequence[Detections], min_score: float
) -> list[Detections]:
    """Every face is cut out at one and the same size and must be found there again with a score above `min_score`; it
    then has the score and landmarks of this second look, which does not depend on how large it is in the picture.

    Where the cut reaches beyond the picture, the picture's edge goes on, which places landmarks best; a face that
    nearly fills the picture is hidden by that, and is tried on black too."""
    cuts = [
        (picture, box_matrix(_four(box), (1 / AGAIN_SHARE - 1) / 2, AGAIN_SIDE))
        for picture, faces in zip(pictures, found, strict=True)
        for box in faces.boxes
    ]
    seen = _found_in_cuts(detector, [chip(p, m, AGAIN_SIDE) for p, m in cuts], min_score)
    hidden = [n for n, face in enumerate(seen) if face is None and _reaches_beyond(*cuts[n])]
    on_black = [chip(*cuts[n], AGAIN_SIDE, black=True) for n in hidden]
    for n, face in zip(hidden, _found_in_cuts(detector, on_black, min_score), strict=True):
        seen[n] = face
    result = []
    remaining = iter(zip(cuts, seen, strict=True))
    for faces in found:
        kept: list[Detections] = []
        for index in range(len(faces)):
            (_, matrix), face = next(remaining)
            if face is not None:  # the matrices neither turn nor distort
                scale = 1 / float(matrix[0, 0])
                back = face.moved(-float(matrix[0, 2]), -float(matrix[1, 2])).scaled(scale, scale)
                kept.append(Detections(faces.boxes[index : index + 1], back.scores, back.landmarks))
        result.append(Detections.joined(kept))
    return result


def _found_in_cuts(detector: Detector, cuts: Sequence[Pixels], min_score: float) -> list[Detections | None]:
    """For each cut the one face in its middle, in pixels of the cut, or None."""
    inset = AGAIN_SIDE * (1 - AGAIN_SHARE) / 2
    expected = np.array([inset, inset, AGAIN_SIDE * AGAIN_SHARE, AGAIN_SIDE * AGAIN_SHARE], np.float32)
    found: list[Detections | None] = []
    for faces in detector.detect(cuts, AGAIN_SIDE, min_score):
        overlaps = intersection_over_union(expected, faces.boxes)
        matched = len(faces) and overlaps.max() >= AGAIN_OVERLAP
        found.append(faces.chosen(np.array([overlaps.argmax()])) if matched else None)
    return found


def _reaches_beyond(picture: Pixels, matrix: Matrix) -> bool:
    """Whether a cut by `matrix` shows what is not in the picture."""
    left, top = -matrix[:, 2] / matrix[0, 0]
    side = AGAIN_SIDE / matrix[0, 0]
    height, width = picture.shape[:2]
    return bool(left < 0 or top < 0 or left + side > width or top + side > height)


def _four(box: Floats) -> tuple[float, float, float, float]:
    x, y, width, height = (float(v) for v in box)
    return x, y, width, height


def intersection_over_union(box: Floats, boxes: Floats) -> Floats:
    """Of `box` (4,) with each of `boxes` (n, 4): (n,)."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(box[2:]) + np.prod(boxes[:, 2:], axis=1) - shared
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)


def keep_best(boxes: Floats, scores: Floats, overlap: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: the indices kept, best first."""
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left):
        kept.append(int(left[0]))
        left = left[1:][intersection_over_union(boxes[left[0]], boxes[left[1:]]) <= overlap]
    return np.array(kept, dtype=np.intp)


def largest_first(faces: Detections) -> Detections:
    return faces.chosen(np.argsort(-faces.boxes[:, 2:].prod(axis=1), kind="stable"))


def canvas_size(width: int, height: int, side: int, step: int = 32) -> tuple[tuple[int, int], tuple[int, int]]:
    """What a picture of `width` × `height` is shrunk to so that its longest side is at most `side`, and the canvas
    that this stands on, its sides multiples of `step`: ((width, height), (width, height))."""
    scale = min(1.0, side / max(width, height))
    fitted = max(1, round(width * scale)), max(1, round(height * scale))
    return fitted, (-(-fitted[0] // step) * step, -(-fitted[1] // step) * step)


def grouped_canvases(
    pictures: Sequence[Pixels], side: int, pixels: int
) -> list[tuple[list[int], Pixels, list[tuple[float, float]]]]:
    """The pictures on black canvases, those of one size together, at most `pixels` canvas pixels a group (or one
    picture): for each group the pictures' indices, the canvases (n, h, w, 3), and for each how much larger the
    picture is than what stands on its canvas (x, y)."""
    sizes = [canvas_size(p.shape[1], p.shape[0], side) for p in pictures]
    groups: list[list[int]] = []
    for canvas in sorted({canvas for _, canvas in sizes}):
        members = [i for i, (_, c) in enumerate(sizes) if c == canvas]
        limit = max(1, pixels // (canvas[0] * canvas[1]))
        groups += [members[start : start + limit] for start in range(0, len(members), limit)]
    result = []
    for members in groups:
        width, height = sizes[members[0]][1]
        canvases = np.zeros((len(members), height, width, 3), np.uint8)
        factors = []
        for row, index in enumerate(members):
            picture, (w, h) = pictures[index], sizes[index][0]
            if picture.shape[:2] != (h, w):
                picture = resized(picture, w, h)
            canvases[row, :h, :w] = picture
            factors.append((pictures[index].shape[1] / w, pictures[index].shape[0] / h))
        result.append((members, canvases, factors))
    return result
