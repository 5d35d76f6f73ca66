"""What the classifiers' probabilities are read as, and which face gets which."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from enrichers.detection import Detections
from enrichers.embedding import CHIPS_A_CALL, Preparation
from enrichers.face_attributes import Attribute, age, emotion, gender


def one_hot(size: int, *places: int) -> NDArray[np.float32]:
    values = np.zeros(size, np.float32)
    values[list(places)] = 1 / len(places)
    return values


@pytest.mark.parametrize(
    ("places", "years", "years_range"),
    [
        ((30,), 30, [30, 30]),
        ((20, 40), 30, [20, 40]),
        ((0,), 0, [0, 0]),  # under one year
        ((80,), 80, [80, 80]),  # the last class
    ],
)
def test_age(places: tuple[int, ...], years: int, years_range: list[int]) -> None:
    assert age(one_hot(81, *places)) == {"age": years, "age_range": years_range}


def test_age_range_leaves_out_a_tenth_on_each_side() -> None:
    found = age(np.full(81, 1 / 81, np.float32))
    assert found["age"] == 40
    assert found["age_range"] == [8, 72]


def test_gender_and_emotion() -> None:
    assert gender(np.array([0.3, 0.7])) == {"gender": "male", "gender_score": 0.7}
    assert gender(np.array([0.6, 0.4])) == {"gender": "female", "gender_score": 0.6}
    assert emotion(one_hot(7, 3)) == {"emotion": "happy", "emotion_score": 1.0}
    assert emotion(one_hot(7, 6)) == {"emotion": "neutral", "emotion_score": 1.0}


class Brightness:
    """Calls bright chips male."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        assert len(inputs["chips"]) <= CHIPS_A_CALL
        male = inputs["chips"].mean(axis=(1, 2, 3)) / 255
        return {"probabilities": np.stack([1 - male, male], axis=1)}


def test_each_face_gets_its_own() -> None:
    def faces(n: int) -> Detections:
        return Detections(
            np.tile(np.array([10, 10, 30, 30], np.float32), (n, 1)),
            np.ones(n, np.float32),
            np.zeros((n, 5, 2), np.float32),
        )

    pictures = [np.full((60, 60, 3), value, np.uint8) for value in (250, 5, 250)]
    attribute = Attribute("gender", Brightness(), Preparation(size=32, align="box"))
    found = attribute.describe(pictures, [faces(2), faces(CHIPS_A_CALL), faces(0)])
    assert [len(rows) for rows in found] == [2, CHIPS_A_CALL, 0]
    assert {row["gender"] for row in found[0]} == {"male"}
    assert {row["gender"] for row in found[1]} == {"female"}


def test_grey_chips_have_one_channel() -> None:
    preparation = Preparation(size=4, colour="grey", layout="nhwc", mean=(127.5,), deviation=(127.5,))
    tensor = preparation.tensor([np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)])
    assert tensor.shape == (2, 4, 4, 1)
    assert (tensor[0] == 1).all()
    assert (tensor[1] == -1).all()
