"""Aligned face chips: the similarity that lays five landmarks onto a model's template, and the pixels under it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.image import Pixels

Matrix = NDArray[np.float64]

#: Where models want the landmarks (left eye, right eye, nose, left and right corner of the mouth, as seen), in pixels
#: of a chip of the given side. "dlib": CenterFace's landmarks in dlib's own chips (150 px, padding 0.25), medians over
#: faces of Labeled Faces in the Wild. "arcface": `src` of InsightFace's `face_align.py`, 112 px. "fer": the same
#: landmarks in the squares that OpenCV's frontal cascade finds, 10 px larger on each side (what the package `fer`
#: cuts), medians over 480 faces of Labeled Faces in the Wild, made symmetric.
TEMPLATES: dict[str, tuple[int, Matrix]] = {
    "dlib": (150, np.array([[46.8, 48.2], [102.7, 48.5], [73.4, 77.9], [50.9, 104.3], [96.6, 104.4]])),
    "arcface": (
        112,
        np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]),
    ),
    "fer": (64, np.array([[21.8, 26.6], [42.2, 26.6], [32.0, 38.3], [23.6, 48.0], [40.4, 48.0]])),
}

#: share of the face that dlib's chips show beyond it on each side
PADDING = 0.25

#: a picture shrunk by more than this in one step by bilinear sampling would show aliasing
LARGEST_SHRINK = 2.0


def template(name: str, size: int, zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Matrix:
    """The template `name` for chips of `size` pixels, (5, 2): the face `zoom` times as large about the chip's middle,
    then moved by `shift` = (x, y) pixels."""
    side, points = TEMPLATES[name]
    return np.asarray((points * (size / side) - size / 2) * zoom + size / 2 + np.array(shift), np.float64)


def similarity(points: NDArray[np.floating], target: Matrix) -> Matrix:
    """The rotation, scale and shift, without reflection, that takes `points` (n, 2) closest to `target` (n, 2) in the
    least-squares sense, as (2, 3). S. Umeyama, "Least-squares estimation of transformation parameters between two
    point patterns", IEEE PAMI 13 (1991). All points in one place give a pure shift."""
    source = np.asarray(points, np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    u, singular, vt = np.linalg.svd((target - target_mean).T @ centred)
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    spread = float((centred**2).sum())
    scale = float(singular @ signs) / spread if spread > 0 else 1.0
    rotation = scale * (u * signs) @ vt if spread > 0 else np.eye(2)
    return np.column_stack([rotation, target_mean - rotation @ source_mean])


def residual(points: NDArray[np.floating], target: Matrix, matrix: Matrix) -> float:
    """Root mean square distance of the mapped `points` from `target`, in pixels of the chip."""
    mapped = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return float(np.sqrt(((mapped - target) ** 2).sum(axis=1).mean()))


def chip(pixels: Pixels, matrix: Matrix, size: int, *, black: bool = False) -> Pixels:
    """What `matrix` (2, 3: picture → chip) brings into a square of `size` pixels, (size, size, 3) uint8. A picture much
    larger than the chip is shrunk by area first, so that nothing is skipped. Outside the picture its edge goes on, or
    it is `black`."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    inverse = cv2.invertAffineTransform(matrix)
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ inverse.T
    height, width = pixels.shape[:2]
    margin = 2.0 / scale
    left, top = np.floor(np.clip(corners.min(axis=0) - margin, 0, [width - 1, height - 1])).astype(int)
    right, bottom = np.ceil(np.clip(corners.max(axis=0) + margin, [left + 1, top + 1], [width, height])).astype(int)
    region = pixels[top:bottom, left:right]
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ np.array([left, top], np.float64)
    if scale * LARGEST_SHRINK < 1:
        small_size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        factors = np.array([(right - left) / small_size[0], (bottom - top) / small_size[1]])
        region = np.asarray(cv2.resize(region, small_size, interpolation=cv2.INTER_AREA), np.uint8)
        # pixel centres: x in the region is factor · (x' + 0.5) − 0.5 for x' in the shrunk one
        moved[:, 2] += moved[:, :2] @ (factors / 2 - 0.5)
        moved[:, :2] *= factors
    border = cv2.BORDER_CONSTANT if black else cv2.BORDER_REPLICATE
    warped = cv2.warpAffine(region, moved, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(warped, np.uint8)


def box_matrix(box: tuple[float, float, float, float], margin: float, size: int) -> Matrix:
    """The matrix for `chip` of an upright square around `box` (x, y, width, height), its longer side enlarged on
    both sides by `margin` of it."""
    x, y, width, height = box
    side = max(width, height, 1.0) * (1 + 2 * margin)
    scale = size / side
    return np.array(
        [[scale, 0.0, (side - width) / 2 * scale - x * scale], [0.0, scale, (side - height) / 2 * scale - y * scale]]
    )
