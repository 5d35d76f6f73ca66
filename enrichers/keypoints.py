"""Keypoints: small places of a picture that are found again in its crops, turns and screenshots."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.image import Pixels

#: longest side in pixels to which a stored picture is brought, larger or smaller, before its keypoints are found
SIDE = 400

#: pixels at each edge without keypoints: half of what ORB leaves out by itself, so that small crops have some
EDGE = 16

#: shortest side in pixels, at `SIDE`, of a picture that has any
SHORTEST = 64

#: a pair counts where the best descriptor differs in fewer bits than this, of 256 …
MAX_BITS = 64
#: … and in less than this share of the second best (Lowe's ratio test, 2004)
MAX_RATIO = 0.85

#: pixels by which a pair may miss the common movement, at `SIDE`
TOLERANCE = 8.0
#: sizes of the query's content beside the stored one's that are believed
SCALES = (0.15, 6.0)


@dataclass(frozen=True)
class Keypoints:
    """ORB keypoints of one picture (Rublee et al., "ORB: An efficient alternative to SIFT or SURF", 2011)."""

    points: NDArray[np.uint16]  #: (n, 2) x, y in 1/65535 of the longer side
    descriptors: NDArray[np.uint8]  #: (n, 32), 256 bits each

    @classmethod
    def find(cls, pixels: Pixels, count: int, side: int = SIDE) -> "Keypoints":
        """The `count` strongest, or fewer. `pixels`: (h, w, 3) uint8 RGB, brought to `side` first."""
        height, width = pixels.shape[:2]
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        scale = side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        if min(grey.shape) < SHORTEST:
            return cls.none()
        found, descriptors = cv2.ORB.create(nfeatures=count, fastThreshold=7, edgeThreshold=EDGE).detectAndCompute(
            grey, None
        )
        if not found:
            return cls.none()
        points = np.array([point.pt for point in found]) / max(grey.shape)
        return cls(np.round(points * 65535).astype(np.uint16)[:count], np.asarray(descriptors[:count], np.uint8))

    @classmethod
    def none(cls) -> "Keypoints":
        return cls(np.zeros((0, 2), np.uint16), np.zeros((0, 32), np.uint8))

    @classmethod
    def unpack(cls, points: bytes, descriptors: bytes) -> "Keypoints":
        return cls(np.frombuffer(points, "<u2").reshape(-1, 2), np.frombuffer(descriptors, np.uint8).reshape(-1, 32))

    def pack(self) -> tuple[bytes, bytes]:
        """Points (little-endian) and descriptors as bytes: 36 a keypoint."""
        return self.points.astype("<u2").tobytes(), self.descriptors.tobytes()


def agreeing(query: Keypoints, stored: Keypoints) -> int:
    """How many keypoints of the stored picture are found again in the query where one shift, turn and scaling of the
    whole picture puts them (RANSAC)."""
    if min(len(query.points), len(stored.points)) < 4:
        return 0
    pairs = [
        best
        for best, *second in cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(query.descriptors, stored.descriptors, k=2)
        if best.distance < MAX_BITS and (not second or best.distance < MAX_RATIO * second[0].distance)
    ]
    if len(pairs) < 4:
        return 0
    unit = SIDE / 65535
    ours = query.points[[pair.queryIdx for pair in pairs]].astype(np.float32) * unit
    theirs = stored.points[[pair.trainIdx for pair in pairs]].astype(np.float32) * unit
    movement, inliers = cv2.estimateAffinePartial2D(
        ours, theirs, method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE, maxIters=500
    )
    if movement is None or not SCALES[0] < float(np.hypot(movement[0, 0], movement[0, 1])) < SCALES[1]:
        return 0
    return len(np.unique(np.round(theirs[inliers[:, 0] > 0]), axis=0))
