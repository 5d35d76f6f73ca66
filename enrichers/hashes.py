"""Perceptual hashes: 64 bits that near-duplicates share, all or nearly all. pHash is in `enrichers.properties`."""

import cv2
import numpy as np

from enrichers.image import Pixels, resized


def dhash(pixels: Pixels) -> str:
    """16 hex digits: whether each cell of an 8 × 8 grid is darker than its right neighbour (Krawetz, "Kind of Like
    That", 2013)."""
    grey = resized(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8), 9, 8)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes().hex()


def distance(one: str, other: str) -> int:
    """Bits, 0 to 64, in which two hashes differ. Up to about 10 is a near-duplicate."""
    return (int(one, 16) ^ int(other, 16)).bit_count()
