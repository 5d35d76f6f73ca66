"""Recognition learns people, rejects strangers, and is stored as plain numbers."""

import json

import numpy as np
import pytest

from daemon.recognition import NEVER, Recognizer, TooFewLabels, disjoint_split, judge, threshold_for, train
from tests.people import MODEL, vector

PEOPLE, SHOTS = 12, 10
NAMES = [f"person {who}" for who in range(PEOPLE)]


def shots(people: range, first: int = 0, count: int = SHOTS) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.stack([vector(who, shot) for who in people for shot in range(first, first + count)])
    return vectors, np.repeat(np.arange(len(people)), count)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    vectors, labels = shots(range(PEOPLE))
    return train(MODEL, "identity", NAMES, vectors, labels, np.arange(len(labels)))


def test_people_are_recognised_on_photos_that_were_held_back(recognizer: Recognizer) -> None:
    known, strangers = shots(range(PEOPLE), first=50), shots(range(100, 120), first=0)
    judged = judge(recognizer, shots(range(PEOPLE)), known)
    assert (judged.accuracy, judged.nearest_centroid) == (1.0, 1.0)
    assert judged.rejected < 0.2
    assert (recognizer.tell(strangers[0])[1] >= recognizer.threshold).mean() < 0.05


def test_a_stored_recognizer_says_the_same(recognizer: Recognizer) -> None:
    again = Recognizer.of(json.loads(json.dumps(recognizer.document())))
    vectors, _ = shots(range(PEOPLE), first=70)
    for before, after in zip(recognizer.tell(vectors), again.tell(vectors), strict=True):
        assert np.array_equal(before, after)


def test_one_label_cannot_be_told_from_others() -> None:
    with pytest.raises(TooFewLabels):
        train(MODEL, "identity", NAMES[:1], *shots(range(1)), np.arange(SHOTS))


@pytest.mark.parametrize("people", [2, 3, 5])  # nobody can be spared as a stranger; one; one in some folds
def test_few_people_are_learned_and_strangers_rejected(people: int) -> None:
    vectors, labels = shots(range(people))
    few = train(MODEL, "identity", NAMES[:people], vectors, labels, np.arange(len(labels)))
    known, strangers = shots(range(people), first=50), shots(range(100, 120))[0]
    assert (few.tell(known[0])[0] == known[1]).all()
    assert (few.tell(strangers)[1] >= few.threshold).mean() < 0.05


def test_a_label_that_everybody_has_accepts_everybody() -> None:
    vectors, labels = shots(range(4))
    genders = train(MODEL, "gender", ["female", "male"], vectors, labels % 2, np.arange(len(labels)))
    known, who = shots(range(4), first=50)
    told, confidence = genders.tell(known)
    assert (told == who % 2).all()
    assert (confidence >= genders.threshold).mean() > 0.9


@pytest.mark.parametrize(
    ("photos", "tested"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 6),  # three of ten photos of each label
        ([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], 10),  # twins of two photos: five faces of each label move together
    ],
)
def test_no_photo_is_on_both_sides_of_the_split(photos: list[int], tested: int) -> None:
    labels = np.repeat([0, 1], 10)
    both = np.array(photos + [photo + 100 for photo in photos])
    test = disjoint_split(labels, both, seed=0)
    assert test.sum() == tested
    assert not set(both[test]) & set(both[~test])


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ([True, True, True, False], 0.7),  # all answers above 0.7 are right
        ([False, False, False, False], NEVER),  # nothing can be trusted
    ],
)
def test_the_threshold_gives_the_precision(right: list[bool], expected: float) -> None:
    assert threshold_for(np.array([0.9, 0.8, 0.7, 0.6]), np.array(right), 0.99) == expected
