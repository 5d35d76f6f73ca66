"""Finds lines of text in pictures with a differentiable-binarization network (PP-OCR's detector)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.contract import Network
from enrichers.image import Pixels, planes, resized

Map = NDArray[np.float32]
Quads = NDArray[np.float32]

#: the network's strides: its input sides are multiples of this many pixels
MULTIPLE = 32

# Post-processing of M. Liao et al., Real-time scene text detection with differentiable binarization, 2020, with the
# constants of PaddleOCR's and RapidOCR's configurations for this network.
#: probability above which a pixel belongs to text
PIXEL = 0.3
#: mean probability in a box above which it is text
BOX = 0.5
#: how far a box is grown, as area / perimeter × this: the network learns shrunk text
UNCLIP = 1.6
#: contours that are looked at; a page has fewer
MAX_CONTOURS = 1000
#: shorter side in pixels of the map below which a contour is no text
MIN_SIDE = 3

#: shorter side in pixels of the first look, where the picture has as many
LOOK_SHORT = 160
#: longest side in pixels to which smaller pictures are enlarged for the first look
LOOK_LEAST = 160
#: probability in the first look above which there may be text: photos without text stay below it
TRACE = 0.02
#: height in pixels of a box in the first look from which on the text is read where it was found, and the mean
#: probability that it must have: a label with small print is found as one large box, and with less
LARGE, CLEAR = 24, 0.85
#: surroundings of a trace that are looked at closely, as a share of the look's longest side
MARGIN = 0.03
#: share of a picture from which on all of it is looked at closely
WHOLE = 0.6
#: lines in the first look from which on a picture is a page: all of it is looked at closely, as small print on it
#: leaves fainter traces than its large lines
PAGE = 8
#: areas of one picture that are looked at closely, and separate traces from which on all of it is
MAX_AREAS, MAX_TRACES = 4, 24
#: shorter side in pixels for the close look (RapidOCR's default), and how much a picture is enlarged for it at most
CLOSE_SHORT, MAX_ENLARGED = 736, 3.0
#: share of the smaller of two boxes that they have in common if they are the same text
SAME = 0.5
#: pixels of one call's input, over all its pictures
MAX_PIXELS = 1_000_000


@dataclass(frozen=True, slots=True)
class TextBoxes:
    """Lines of text in a picture: `quads` (n, 4, 2) float32 in pixels of the picture, corners clockwise from the top
    left one as the text is seen; `scores` (n,)."""

    quads: Quads
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


def input_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width of the network's input for a picture that is to be scaled by `scale`."""
    rows, columns = (max(MULTIPLE, round(int(side * scale) / MULTIPLE) * MULTIPLE) for side in (height, width))
    return rows, columns


