"""Reads text with PP-OCR's networks: finds lines, tells which way up they are, reads them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.image import Pixels
from enrichers.text_detection import Quads, TextBoxes, TextDetector, cut, sides
from enrichers.text_layout import TextLine, TextPage
from enrichers.text_recognition import Reading, TextRecognizer

#: height by width from which on a line stands: 1.5 is RapidOCR's; on a page of standing lines, short words stand too
STANDS, STANDS_TOO = 1.5, 0.8
#: height by width up to which a box on a lying page may also be one tall letter
LETTER = 3.0
#: probability of being upside down up to which, and from which on, the direction network is sure
SURE = 0.1, 0.9
#: how sure all lines together must be that a page is upside down, each with (probability − 0.5) × width / height:
#: one word is not enough, since pictures of upright text are far more frequent and short words look alike both ways
UPSIDE_DOWN = 2.0
#: how much more certain the unexpected one of two readings of a line must be
LEAD = 0.1
#: height in pixels up to which a picture is no scene but a line that was cut out of one
LINE_HEIGHT = 64
#: certainty that such a picture needs where the detector finds no text in it
LINE_SCORE = 0.9


@dataclass(slots=True)
class _Line:
    """A line on its way: which picture it is of, its corners from the text's own top left, its pixels laid flat."""

    page: int
    quad: Quads
    pixels: Pixels
    reading: Reading = field(default_factory=lambda: Reading("", 0.0))

    def turned(self) -> "_Line":
        return _Line(self.page, np.roll(self.quad, -2, axis=0), self.pixels[::-1, ::-1])

    @property
    def worth(self) -> float:
        return self.reading.score if self.reading.text.strip() else 0.0


class PaddleEngine:
    """Pictures share calls: those of one size in detection, lines of like width in reading."""

    def __init__(self, detector: TextDetector, recognizer: TextRecognizer, look_side: int) -> None:
        self._detector, self._recognizer, self._look_side = detector, recognizer, look_side

    def read(self, pictures: Sequence[Pixels]) -> list[TextPage]:
        """The lines of each picture (h, w, 3, RGB uint8), in its pixels."""
        found = self._detector.find(pictures, self._look_side)
        blind = [len(boxes) == 0 for boxes in found]
        found = [
            _whole(picture) if is_line(picture, boxes) else boxes
            for picture, boxes in zip(pictures, found, strict=True)
        ]
        standing = [stands(boxes) for boxes in found]
        lines: list[_Line] = []
        others: dict[int, list[_Line]] = {}  # further ways to look at a line, by its index
        for page, boxes in enumerate(found):
            ratio = STANDS_TOO if standing[page] else STANDS
            for quad in boxes.quads:
                pixels = cut(pictures[page], quad)
                tall = pixels.shape[0] / pixels.shape[1]
                if STANDS <= tall <= LETTER and len(boxes) < 3:
                    others[len(lines)] = [_Line(page, quad, pixels)]
                lines.append(_laid_flat(page, quad, pixels) if tall >= ratio else _Line(page, quad, pixels))
        flipped = self._set_upright(lines, others, standing)
        pages = [
            TextPage([], (90 if standing[page] else 0) + (180 if flipped[page] else 0)) for page in range(len(found))
        ]
        for line in lines:
            if not blind[line.page] or line.reading.score >= LINE_SCORE:
                pages[line.page].lines.append(TextLine(line.reading.text, line.reading.score, line.quad))
        return pages

    def _set_upright(self, lines: list[_Line], others: dict[int, list[_Line]], standing: Sequence[bool]) -> list[bool]:
        """Reads the lines, in place, each the way up that its page has; where the direction network is unsure of a
        line, or sees it the other way up, it is read both ways. Of several readings the first stays, unless another is
        clearly more certain. Returns which pages are upside down."""
        down = self._recognizer.upside_down([line.pixels for line in lines])
        lengths = np.array([line.pixels.shape[1] / line.pixels.shape[0] for line in lines])
        owners = np.array([line.page for line in lines], int)
        votes = np.bincount(owners, lengths * (down - 0.5), minlength=len(standing))
        flipped = [bool(vote > (0 if stand else UPSIDE_DOWN)) for vote, stand in zip(votes, standing, strict=True)]
        for index, line in enumerate(lines):
            turned = line.turned()
            if flipped[line.page]:
                lines[index], turned = turned, line
            sure = down[index] >= SURE[1] if flipped[line.page] else down[index] <= SURE[0]
            if not sure:
                others.setdefault(index, []).append(turned)
        everything = [*lines, *(other for ways in others.values() for other in ways)]
        for line, reading in zip(everything, self._recognizer.read([one.pixels for one in everything]), strict=True):
            line.reading = reading
        for index, ways in others.items():
            best = max(ways, key=lambda way: way.worth)
            if best.worth > lines[index].worth + LEAD:
                lines[index] = best
        return flipped


def _laid_flat(page: int, quad: Quads, pixels: Pixels) -> _Line:
    """A standing line turned anticlockwise: its text then begins at what was the upper right corner."""
    return _Line(page, np.roll(quad, -1, axis=0), np.rot90(pixels))


def is_line(picture: Pixels, found: TextBoxes) -> bool:
    """Whether a picture is nothing but a line of text: low, and with no two lines one above the other in it."""
    height, width = picture.shape[:2]
    if height > LINE_HEIGHT or width < height * STANDS_TOO:
        return False
    tops, bottoms = found.quads[:, :, 1].min(1), found.quads[:, :, 1].max(1)
    return len(found) < 2 or bool(bottoms.min() > tops.max())


def _whole(picture: Pixels) -> TextBoxes:
    height, width = picture.shape[:2]
    quad: NDArray[Any] = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float32)
    return TextBoxes(quad, np.ones(1, np.float32))


def stands(boxes: TextBoxes) -> bool:
    """Whether most of the text of a picture runs upwards or downwards, by the length of its lines."""
    lengths = [sides(quad) for quad in boxes.quads]
    standing = sum(height for width, height in lengths if height >= STANDS * width)
    lying = sum(width for width, height in lengths if width >= STANDS * height)
    return standing > lying
