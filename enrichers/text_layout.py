"""Puts lines of text in the order in which people read them, and tells paragraphs apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enrichers.text_detection import Quads

#: median length of the lines of a column in line heights: shorter ones are cells of a table, which is read by rows
COLUMN_LENGTH = 6.0
#: lines that a column has at least
COLUMN_LINES = 3
#: width of the gap between two columns in line heights
COLUMN_GAP = 0.7
#: share of the lines that may lie across two columns, as titles do
MOST_ACROSS = 0.3
#: share of the lower line's height that two lines of one row have in common
ROW_OVERLAP = 0.5
#: blank height between two rows of one paragraph, in line heights, at most
PARAGRAPH_GAP = 0.8
#: how much taller the larger of two rows of one paragraph may be
PARAGRAPH_SIZE = 1.5


@dataclass(frozen=True, slots=True)
class TextLine:
    """What a line says, the probability of that (0 to 1), and its corners (4, 2) float32 in pixels of the picture:
    clockwise from the one where the text begins at its top."""

    text: str
    score: float
    quad: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TextPage:
    """The lines of one picture, in any order, and how far most of them are turned clockwise: 0, 90, 180 or 270."""

    lines: list[TextLine]
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line stands in the reading order: `line` is its index, `row` and `paragraph` count from 0."""

    line: int
    row: int
    paragraph: int


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Boxes that lie straight: left, top, right, bottom, each (n,)."""

    left: NDArray[np.float64]
    top: NDArray[np.float64]
    right: NDArray[np.float64]
    bottom: NDArray[np.float64]

    @property
    def heights(self) -> NDArray[np.float64]:
        return self.bottom - self.top

    def some(self, indices: Sequence[int] | NDArray[np.int64]) -> "_Boxes":
        chosen = np.asarray(indices, int)
        return _Boxes(self.left[chosen], self.top[chosen], self.right[chosen], self.bottom[chosen])


def reading_order(quads: Quads, rotation: int = 0) -> list[Place]:
    """Places of the lines `quads` (n, 4, 2), in reading order. `rotation` is how far the text is turned clockwise, in
    degrees: 0, 90, 180 or 270; the slant of the page, which is less than that, is found here."""
    if not len(quads):
        return []
    boxes = _straight(quads, rotation)
    places: list[Place] = []
    rows = paragraph = 0
    for block in _blocks(boxes, list(range(len(quads)))):
        above: list[int] | None = None
        for row in _rows(boxes, block):
            if above is not None and not _continues(boxes.some(above), boxes.some(row)):
                paragraph += 1
            places += [Place(index, rows, paragraph) for index in row]
            above, rows = row, rows + 1
        paragraph += 1
    return places


def _straight(quads: Quads, rotation: int) -> _Boxes:
    """The lines as upright boxes of a page that is turned back and not slanted."""
    points = quads.astype(np.float64)
    x, y = points[..., 0], points[..., 1]
    x, y = {0: (x, y), 90: (y, -x), 180: (-x, -y), 270: (-y, x)}[rotation]
    points = np.stack([x, y], axis=-1)
    edges = points - np.roll(points, 1, axis=1)
    lengths = np.hypot(edges[..., 0], edges[..., 1])
    longest = np.take_along_axis(edges, lengths.argmax(1)[:, None, None].repeat(2, axis=2), axis=1)[:, 0]
    angles = (np.degrees(np.arctan2(longest[:, 1], longest[:, 0])) + 90) % 180 - 90
    lying = np.abs(angles) < 45
    slant = _weighted_median(angles[lying], lengths.max(1)[lying]) if lying.any() else 0.0
    turn = np.radians(-slant)
    x = points[..., 0] * np.cos(turn) - points[..., 1] * np.sin(turn)
    y = points[..., 0] * np.sin(turn) + points[..., 1] * np.cos(turn)
    return _Boxes(x.min(1), y.min(1), x.max(1), y.max(1))


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])


def _blocks(boxes: _Boxes, indices: list[int]) -> list[list[int]]:
    """Columns of running text, and what lies across them, in reading order; a table is one block."""
    side = _column_side(boxes.some(indices))
    if side is None:
        return [indices]
    middles = (boxes.top + boxes.bottom) / 2
    across = sorted((index for index, where in zip(indices, side, strict=True) if where == 0), key=lambda i: middles[i])
    blocks: list[list[int]] = []
    for number in range(len(across) + 1):  # what stands between two lines that lie across the columns
        above = middles[across[number - 1]] if number else -np.inf
        below = middles[across[number]] if number < len(across) else np.inf
        between = [(i, where) for i, where in zip(indices, side, strict=True) if where and above < middles[i] <= below]
        columns = [[i for i, where in between if where == sign] for sign in (-1, 1)]
        if all(len(column) >= COLUMN_LINES for column in columns):
            blocks += [block for column in columns for block in _blocks(boxes, column)]
        elif between:
            blocks.append([i for i, _ in between])
        if number < len(across):
            if number and not between:
                blocks[-1].append(across[number])
            else:
                blocks.append([across[number]])
    return blocks


def _column_side(boxes: _Boxes) -> NDArray[np.int64] | None:
    """On which side of the gap between two columns each line lies: −1, 1, or 0 where it lies across. The gap is the one
    that the fewest lines cross; None where there is none with a column of running text on either side."""
    count = len(boxes.left)
    if count < 2 * COLUMN_LINES:
        return None
    gap = float(np.median(boxes.heights)) * COLUMN_GAP
    starts = boxes.right[:, None]  # a gap begins where some line ends
    sides = np.where(boxes.right[None] <= starts, -1, np.where(boxes.left[None] >= starts + gap, 1, 0))
    crossing = (sides == 0).sum(1)
    for candidate in np.argsort(crossing, kind="stable"):
        if crossing[candidate] > MOST_ACROSS * count:
            return None
        side = sides[candidate]
        if all(_is_column(boxes.some(np.flatnonzero(side == sign))) for sign in (-1, 1)):
            return np.asarray(side, np.int64)
    return None


def _is_column(boxes: _Boxes) -> bool:
    if len(boxes.left) < COLUMN_LINES:
        return False
    return bool(np.median((boxes.right - boxes.left) / np.maximum(boxes.heights, 1)) >= COLUMN_LENGTH)


def _rows(boxes: _Boxes, indices: list[int]) -> list[list[int]]:
    """Lines side by side as rows, top to bottom, each from left to right."""
    rows: list[list[int]] = []
    for index in sorted(indices, key=lambda i: boxes.top[i] + boxes.bottom[i]):
        if rows and _beside(boxes, rows[-1], index):
            rows[-1].append(index)
        else:
            rows.append([index])
    return [sorted(row, key=lambda i: boxes.left[i]) for row in rows]


def _beside(boxes: _Boxes, row: list[int], index: int) -> bool:
    """Whether a line lies in a row: beside its nearest member, and over or under none of it."""
    nearest = min(row, key=lambda i: abs((boxes.left[i] + boxes.right[i]) - (boxes.left[index] + boxes.right[index])))
    common = min(boxes.bottom[nearest], boxes.bottom[index]) - max(boxes.top[nearest], boxes.top[index])
    shared = min(boxes.right[nearest], boxes.right[index]) - max(boxes.left[nearest], boxes.left[index])
    height = min(boxes.heights[nearest], boxes.heights[index])
    return bool(common > ROW_OVERLAP * height and shared < height)


def _continues(above: _Boxes, below: _Boxes) -> bool:
    """Whether a row belongs to the paragraph of the one above it: near, of like size, one over the other."""
    heights = float(np.median(above.heights)), float(np.median(below.heights))
    gap = float(below.top.min() - above.bottom.max())
    shared = min(above.right.max(), below.right.max()) - max(above.left.min(), below.left.min())
    return gap <= PARAGRAPH_GAP * min(heights) and max(heights) <= PARAGRAPH_SIZE * min(heights) and shared > 0


def plain_text(places: Sequence[Place], texts: Sequence[str]) -> str:
    """Rows as lines of text, their parts separated by a space; a blank line between paragraphs."""
    parts: list[str] = []
    last: Place | None = None
    for place in places:
        if last is not None:
            parts.append(" " if place.row == last.row else "\n" if place.paragraph == last.paragraph else "\n\n")
        parts.append(texts[place.line])
        last = place
    return "".join(parts)
