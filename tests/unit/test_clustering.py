"""Clustering of faces: people come together, what cannot be one person never does."""

import numpy as np
import pytest

from daemon.calibration import Calibrations
from daemon.clustering import MIN_QUALITY, NEIGHBOURS, Constraints, Faces, cluster
from daemon.neighbours import neighbours
from tests.people import MODEL, vector

CALIBRATION = Calibrations.load().of(MODEL)


def faces(people: list[int], photos: list[int] | None = None, quality: dict[int, float] | None = None) -> Faces:
    """One shot after the other of these people, each on a photo of its own unless told otherwise."""
    vectors = np.stack([vector(who, shot) for shot, who in enumerate(people)])
    good = np.full(len(people), 0.9, dtype=np.float32)
    for row, value in (quality or {}).items():
        good[row] = value
    return Faces(vectors, good, np.array(photos or range(len(people)), dtype=np.int64))


def grouped(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        ([], set()),  # nothing at all
        ([1], {frozenset({0})}),  # one face
        ([1, 1], {frozenset({0, 1})}),
        ([1, 2], {frozenset({0}), frozenset({1})}),
        ([1, 2, 1, 2, 1, 3], {frozenset({0, 2, 4}), frozenset({1, 3}), frozenset({5})}),
        ([1] * 40, {frozenset(range(40))}),  # more faces of a person than neighbours are looked at
    ],
)
def test_people_come_together(people: list[int], expected: set[frozenset[int]]) -> None:
    some = faces(people) if people else Faces(np.zeros((0, 128), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
    assert grouped(cluster(some, CALIBRATION, Constraints())) == expected


def test_faces_of_one_photo_are_different_people() -> None:
    labels = cluster(faces([1, 1, 1], photos=[0, 0, 1]), CALIBRATION, Constraints())
    assert labels[0] != labels[1]


def test_a_person_can_say_that_two_faces_of_one_photo_are_the_same() -> None:
    labels = cluster(faces([1, 1, 1], photos=[0, 0, 1]), CALIBRATION, Constraints(must=((0, 1),)))
    assert len(set(labels)) == 1


def test_what_must_be_together_is() -> None:
    labels = cluster(faces([1, 1, 2, 2]), CALIBRATION, Constraints(must=((0, 2),)))
    assert labels[0] == labels[2]


def test_the_parts_of_a_person_come_together_though_no_face_has_a_neighbour_in_another_part() -> None:
    vectors = np.stack([vector(1, occasion, 0.12) for occasion in range(2) for _ in range(20)])
    vectors += 0.004 * np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = neighbours(vectors, NEIGHBOURS)
    assert (pairs.ones // 20 == pairs.others // 20).all()
    some = Faces(vectors, np.full(40, 0.9, np.float32), np.arange(40))
    assert grouped(cluster(some, CALIBRATION, Constraints())) == {frozenset(range(40))}


@pytest.mark.parametrize("others", [(1,), (1, 2, 3)])  # one other face, all other faces
def test_what_cannot_be_together_is_not(others: tuple[int, ...]) -> None:
    labels = cluster(faces([1, 1, 1, 1]), CALIBRATION, Constraints(cannot=(((0,), others),)))
    assert all(labels[0] != labels[row] for row in others)


def test_a_poor_face_joins_nobody_with_anybody() -> None:
    between = vector(1, 0) + vector(2, 0)
    vectors = np.stack([vector(1, 0), vector(2, 0), between / np.linalg.norm(between)])
    quality = np.array([0.9, 0.9, MIN_QUALITY / 2], dtype=np.float32)
    labels = cluster(Faces(vectors, quality, np.arange(3)), CALIBRATION, Constraints())
    assert labels[0] != labels[1]


def test_a_poor_face_is_added_to_its_person() -> None:
    labels = cluster(faces([1, 1, 1, 1, 2], quality={3: 0.1}), CALIBRATION, Constraints())
    assert labels[3] == labels[0] != labels[4]


def test_twins_of_a_photo_count_once() -> None:
    one = faces([1, 1, 2])
    again = Faces(
        np.concatenate((one.vectors, one.vectors[[1] * 5])),
        np.full(8, 0.9, np.float32),
        np.array([0, 1, 2, 1, 1, 1, 1, 1]),
    )
    labels = cluster(again, CALIBRATION, Constraints())
    assert grouped(labels) == {frozenset({0, 1, 3, 4, 5, 6, 7}), frozenset({2})}


def test_the_same_faces_give_the_same_clusters_in_any_order() -> None:
    people = [1, 2, 3, 1, 2, 3, 1, 2, 4, 5]
    some = faces(people)
    labels = cluster(some, CALIBRATION, Constraints())
    order = np.random.default_rng(0).permutation(len(people))
    moved = Faces(np.ascontiguousarray(some.vectors[order]), some.quality[order], some.photo[order])
    again = np.empty(len(people), dtype=np.int64)
    again[order] = cluster(moved, CALIBRATION, Constraints())
    assert grouped(again) == grouped(labels)


def test_evidence_falls_with_distance_and_the_bar_rises_with_people() -> None:
    distances = np.linspace(0.01, 0.3, 50, dtype=np.float32)
    ones = np.ones(50, dtype=np.float32)
    assert (np.diff(CALIBRATION.evidence(distances, distances, ones, ones)) < 0).all()
    assert (np.diff(CALIBRATION.log_ratio(distances)) <= 0).all()
    assert CALIBRATION.bar(10_000) > CALIBRATION.bar(100)
