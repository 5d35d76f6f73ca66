"""Tells lines of text from textures that look like a letter or two: bricks, ribbons, railings, leaves."""

from collections.abc import Sequence

import numpy as np

from enrichers.text_layout import TextLine

#: certainty that a line needs, by how many different letters and digits it has: a texture that is read as text gives
#: few, or the same again and again. Beyond these, the setting `min_score` decides
NEEDED = (1.01, 0.95, 0.9, 0.8, 0.65)
#: lines in one picture, each certain and of several characters, from which on it is a page, where short ones are common
PAGE_LINES, PAGE_SCORE, PAGE_CHARACTERS = 3, 0.9, 3
#: share of the picture that a line covers from which on the picture is of that line
COVERS = 0.2


def believed(lines: Sequence[TextLine], height: int, width: int, min_score: float) -> list[TextLine]:
    """The lines of a picture of `height` × `width` pixels that are text: read with `min_score` and more and, where
    little else in the picture speaks for text, with as much certainty as so few characters need."""
    read = [line for line in lines if line.score >= min_score and line.text.strip()]
    sure = [line for line in read if line.score >= PAGE_SCORE and different(line.text) >= PAGE_CHARACTERS]
    if len(sure) >= PAGE_LINES:
        return read
    return [line for line in read if line.score >= _needed(line.text) or _area(line) >= COVERS * height * width]


def different(text: str) -> int:
    """How many different letters and digits a text has, upper and lower case alike."""
    return len({character for character in text.casefold() if character.isalnum()})


def _needed(text: str) -> float:
    count = different(text)
    return NEEDED[count] if count < len(NEEDED) else 0.0


def _area(line: TextLine) -> float:
    """Pixels that a line's quadrangle covers (the shoelace formula)."""
    x, y = line.quad[:, 0].astype(np.float64), line.quad[:, 1].astype(np.float64)
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
