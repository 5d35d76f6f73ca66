"""Where in a picture is what matters, and the windows that keep most of it."""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.image import Pixels, resized

#: cells of the map along the picture's longer side
CELLS = 64

#: what faces, people and other objects weigh beside the picture's own saliency, which is 1 in all
FACES, PEOPLE, OBJECTS = 3.0, 1.5, 1.0

#: share of the weight on each axis that the box around what matters leaves out on either side
TAIL = 0.06


class Weighted(NamedTuple):
    """A place in the picture, in shares (0 to 1) of its width and height, and its weight."""

    x: float
    y: float
    width: float
    height: float
    weight: float


class Window(NamedTuple):
    """Part of a picture, in shares of its width and height, and the share of the weight that it keeps."""

    x: float
    y: float
    width: float
    height: float
    kept: float


def weights(picture: Pixels, places: Iterable[Weighted]) -> NDArray[np.float32]:
    """A map of the picture's form, at most 64 cells a side, sum 1: the spectral residual (Hou and Zhang, "Saliency
    Detection: A Spectral Residual Approach", 2007) and, on top, what was found in it."""
    height, width = picture.shape[:2]
    scale = CELLS / max(height, width)
    columns, rows = max(4, round(width * scale)), max(4, round(height * scale))
    small = resized(picture, columns, rows)
    total = spectral_residual(small)
    for place in places:
        left, right = _cells(place.x, place.width, columns)
        top, bottom = _cells(place.y, place.height, rows)
        total[top:bottom, left:right] += place.weight / ((bottom - top) * (right - left))
    return np.asarray(total / total.sum(), dtype=np.float32)


def _cells(start: float, size: float, count: int) -> tuple[int, int]:
    first = min(max(int(start * count), 0), count - 1)
    return first, min(max(round((start + size) * count), first + 1), count)


def spectral_residual(small: Pixels) -> NDArray[np.float32]:
    """(rows, columns), sum 1; even where the picture has nothing in it."""
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    spectrum = np.fft.fft2(grey)
    amplitude = np.log(np.abs(spectrum) + 1e-6).astype(np.float32)
    residual = amplitude - cv2.blur(amplitude, (3, 3))
    salient = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    smooth = cv2.GaussianBlur(salient.astype(np.float32), (0, 0), 2.5)
    standing_out = np.maximum(smooth - smooth.mean(), 0)
    if float(grey.std()) < 1 or float(standing_out.sum()) <= 0:
        standing_out = np.ones_like(grey)
    return np.asarray(standing_out / standing_out.sum(), dtype=np.float32)


def focus(weight: NDArray[np.float32]) -> Window:
    """The box around what matters: on each axis, all but a small tail of the weight on either side."""
    top, bottom = _middle(weight.sum(axis=1))
    left, right = _middle(weight.sum(axis=0))
    kept = float(weight[top:bottom, left:right].sum())
    rows, columns = weight.shape
    return Window(left / columns, top / rows, (right - left) / columns, (bottom - top) / rows, kept)


def _middle(along: NDArray[np.float32]) -> tuple[int, int]:
    gathered = np.cumsum(along) / along.sum()
    first = int(np.searchsorted(gathered, TAIL))
    last = int(np.searchsorted(gathered, 1 - TAIL))
    return first, max(last + 1, first + 1)


def crop(weight: NDArray[np.float32], ratio: float, form: float) -> Window:
    """The largest window of width / height `ratio` that keeps most of the weight, the one nearest to the middle where
    several keep as much. `form`: width / height of the picture in pixels."""
    rows, columns = weight.shape
    if ratio >= form:
        wide, tall = columns, max(1, round(rows * form / ratio))
    else:
        wide, tall = max(1, round(columns * ratio / form)), rows
    sums = cv2.integral(weight.astype(np.float32))
    kept = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    y, x = (np.arange(size, dtype=np.float32) - (size - 1) / 2 for size in kept.shape)
    top, left = np.unravel_index(int((kept - 1e-5 * (np.abs(y)[:, None] + np.abs(x))).argmax()), kept.shape)
    width, height = (1.0, form / ratio) if ratio >= form else (ratio / form, 1.0)
    x0, y0 = min(left / columns, 1 - width), min(top / rows, 1 - height)
    return Window(float(x0), float(y0), width, height, float(kept[top, left]))
