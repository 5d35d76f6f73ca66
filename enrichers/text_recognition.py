"""Reads lines of text that were cut out of pictures, with PP-OCR's networks for direction and characters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.contract import Network
from enrichers.errors import ModelCorrupt
from enrichers.image import Pixels, planes

#: height in pixels of the networks' input
HEIGHT = 48
#: width in pixels that the direction network looks at
DIRECTION_WIDTH = 192
#: narrowest input in pixels: two letters. The network was trained with 320, and words that are padded to that are read
#: worse (98.6 % of IIIT5K's words without a fault, 98.8 % with 96) for half as much time again
MIN_WIDTH = 96
#: widest input in pixels; longer lines are squeezed into it
MAX_WIDTH = 3200
#: pixels of input that a call may have, over all its lines: bounds the memory of its 18,710 scores a step
MAX_PIXELS = 48 * 320 * 24
#: probability of a space between two characters from which on it is taken as one: printed gaps are often narrow, and
#: the network then prefers no character at all. Receipts (SROIE) had a word recall of 0.951 with 0.1 and have 0.954
#: with 0.05; of 500 single words (IIIT5K) either parts the same seven
SPACE = 0.05
#: how much wider the widest line of a call may be than the narrowest
MAX_SPREAD = 1.25


@dataclass(frozen=True, slots=True)
class Reading:
    """What a line says, and the mean probability of its characters."""

    text: str
    score: float


def characters(path: Path) -> list[str]:
    """The characters that a recognition graph tells apart, which it carries as metadata: the blank of the CTC
    alphabet, its characters in order, the space. Raises ModelCorrupt where there are none."""
    import onnx

    for item in onnx.load(str(path), load_external_data=False).metadata_props:
        if item.key == "character":
            return ["", *item.value.splitlines(), " "]
    raise ModelCorrupt(f"{path} carries no list of characters.")


class TextRecognizer:
    def __init__(self, recognition: Network, direction: Network, alphabet: Sequence[str]) -> None:
        """`recognition`: (n, 3, 48, w) → (n, steps, characters); `direction`: (n, 3, 48, 192) → (n, 2) probabilities
        of 0° and 180°. Both take float32 BGR, −1…1, padded with 0 on the right."""
        self._recognition, self._direction = recognition, direction
        self._alphabet = np.array(alphabet, dtype=object)

    def upside_down(self, lines: Sequence[Pixels]) -> NDArray[np.float32]:
        """The probability of each line to stand on its head."""
        if not lines:
            return np.zeros(0, np.float32)
        batch = np.stack([_input(line, DIRECTION_WIDTH) for line in lines])
        [output] = self._direction.run({"x": batch}).values()
        return np.asarray(output[:, 1], np.float32)

    def read(self, lines: Sequence[Pixels]) -> list[Reading]:
        """What the lines say; lines of similar width share a call, whichever picture they are from."""
        readings: list[Reading] = [Reading("", 0.0)] * len(lines)
        for width, indices in _calls([_width(line) for line in lines]):
            batch = np.stack([_input(lines[index], width) for index in indices])
            [output] = self._recognition.run({"x": batch}).values()
            for index, reading in zip(indices, self._decoded(output), strict=True):
                readings[index] = reading
        return readings

    def _decoded(self, output: NDArray[np.float32]) -> Iterator[Reading]:
        """CTC, greedily: the best character of each step, repetitions and blanks dropped (Graves et al. 2006); and a
        space where one was less likely than the blank, and still likely."""
        best = output.argmax(axis=2)
        scores = np.take_along_axis(output, best[:, :, None], axis=2)[:, :, 0]
        spaces = output[:, :, -1]
        kept = best != 0
        kept[:, 1:] &= best[:, 1:] != best[:, :-1]
        for steps, probability, space, chosen in zip(best, scores, spaces, kept, strict=True):
            places = np.flatnonzero(chosen).tolist()
            parts = [
                (" " if index and self._parted(steps, space, places[index - 1], place) else "")
                + self._alphabet[steps[place]]
                for index, place in enumerate(places)
            ]
            yield Reading("".join(parts), float(probability[chosen].mean()) if parts else 0.0)

    def _parted(self, steps: NDArray[np.int64], space: NDArray[np.float32], one: int, other: int) -> bool:
        """Whether a space was likely between the characters at two steps; in scripts that part words by spaces."""
        if space[one : other + 1].max() < SPACE:
            return False
        return all(character != " " and character < "\u2e80" for character in self._alphabet[steps[[one, other]]])


def _width(line: Pixels) -> int:
    height, width = line.shape[:2]
    return min(MAX_WIDTH, max(1, int(np.ceil(HEIGHT * width / height))))


def _calls(widths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Input width and lines of each call, so that little of it is padding and its memory is bounded."""
    call: list[int] = []
    narrowest = 0
    for index in np.argsort(widths, kind="stable"):
        width = max(MIN_WIDTH, widths[index])
        if call and (width > narrowest * MAX_SPREAD or width * HEIGHT * (len(call) + 1) > MAX_PIXELS):
            yield max(MIN_WIDTH, widths[call[-1]]), call
            call = []
        if not call:
            narrowest = width
        call.append(int(index))
    if call:
        yield max(MIN_WIDTH, widths[call[-1]]), call


def _input(line: Pixels, width: int) -> NDArray[np.float32]:
    """(3, 48, width) float32: the line scaled to the height, its end padded with zeros."""
    used = min(width, _width(line))
    scaled = cv2.resize(line, (used, HEIGHT))
    padded = np.zeros((3, HEIGHT, width), np.float32)
    padded[:, :, :used] = planes(np.asarray(scaled, np.uint8), 2 / 255, -1, bgr=True)
    return padded
