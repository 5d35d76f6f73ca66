"""Reverse image search: finds the images that a picture was made from, or that look like it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.embedders import Embedder
from enrichers.image import Pixels
from enrichers.keypoints import Keypoints, agreeing

#: fewest images whose mean is taken off all vectors: what all of a collection have in common tells nothing
CENTRED_FROM = 20

#: score below which an image that no keypoints prove is no find, once the mean is taken off (before that all pictures
#: are alike). Of 680 edited copies of photos, faces and scans, sought among 122, 400 and 30 images, each that was
#: found at all but not proven scored 0.19 and more; of 122 photos the tenth best other one scores 0.15 in the median
MIN_SCORE = 0.15

#: most images that are compared by keypoints, those with the nearest vectors
CANDIDATES = 50

#: keypoints of the picture that is searched for, and the longest side at which they are found
QUERY_KEYPOINTS, QUERY_SIDE = 800, 480

#: agreeing keypoints from which two pictures are the same, and from which the mirror image is not looked at
SAME, SURE = 10, 50


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for."""

    vectors: NDArray[np.float32]  #: (views, d): the picture at four quarter turns, and the picture inside it
    keypoints: tuple[Keypoints, ...]  #: of the picture and of its mirror image


@dataclass(frozen=True, slots=True)
class Match:
    """One image that was found."""

    index: int  #: row of the gallery
    score: float  #: cosine of the nearest views' vectors, 0 to 1
    agreeing: int  #: keypoints found again at their place; 0 where they were not compared

    @property
    def same(self) -> bool:
        """Whether the keypoints prove that one was made from the other."""
        return self.agreeing >= SAME


def query(picture: Pixels, embedder: Embedder) -> Query:
    """Looks at a picture, (h, w, 3) uint8 RGB, from all sides."""
    views = [picture, *(np.ascontiguousarray(np.rot90(picture, turns)) for turns in (1, 2, 3))]
    if (inside := inner_picture(picture)) is not None:
        views.append(inside)
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    return Query(
        np.stack([embedding.vector for embedding in embedder.embed_pictures(views)]),
        tuple(Keypoints.find(view, QUERY_KEYPOINTS, QUERY_SIDE) for view in (picture, mirrored)),
    )


def inner_picture(picture: Pixels) -> Pixels | None:
    """The largest picture inside a plain surrounding (a page, a frame), or None where there is none.

    Whatever has not the surrounding's colour, once thin strokes (writing, rules) are taken away.
    """
    height, width = picture.shape[:2]
    scale = 320 / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    pixels = small.shape[0] * small.shape[1]
    colours, counts = np.unique(small.reshape(-1, 3) // 8, axis=0, return_counts=True)
    if counts.max() < 0.1 * pixels:
        return None
    plain = colours[counts.argmax()].astype(np.int16) * 8 + 4
    other = (np.abs(small.astype(np.int16) - plain).max(axis=2) > 16).astype(np.uint8)
    solid = cv2.morphologyEx(cv2.morphologyEx(other, cv2.MORPH_CLOSE, np.ones((3, 3))), cv2.MORPH_OPEN, np.ones((9, 9)))
    _, _, boxes, _ = cv2.connectedComponentsWithStats(solid)
    best, area = None, 0
    for x, y, w, h, filled in boxes[1:]:
        if filled >= 0.6 * w * h and min(w, h) >= 24 and filled > area and w * h < 0.9 * pixels:
            best, area = (x, y, w, h), filled
    if best is None:
        return None
    left, top, right, bottom = (value / scale for value in (best[0], best[1], best[0] + best[2], best[1] + best[3]))
    return np.ascontiguousarray(picture[round(top) : round(bottom), round(left) : round(right)])


class Gallery:
    """The vectors of a collection, of whole images and of parts of them, all compared, in half precision."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        regions: NDArray[np.float32],
        keypoints: Callable[[int], Keypoints | None],
    ) -> None:
        """`vectors`: (n, d), `regions`: (n, r, d), where r may be 0; `keypoints` gives those of a row when they are
        needed."""
        import faiss

        count, parts, dimensions = regions.shape
        self._mean = common(vectors)
        self._min_score = MIN_SCORE if count >= CENTRED_FROM else 0.0
        self._rows = np.concatenate([np.arange(count), np.repeat(np.arange(count), parts)])
        flat = regions.reshape(-1, dimensions)
        self._index = faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._index.add(centred(vectors, self._mean))
        if parts:
            self._index.add(centred(flat, common(flat)))
        self._parts = 1 + parts
        self._keypoints = keypoints

    def search(self, wanted: Query, count: int, min_score: float | None = None) -> list[Match]:
        """The `count` best matches: first those that the keypoints prove, then the others by their vectors, from
        `min_score` on; None: what is sensible for a gallery of this size."""
        least = self._min_score if min_score is None else min_score
        candidates = self.nearest(wanted.vectors, max(count, CANDIDATES))
        matches = [
            Match(index, score, self._agreeing(wanted.keypoints, index) if place < CANDIDATES else 0)
            for place, (index, score) in enumerate(candidates)
        ]
        matches = [match for match in matches if match.same or match.score >= least]
        matches.sort(key=lambda match: (-match.agreeing if match.same else 0, -match.score))
        return matches[:count]

    def nearest(self, vectors: NDArray[np.float32], count: int) -> list[tuple[int, float]]:
        """Rows and scores of the `count` images with a vector nearest to one of `vectors`, best first."""
        best: dict[int, float] = {}
        scores, found = self._index.search(centred(vectors, self._mean), min(count * self._parts, self._index.ntotal))
        for score, row in zip(scores.flat, self._rows[found.reshape(-1)], strict=True):
            best[int(row)] = max(best.get(int(row), -1.0), float(score))
        ordered = sorted(best.items(), key=lambda pair: -pair[1])[:count]
        return [(index, min(max(score, 0.0), 1.0)) for index, score in ordered]

    def _agreeing(self, wanted: Sequence[Keypoints], index: int) -> int:
        stored = self._keypoints(index)
        if stored is None:
            return 0
        most = 0
        for view in wanted:
            most = max(most, agreeing(view, stored))
            if most >= SURE:
                break
        return most


def common(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What vectors have in common: their mean, (d,), and zeros where they are too few to tell."""
    return vectors.mean(axis=0) if len(vectors) >= CENTRED_FROM else np.zeros(vectors.shape[1], np.float32)


def centred(vectors: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors less `mean`, at length 1."""
    moved = vectors - mean
    return np.ascontiguousarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12), np.float32)
