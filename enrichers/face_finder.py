"""Finds the faces of pictures: where to look, how closely, and what to believe."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from enrichers.detection import Detections, Detector, largest_first, looked_at_again
from enrichers.image import Image, Pixels

#: pixels of the longest side at which faces are found that fill more than half of the picture
CLOSE_SIDE = 160

#: a picture holds small faces, which deserve a finer look, if it shows any of fewer pixels at the usual size with this
#: score: CenterFace finds 95 % of faces of 11 pixels, nearly all of 15 and hardly any of 7
SMALL_FACE, SMALL_SCORE = 20, 0.2

#: no coordinate of a face is larger than the picture's longer side times this; what a network makes of noise can be
LARGEST = 4

#: boxes found at two sizes are one face if they overlap by this (intersection over union)
SAME_FACE = 0.3


class FaceFinder:
    """A detector with the settings of the faces enricher: `max_side`, `detect_side`, `fine_side`, `candidate_score`,
    `min_score`, `min_size` and `max_faces`."""

    def __init__(self, detector: Detector, settings: Mapping[str, Any]) -> None:
        self._detector = detector
        self._settings = settings

    @property
    def max_side(self) -> int:
        """Pixels of the longest side that pictures need no more of."""
        return int(self._settings["max_side"])

    def find(self, images: Sequence[Image]) -> tuple[list[Pixels], list[Detections]]:
        """The picture that each image's faces are to be cut from, and its faces in pixels of it, the largest first."""
        pictures = [image.fitted(self.max_side) for image in images]
        found = self._candidates(pictures)
        found = [self._worth(image, picture, f) for image, picture, f in zip(images, pictures, found, strict=True)]
        if self._detector.looks_again:
            found = looked_at_again(self._detector, pictures, found, self._settings["min_score"])
        return pictures, [largest_first(faces.above(self._settings["min_score"])) for faces in found]

    def _candidates(self, pictures: Sequence[Pixels]) -> list[Detections]:
        """What might be faces: found at the usual size, at a small one (faces that nearly fill the picture), and, where
        the usual size shows small ones, at a large one."""
        score, side, fine = (self._settings[key] for key in ("candidate_score", "detect_side", "fine_side"))
        usual = self._detector.detect(pictures, side, min(score, SMALL_SCORE))
        parts = [[faces.above(score)] for faces in usual]
        large = [n for n, p in enumerate(pictures) if min(max(p.shape[:2]), side) > 2 * CLOSE_SIDE]
        small = [n for n, p in enumerate(pictures) if _has_small(usual[n], p, side, fine)]
        for its_side, chosen in ((CLOSE_SIDE, large), (fine, small)):
            found = self._detector.detect([pictures[n] for n in chosen], its_side, score)
            for n, faces in zip(chosen, found, strict=True):
                parts[n].append(faces)
        return [Detections.joined(some).suppressed(SAME_FACE) for some in parts]

    def _worth(self, image: Image, picture: Pixels, faces: Detections) -> Detections:
        """The faces whose middle is in the picture and that are of a possible size, the largest first."""
        height, width = picture.shape[:2]
        numbers = np.concatenate([faces.boxes, faces.landmarks.reshape(-1, 10)], axis=1)
        faces = faces.chosen((np.abs(numbers) < LARGEST * max(height, width)).all(axis=1))
        middles = faces.boxes[:, :2] + faces.boxes[:, 2:] / 2
        inside = ((middles >= 0) & (middles < [width, height])).all(axis=1)
        sizes = faces.boxes[:, 2:].min(axis=1) * (image.width / width)
        kept = faces.chosen(inside & (sizes >= self._settings["min_size"]))
        return largest_first(kept).chosen(np.arange(min(len(kept), self._settings["max_faces"])))


def _has_small(faces: Detections, picture: Pixels, side: int, fine: int) -> bool:
    """Whether `faces`, found at `side`, show that looking at `fine` would be worth its time."""
    longest = max(picture.shape[:2])
    if min(longest, fine) < 1.25 * side:
        return False
    return bool((faces.boxes[:, 2:].min(axis=1) * (side / longest) < SMALL_FACE).any())
