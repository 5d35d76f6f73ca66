"""Finds lines of text in pictures with a differentiable-binarization network (PP-OCR's detector)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.contract import Network
from enrichers.image import Pixels

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
    return tuple(max(MULTIPLE, round(int(side * scale) / MULTIPLE) * MULTIPLE) for side in (height, width))  # type: ignore[return-value]


class TextDetector:
    def __init__(self, network: Network) -> None:
        """`network`: input `x` (n, 3, h, w) float32, BGR, −1…1; its first output (n, 1, h, w) probabilities."""
        self._network = network

    def maps(self, pictures: Sequence[Pixels], size: tuple[int, int]) -> NDArray[np.float32]:
        """Probability of text at each pixel of the pictures scaled to `size` (h, w): (n, h, w)."""
        batch = np.empty((len(pictures), 3, *size), np.float32)
        for index, picture in enumerate(pictures):
            shrinks = size[0] < picture.shape[0]
            scaled = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            batch[index] = scaled[:, :, ::-1].transpose(2, 0, 1)
        batch *= 2 / 255
        batch -= 1
        [output] = self._network.run({"x": batch}).values()
        return np.asarray(output[:, 0], np.float32)


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
    """A line of text cut out of a picture and laid straight; one that stands upright is turned anticlockwise."""
    top_left, top_right, bottom_right, bottom_left = quad
    width = int(max(np.linalg.norm(top_left - top_right), np.linalg.norm(bottom_right - bottom_left)))
    height = int(max(np.linalg.norm(top_left - bottom_left), np.linalg.norm(top_right - bottom_right)))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(np.asarray(quad, np.float32), target)
    line = cv2.warpPerspective(
        picture, matrix, (max(width, 1), max(height, 1)), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC
    )
    return np.asarray(np.rot90(line) if height >= 1.5 * width else line, np.uint8)
