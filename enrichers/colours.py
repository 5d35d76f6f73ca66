"""Names colours and finds the dominant ones of a picture."""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.image import Pixels

# The named colours of CSS (W3C, CSS Color Module Level 4, 6.1), grouped under the eleven basic colour terms (Berlin and
# Kay, 1969), turquoise and beige. A colour is called as the nearest of these in CIELAB is.
_CSS = {
    "red": "ff0000 8b0000 b22222 dc143c cd5c5c a52a2a 800000 ff6347 ff4500",
    "orange": "ffa500 ff8c00 ff7f50 e9967a ffa07a f4a460",
    "yellow": "ffff00 ffd700 f0e68c fffacd eee8aa fafad2 ffffe0 daa520 bdb76b",
    "green": "008000 006400 228b22 32cd32 00ff00 7cfc00 7fff00 adff2f 9acd32 6b8e23 556b2f 808000 2e8b57 3cb371 "
    "8fbc8f 90ee90 98fb98 00fa9a 00ff7f",
    "turquoise": "40e0d0 00ced1 48d1cc 20b2aa 008b8b 008080 00ffff afeeee e0ffff 7fffd4 66cdaa 5f9ea0",
    "blue": "0000ff 0000cd 00008b 000080 191970 4169e1 1e90ff 00bfff 6495ed 4682b4 87ceeb 87cefa add8e6 b0e0e6 b0c4de "
    "7b68ee 6a5acd 483d8b",
    "purple": "800080 8b008b 9400d3 9932cc 8a2be2 4b0082 663399 9370db ba55d3 dda0dd d8bfd8 e6e6fa",
    "pink": "ffc0cb ffb6c1 ff69b4 ff1493 c71585 db7093 ff00ff ee82ee da70d6 ffe4e1 f08080 fa8072",
    "brown": "8b4513 a0522d d2691e cd853f b8860b bc8f8f",
    "beige": "f5f5dc faebd7 ffebcd ffe4c4 deb887 d2b48c f5deb3 ffdead ffdab9 ffe4b5 ffefd5 faf0e6 fdf5e6 fff8dc",
    "white": "ffffff fffafa f8f8ff f5f5f5 fffff0 fffaf0 f0ffff f5fffa f0f8ff f0fff0 fff5ee fff0f5",
    "grey": "808080 a9a9a9 c0c0c0 d3d3d3 dcdcdc 696969 708090 778899 2f4f4f",
    "black": "000000",
}
NAMES = tuple(_CSS)
#: levels a channel of the table that names colours
_LEVELS = 32
#: smallest share of a picture that makes a colour dominant, and how many are kept
MIN_SHARE, MOST = 0.03, 6


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint8]:
    """The index into `NAMES` of the middle of each of 32×32×32 cells of RGB."""
    named = [(index, value) for index, name in enumerate(NAMES) for value in _CSS[name].split()]
    owners = np.array([index for index, _ in named], np.uint8)
    anchors = _lab(np.array([[int(value[i : i + 2], 16) for i in (0, 2, 4)] for _, value in named], np.uint8))
    levels = (np.arange(_LEVELS) * 8 + 4).astype(np.uint8)
    cells = _lab(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3))
    distances = (cells**2).sum(1)[:, None] - 2 * cells @ anchors.T + (anchors**2).sum(1)
    return np.asarray(owners[distances.argmin(1)]).reshape(_LEVELS, _LEVELS, _LEVELS)


def _lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 3) sRGB → CIELAB, L in 0…100."""
    return np.asarray(cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0])


def name(red: int, green: int, blue: int) -> str:
    """What an sRGB colour is called."""
    return NAMES[int(_table()[red >> 3, green >> 3, blue >> 3])]


def dominant(pixels: Pixels) -> list[dict[str, Any]]:
    """The named colours that cover at least `MIN_SHARE` of a picture (h, w, 3, RGB), largest share first: name, hex of
    the pixels' mean, share in 0…1."""
    flat = pixels.reshape(-1, 3)
    cells = flat >> 3
    names = _table()[cells[:, 0], cells[:, 1], cells[:, 2]]
    counts = np.bincount(names, minlength=len(NAMES))
    sums = np.stack([np.bincount(names, flat[:, channel], minlength=len(NAMES)) for channel in range(3)], axis=1)
    found = []
    for index in np.argsort(-counts, kind="stable")[:MOST]:
        share = counts[index] / len(flat)
        if share >= MIN_SHARE:
            mean = (sums[index] / counts[index] + 0.5).astype(int)
            found.append(
                {"name": NAMES[index], "hex": "#{:02x}{:02x}{:02x}".format(*mean), "share": round(float(share), 4)}
            )
    return found