class TextDetector:
    """Looks at every picture at a low size first, and closely only where that look saw something like text."""

    def __init__(self, network: Network) -> None:
        """`network`: input `x` (n, 3, h, w) float32, BGR, −1…1; its first output (n, 1, h, w) probabilities."""
        self._network = network

    def find(self, pictures: Sequence[Pixels], look_side: int) -> list[TextBoxes]:
        """The lines of text in each picture (h, w, 3, RGB).

        `look_side` is the longest side in pixels of the first look. Text that is large enough there is taken from it;
        the surroundings of all else that may be text are looked at again at `close_scale`.
        """
        sizes = [input_size(h, w, look_scale(h, w, look_side)) for h, w in map(_size, pictures)]
        found: list[list[TextBoxes]] = []
        areas: list[tuple[int, Area]] = []
        for index, (picture, look) in enumerate(zip(pictures, self.maps(pictures, sizes), strict=True)):
            large, rest = split(look, *_size(picture))
            found.append([large])
            areas += [(index, area) for area in rest]
        parts = [pictures[index][area.rows, area.columns] for index, area in areas]
        sizes = [
            input_size(*_size(part), close_scale(*_size(pictures[index])))
            for part, (index, _) in zip(parts, areas, strict=True)
        ]
        for part, (index, area), close in zip(parts, areas, self.maps(parts, sizes), strict=True):
            inside = boxes(close, *_size(part))
            origin = np.array([area.columns.start, area.rows.start], np.float32)
            found[index].append(TextBoxes(inside.quads + origin, inside.scores))
        return [merged(parts) for parts in found]

    def maps(self, pictures: Sequence[Pixels], sizes: Sequence[tuple[int, int]]) -> list[Map]:
        """Probability of text at each pixel of each picture scaled to its size (h, w); pictures of one size share a
        call."""
        maps: list[Map] = [np.zeros((0, 0), np.float32)] * len(pictures)
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, size in enumerate(sizes):
            by_size.setdefault(size, []).append(index)
        for (height, width), indices in by_size.items():
            share = max(1, MAX_PIXELS // (height * width))
            for start in range(0, len(indices), share):
                call = indices[start : start + share]
                batch = np.stack([_input(pictures[index], height, width) for index in call])
                [output] = self._network.run({"x": batch}).values()
                for index, probabilities in zip(call, output[:, 0], strict=True):
                    maps[index] = probabilities
        return maps


def _size(picture: Pixels) -> tuple[int, int]:
    return picture.shape[0], picture.shape[1]


def _input(picture: Pixels, height: int, width: int) -> NDArray[np.float32]:
    return planes(resized(picture, width, height), 2 / 255, -1, bgr=True)


def look_scale(height: int, width: int, look_side: int) -> float:
    """The scale of the first look: the longest side becomes `look_side`, the shorter one no less than `LOOK_SHORT`.
    Pictures are not enlarged for it, but for those that are smaller than `LOOK_LEAST`."""
    short, long = sorted((height, width))
    return max(min(1.0, max(look_side / long, LOOK_SHORT / short)), LOOK_LEAST / long)


def close_scale(height: int, width: int) -> float:
    """The scale at which text is read: RapidOCR's, which enlarges pictures until their shorter side is `CLOSE_SHORT`;
    no picture is enlarged more than `MAX_ENLARGED` times."""
    return min(MAX_ENLARGED, max(1.0, CLOSE_SHORT / min(height, width)))


@dataclass(frozen=True, slots=True)
class Area:
    """A part of a picture."""

    rows: slice
    columns: slice


def split(look: Map, height: int, width: int) -> tuple[TextBoxes, list[Area]]:
    """What the first look at a picture of `height` × `width` says: the boxes of text that is large enough in it, and
    the areas where there may be other text."""
    rough = boxes(look, height, width)
    scale = look.shape[0] / height
    large = np.array([min(np.linalg.norm(q[0] - q[1]), np.linalg.norm(q[0] - q[3])) for q in rough.quads]) * scale
    clear = (large >= LARGE) & (rough.scores >= CLEAR)
    settled = TextBoxes(rough.quads[clear], rough.scores[clear]) if len(rough) else rough
    rest = (look > TRACE).astype(np.uint8)
    factor = np.array([look.shape[1] / width, look.shape[0] / height])
    for quad in settled.quads:
        cv2.fillPoly(rest, [np.round(quad * factor).astype(np.int32)], (0,))
    if len(rough) >= PAGE:
        return TextBoxes(rough.quads[:0], rough.scores[:0]), [Area(slice(0, height), slice(0, width))]
    if not rest.any():
        return settled, []
    margin = max(4, round(MARGIN * max(look.shape)))
    grown = cv2.dilate(rest, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(grown)
    rectangles = [(int(x), int(y), int(x + w), int(y + h)) for x, y, w, h, _ in stats[1:]]
    scattered = len(rectangles) > MAX_TRACES
    rectangles = rectangles if scattered else _joined(rectangles)
    if scattered or sum((right - left) * (bottom - top) for left, top, right, bottom in rectangles) > WHOLE * look.size:
        return settled, [Area(slice(0, height), slice(0, width))]
    return settled, [
        Area(
            slice(int(top / factor[1]), min(height, int(np.ceil(bottom / factor[1])))),
            slice(int(left / factor[0]), min(width, int(np.ceil(right / factor[0])))),
        )
        for left, top, right, bottom in rectangles
    ]


Rectangle = tuple[int, int, int, int]


def _joined(rectangles: list[Rectangle]) -> list[Rectangle]:
    """Rectangles (left, top, right, bottom) that share pixels as one, until none do; then the two whose union wastes
    least as one, until there are no more than `MAX_AREAS`."""

    def union(one: Rectangle, other: Rectangle) -> Rectangle:
        return (min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3]))

    def area(one: Rectangle) -> int:
        return max(0, one[2] - one[0]) * max(0, one[3] - one[1])

    def waste(one: Rectangle, other: Rectangle) -> int:
        return area(union(one, other)) - area(one) - area(other)

    rest = list(rectangles)
    while len(rest) > 1:
        pairs = ((waste(rest[i], rest[j]), i, j) for i in range(len(rest)) for j in range(i))
        least, i, j = min(pairs)
        if least > 0 and len(rest) <= MAX_AREAS:
            break
        both = union(rest[i], rest[j])
        rest = [rectangle for index, rectangle in enumerate(rest) if index not in (i, j)] + [both]
    return rest


