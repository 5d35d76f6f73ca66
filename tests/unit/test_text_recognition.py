"""Decoding of a recognition network's output, and how lines share calls."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from enrichers.text_recognition import HEIGHT, MAX_PIXELS, MIN_WIDTH, TextRecognizer, _calls

ALPHABET = ["", "a", "b", "大", " "]  # the blank first, the space last


class Steps:
    """Says the same probabilities for each line of a call."""

    def __init__(self, steps: list[dict[str, float]]) -> None:
        self.steps = steps
        self.calls: list[tuple[int, ...]] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.calls.append(inputs["x"].shape)
        output = np.zeros((len(inputs["x"]), len(self.steps), len(ALPHABET)), np.float32)
        for index, step in enumerate(self.steps):
            for character, probability in step.items():
                output[:, index, ALPHABET.index(character)] = probability
        return {"y": output}


def read(*steps: dict[str, float]) -> tuple[str, float]:
    network = Steps(list(steps))
    [reading] = TextRecognizer(network, network, ALPHABET).read([np.zeros((20, 60, 3), np.uint8)])
    return reading.text, reading.score


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([{"a": 1}, {"a": 1}, {"b": 1}], "ab"),  # a repetition is one character
        ([{"a": 1}, {"": 1}, {"a": 1}], "aa"),  # unless a blank parts it
        ([{"a": 1}, {" ": 1}, {"b": 1}], "a b"),
        ([{"a": 1}, {"": 0.8, " ": 0.2}, {"b": 1}], "a b"),  # a narrow gap
        ([{"a": 1}, {"": 0.98, " ": 0.02}, {"b": 1}], "ab"),
        ([{"a": 1}, {"": 0.8, " ": 0.2}, {" ": 1}, {"b": 1}], "a b"),  # no second space
        ([{"大": 1}, {"": 0.8, " ": 0.2}, {"b": 1}], "大b"),  # Chinese parts no words
        ([{"": 1}, {"": 0.8, " ": 0.2}], ""),
    ],
)
def test_decoding(steps: list[dict[str, float]], text: str) -> None:
    assert read(*steps)[0] == text


def test_the_score_is_the_mean_of_the_characters() -> None:
    assert read({"a": 0.9}, {"": 1}, {"b": 0.5})[1] == pytest.approx(0.7)
    assert read({"": 1})[1] == 0


def test_lines_share_calls_by_width() -> None:
    widths = [10, 2000, 310, 500, 520, 320]
    calls = list(_calls(widths))
    assert sorted(index for _, indices in calls for index in indices) == list(range(len(widths)))
    for width, indices in calls:
        assert width >= max(MIN_WIDTH, *(widths[index] for index in indices))
    assert [indices for _, indices in calls] == [[0], [2, 5], [3, 4], [1]]


def test_a_call_has_limited_memory() -> None:
    assert all(width * HEIGHT * len(indices) <= MAX_PIXELS for width, indices in _calls([800] * 100))


def test_no_lines() -> None:
    network = Steps([{"a": 1}])
    assert TextRecognizer(network, network, ALPHABET).read([]) == []
    assert network.calls == []
