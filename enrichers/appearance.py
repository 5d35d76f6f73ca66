"""How a picture looks, from its pixels alone: colour, blur, exposure, and whether a camera made it."""

from dataclasses import dataclass
from math import exp

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.image import Pixels

#: longest side in pixels at which blur and exposure are measured
SIDE = 512

#: longest side at which colour is measured: its averages need no detail
COLOUR_SIDE = 128

#: longest side at which flat areas are measured: finer than the noise of a photo, coarse enough for huge scans
FINE_SIDE = 1024

#: words for Hasler and Süsstrunk's colourfulness, each from its value on (their table 2; 109 is "extremely")
COLOURFULNESS = ((0.0, "none"), (7.5, "slight"), (24.0, "moderate"), (39.0, "average"), (52.0, "quite"), (70.0, "high"))
MOST_COLOURFUL = 109.0


@dataclass(frozen=True, slots=True)
class Texture:
    """What tells a photo from what a computer or a scanner made; shares of the pixels, 0 to 1."""

    flat: float  #: those that differ from their right and lower neighbours by at most 1 grey level
    pale: float  #: those as bright and colourless as paper
    main: float  #: those of the eight most frequent of 4096 colours
    colours: int  #: how many of the 4096 colours more than one pixel in 2000 has


def colourfulness(picture: Pixels) -> float:
    """0 (grey) to about 110 (Hasler and Süsstrunk, "Measuring colourfulness in natural images", 2003)."""
    red, green, blue = (picture[:, :, channel].astype(np.float32) for channel in range(3))
    yellow_blue, red_green = (red + green) / 2 - blue, red - green
    spread = float(np.hypot(red_green.std(), yellow_blue.std()))
    return spread + 0.3 * float(np.hypot(red_green.mean(), yellow_blue.mean()))


def colourfulness_word(value: float) -> str:
    return next(word for start, word in reversed(COLOURFULNESS) if value >= start)


def colour_left(picture: Pixels) -> float:
    """How far colours are from those of a black-and-white or toned picture, in units of CIELAB: the root mean square of
    what is left of a* and b* once their quadratic dependence on the lightness is taken away; 0 where there is none."""
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64)
    light = lab[:, 0] / 100
    terms = np.stack([np.ones_like(light), light, light**2], axis=1)
    solved = np.linalg.pinv(terms.T @ terms) @ (terms.T @ lab[:, 1:])
    return float(np.sqrt(((lab[:, 1:] - terms @ solved) ** 2).sum(axis=1).mean()))


def mean_chroma(picture: Pixels) -> float:
    """Mean distance from grey in CIELAB."""
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return float(np.hypot(lab[:, :, 1], lab[:, :, 2]).mean())


def blur(picture: Pixels) -> float:
    """0 (sharp) to 1: how little of the picture's detail another blur takes away, along the sharper of both axes (Crété
    et al., "The blur effect: perception and estimation with a new no-reference perceptual blur metric", 2007), of its
    sharpest ninth: a portrait before a blurred background is sharp."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    rows, columns = (np.linspace(0, size, 4).astype(int) for size in grey.shape)
    parts = [
        grey[rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
        for row in range(3)
        for column in range(3)
    ]
    told = [value for part in parts if (value := _blur_of(part)) is not None]
    return min(told, default=0.0)


def _blur_of(grey: NDArray[np.float32]) -> float | None:
    """None for a part with too little in it to tell."""
    if min(grey.shape) < 12 or float(grey.std()) < 6:
        return None
    values = []
    for axis, kernel in ((0, (1, 9)), (1, (9, 1))):
        again = cv2.blur(grey, kernel)
        before = np.abs(np.diff(grey, axis=axis))
        after = np.abs(np.diff(again, axis=axis))
        total = float(before.sum())
        lost = float(np.maximum(before - after, 0).sum())
        values.append((total - lost) / total if total > 0 else 1.0)
    return max(values)


def texture(picture: Pixels) -> Texture:
    light = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    below = np.cumsum(np.bincount(light.ravel(), minlength=256)) / light.size
    stretch = 255 / max(int(np.searchsorted(below, 0.99)), 32)  # a dark photo is not flat
    grey = cv2.convertScaleAbs(light, alpha=stretch)
    corner = grey[:-1, :-1]
    step = cv2.max(cv2.absdiff(grey[:-1, 1:], corner), cv2.absdiff(grey[1:, :-1], corner)) if corner.size else None
    paper = cv2.inRange(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV), (0, 0, 201), (255, 39, 255))
    counts = cv2.calcHist([picture], [0, 1, 2], None, [16, 16, 16], [0, 256] * 3).ravel()
    shares = counts / counts.sum()
    return Texture(
        flat=float((step <= 1).mean()) if step is not None else 1.0,
        pale=float(np.count_nonzero(paper)) / light.size,
        main=float(np.sort(shares)[-8:].sum()),
        colours=int((shares > 1 / 2000).sum()),
    )


def exposure(picture: Pixels) -> tuple[float, float]:
    """How under- and how overexposed a photo is, 0 to 1 each. Under: even its bright tenth is dark. Over: half of it is
    bright, and much of it is burnt out."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    below = np.cumsum(np.bincount(grey.ravel(), minlength=256)) / grey.size
    middle, bright = (float(value) / 255 for value in np.searchsorted(below, (0.5, 0.9)))
    burnt = float(cv2.inRange(picture, (250, 250, 250), (255, 255, 255)).mean()) / 255
    under = min(likely(0.16 - middle, 0.03), likely(0.42 - bright, 0.05))
    over = min(likely(middle - 0.78, 0.03), likely(burnt - 0.2, 0.04))
    return under, over


def likely(beyond: float, width: float) -> float:
    """0.5 at 0, and 0.88 at two `width`s beyond it."""
    return 1 / (1 + exp(-max(min(beyond / width, 40.0), -40.0)))
