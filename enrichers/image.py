"""A decoded image and what its file says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Facts:
    """What decoding learned about a file, before any enricher saw it. Plain types only, so that it can be pickled.

    `width` and `height` are pixels of the upright image. `exif` holds the tags by their EXIF names, as plain
    types: numbers, strings, tuples of numbers; GPS tags are under `GPSInfo`, again by name.
    """

    format: str  #: "JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "HEIF" or "AVIF"
    bytes: int  #: size of the file
    sha256: str  #: hex digest of the whole file
    width: int
    height: int
    orientation: int = 1  #: EXIF orientation as stored, 1 to 8; 1 where it is missing or invalid
    mode: str = "RGB"  #: Pillow's mode as stored, e.g. "L", "P", "CMYK", "I;16"
    bits: int = 8  #: bits a channel, as stored
    frames: int = 1
    has_alpha: bool = False
    icc_profile: str | None = None  #: description of the embedded colour profile
    exif: Mapping[str, Any] = field(default_factory=dict)
    truncated: bool = False  #: the end of the file is missing, and the pixels are still of use


@dataclass(slots=True)
class Image:
    """One image as enrichers see it.

    `pixels` is (h, w, 3) uint8 RGB, upright (EXIF orientation applied), sRGB, alpha laid over white. It may be
    smaller than the file says, never larger: `width` and `height` are those of the upright file.
    `results` holds the answers of the enrichers named in `requires`, by name. `shared` is where enrichers of one
    `shares` group leave for each other what they need not compute twice.
    """

    key: int
    pixels: Pixels
    width: int
    height: int
    facts: Facts
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)

    def fitted(self, max_side: int) -> Pixels:
        """The picture shrunk so that its longest side is at most `max_side` pixels; never enlarged."""
        return fitted(self.pixels, max_side)

    def full_box(self, x: float, y: float, width: float, height: float) -> Box:
        """A box given as shares (0 to 1) of the picture → [x, y, width, height] in pixels of the upright file,
        clipped to it."""
        left, top = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
        right, bottom = min(max(x + width, 0.0), 1.0), min(max(y + height, 0.0), 1.0)
        return (
            left * self.width,
            top * self.height,
            (right - left) * self.width,
            (bottom - top) * self.height,
        )


def fitted(pixels: Pixels, max_side: int) -> Pixels:
    """A picture (h, w) or (h, w, 3) shrunk so that its longest side is at most `max_side` pixels; never enlarged."""
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return pixels
    return resized(pixels, max(1, round(width * scale)), max(1, round(height * scale)))


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """A picture (h, w) or (h, w, 3) at another size. What is shrunk is averaged by whole factors first, and the rest, a
    factor below two, is bilinear: that misses no pixel, and takes a sixth of the time of averaging by a broken factor.
    Rows and columns at the far edge that make up less than one of the result may be left out."""
    down, across = max(1, pixels.shape[0] // height), max(1, pixels.shape[1] // width)
    rows, columns = pixels.shape[0] // down, pixels.shape[1] // across
    if down > 1 or across > 1:
        pixels = np.asarray(
            cv2.resize(pixels[: rows * down, : columns * across], (columns, rows), interpolation=cv2.INTER_AREA),
            dtype=np.uint8,
        )
    if (rows, columns) == (height, width):
        return pixels
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def planes(picture: Pixels, scale: float = 1.0, shift: float = 0.0, *, bgr: bool = False) -> NDArray[np.float32]:
    """(h, w, 3) uint8 → (3, h, w) float32, each value × `scale` + `shift`; the channels as they come, or with `bgr` the
    last one first. Splitting first takes half of the time of a transposed copy, and a tenth of OpenCV's blobs."""
    found = np.empty((3, *picture.shape[:2]), np.float32)
    for row, channel in enumerate(cv2.split(picture)):
        np.multiply(channel, np.float32(scale), out=found[2 - row if bgr else row])
    if shift:
        found += np.float32(shift)
    return found
