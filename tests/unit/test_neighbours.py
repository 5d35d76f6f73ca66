"""Nearest neighbours through cells, held against comparing all with all."""

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.neighbours import EXACT_UP_TO, knn, nearest, neighbours

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def vectors() -> Floats:
    """More vectors than are compared exactly, in groups of eight."""
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((EXACT_UP_TO // 8 + 100, 1, 128))
    rows = (middles + 0.5 * rng.standard_normal((len(middles), 8, 128))).reshape(-1, 128)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def test_cells_find_nearly_all_that_comparing_all_finds(vectors: Floats) -> None:
    asked = np.random.default_rng(1).choice(len(vectors), 500, replace=False)
    exact = knn(vectors[asked], vectors, 8)[1]
    found = nearest(vectors[asked], vectors, 8)
    assert np.mean([len(set(a) & set(b)) / 8 for a, b in zip(exact, found, strict=True)]) > 0.9
    assert (found[:, 0] == asked).all()


def test_pairs_are_named_once_and_places_are_an_order(vectors: Floats) -> None:
    pairs = neighbours(vectors, 7)
    assert (pairs.ones < pairs.others).all()
    assert len(set(zip(pairs.ones.tolist(), pairs.others.tolist(), strict=True))) == len(pairs.ones)
    assert (np.sort(pairs.place) == np.arange(len(vectors))).all()
    together = pairs.ones // 8 == pairs.others // 8
    assert together.sum() > 0.9 * len(vectors) / 8 * 28  # of the 28 pairs of each group


@pytest.mark.parametrize("count", [0, 1, 2])  # nothing, nobody beside, one pair
def test_few_vectors(vectors: Floats, count: int) -> None:
    pairs = neighbours(vectors[:count], 7)
    assert len(pairs.ones) == max(0, count - 1)
    assert len(pairs.place) == count
    assert nearest(vectors[:count], vectors[:count], 7).shape == (count, count)