def merged(parts: Sequence[TextBoxes]) -> TextBoxes:
    """Boxes of several looks as one; of those that cover each other, the one of the earlier look stays."""
    quads = np.concatenate([part.quads for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    spans = np.concatenate([quads.min(1), quads.max(1)], axis=1) if len(quads) else np.zeros((0, 4), np.float32)
    kept = np.ones(len(quads), bool)
    for index in range(len(quads)):
        others = kept & (owner < owner[index])
        corner = np.maximum(spans[others, :2], spans[index, :2]), np.minimum(spans[others, 2:], spans[index, 2:])
        common = np.clip(corner[1] - corner[0], 0, None).prod(1)
        sizes = np.minimum(
            (spans[others, 2:] - spans[others, :2]).prod(1), (spans[index, 2:] - spans[index, :2]).prod()
        )
        kept[index] = not (common > SAME * sizes).any()
    return TextBoxes(quads[kept], scores[kept])


def boxes(probabilities: Map, height: int, width: int) -> TextBoxes:
    """The lines of text in a probability map (h, w), in pixels of the picture of `height` × `width` that it is of."""
    mask = cv2.dilate((probabilities > PIXEL).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    scale = np.array([width / probabilities.shape[1], height / probabilities.shape[0]], np.float32)
    limit = np.array([width - 1, height - 1], np.float32)
    quads, scores = [], []
    for contour in contours[:MAX_CONTOURS]:
        centre, (long, short), angle = cv2.minAreaRect(contour)
        if min(long, short) < MIN_SIDE:
            continue
        score = _mean_inside(probabilities, cv2.boxPoints((centre, (long, short), angle)))
        if score < BOX:
            continue
        grow = 2 * UNCLIP * long * short / (2 * (long + short))
        if min(long, short) + grow < MIN_SIDE + 2:
            continue
        quad = ordered(cv2.boxPoints((centre, (long + grow, short + grow), angle)))
        quad = np.clip(np.round(quad * scale), 0, limit)
        if min(np.linalg.norm(quad[0] - quad[1]), np.linalg.norm(quad[0] - quad[3])) > MIN_SIDE:
            quads.append(quad)
            scores.append(score)
    return TextBoxes(np.array(quads, np.float32).reshape(-1, 4, 2), np.array(scores, np.float32))


def ordered(quad: NDArray[Any]) -> Quads:
    """Four corners clockwise from the top left one: the two leftmost first, as text is written along the long side."""
    by_x = quad[np.argsort(quad[:, 0], kind="stable")]
    left, right = by_x[:2], by_x[2:]
    top_left, bottom_left = left[np.argsort(left[:, 1], kind="stable")]
    top_right, bottom_right = right[np.argsort(right[:, 1], kind="stable")]
    return np.array([top_left, top_right, bottom_right, bottom_left], np.float32)


def _mean_inside(probabilities: Map, quad: NDArray[Any]) -> float:
    height, width = probabilities.shape
    left, top = np.clip(np.floor(quad.min(0)).astype(int), 0, [width - 1, height - 1])
    right, bottom = np.clip(np.ceil(quad.max(0)).astype(int), 0, [width - 1, height - 1])
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(mask, [(quad - [left, top]).astype(np.int32)], (1,))
    return float(cv2.mean(probabilities[top : bottom + 1, left : right + 1], mask)[0])


def cut(picture: Pixels, quad: Quads) -> Pixels:
    """A line of text cut out of a picture and laid straight."""
    width, height = (max(1, int(side)) for side in sides(quad))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(np.asarray(quad, np.float32), target)
    line = cv2.warpPerspective(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC)
    return np.asarray(line, np.uint8)


def sides(quad: Quads) -> tuple[float, float]:
    """Width and height of a line: the longer of its two upper and lower edges, and of its two others."""
    edges = np.linalg.norm(quad - np.roll(quad, -1, axis=0), axis=1)  # top, right, bottom, left
    return float(max(edges[0], edges[2])), float(max(edges[1], edges[3]))
