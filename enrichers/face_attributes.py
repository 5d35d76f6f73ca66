"""Age, gender and emotion of faces: each a small classifier on chips of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.alignment import chip
from enrichers.contract import Network
from enrichers.detection import Detections
from enrichers.embedding import CHIPS_A_CALL, Preparation
from enrichers.image import Pixels

#: years that the classes of the age model stand for (class 0: under one year)
YEARS = np.array([0.25, *range(1, 81)])

#: share of the age model's probability below and above `age_range`
AGE_TAIL = 0.1

GENDERS = ("female", "male")

#: the classes of FER-2013 in the order of the model of the package `fer`
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def age(probabilities: NDArray[np.floating]) -> dict[str, Any]:
    """(81,) → `age`: the expected age in years, and `age_range`: the youngest and oldest of the middle 80 %, `age`
    included."""
    cumulated = np.cumsum(probabilities) / probabilities.sum()
    low, high = np.searchsorted(cumulated, [AGE_TAIL, 1 - AGE_TAIL])
    expected = round(float(probabilities @ YEARS / probabilities.sum()))
    return {"age": expected, "age_range": [min(int(low), expected), max(int(min(high, len(YEARS) - 1)), expected)]}


def gender(probabilities: NDArray[np.floating]) -> dict[str, Any]:
    """(2,) → `gender` and how probable it is."""
    best = int(probabilities.argmax())
    return {"gender": GENDERS[best], "gender_score": round(float(probabilities[best]), 4)}


def emotion(probabilities: NDArray[np.floating]) -> dict[str, Any]:
    """(7,) → `emotion` and how probable it is."""
    best = int(probabilities.argmax())
    return {"emotion": EMOTIONS[best], "emotion_score": round(float(probabilities[best]), 4)}


#: the setting that names the model → what its probabilities are read as
READERS = {"age": age, "gender": gender, "emotion": emotion}


class Attribute:
    """One attribute's classifier on its network."""

    def __init__(self, kind: str, network: Network, preparation: Preparation) -> None:
        """`kind` is one of READERS."""
        self._read = READERS[kind]
        self._network = network
        self._preparation = preparation

    def describe(self, pictures: Sequence[Pixels], found: Sequence[Detections]) -> list[list[Mapping[str, Any]]]:
        """The attribute of each face of each picture."""
        chips = [
            chip(picture, self._preparation.matrix(box, landmarks), self._preparation.size)
            for picture, faces in zip(pictures, found, strict=True)
            for box, landmarks in zip(faces.boxes, faces.landmarks, strict=True)
        ]
        rows: list[Mapping[str, Any]] = []
        for start in range(0, len(chips), CHIPS_A_CALL):
            inputs = {"chips": self._preparation.tensor(chips[start : start + CHIPS_A_CALL])}
            rows += [self._read(row) for row in self._network.run(inputs)["probabilities"]]
        remaining = iter(rows)
        return [[next(remaining) for _ in range(len(faces))] for faces in found]
