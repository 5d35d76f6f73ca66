"""Finding an embedding model's calibration from faces of people who are known."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from daemon.calibration import Calibration, features
from daemon.clustering import NEIGHBOURS, Clusters, Constraints, Faces, Merge, marks_of
from daemon.neighbours import neighbours
from enrichers.errors import EnrichdError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: distances at which the evidence of a pair of faces is noted; of one model strangers are 0.15 apart, of another 1.0
KNOTS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
#: rounds, each on clusters that the weights of the round before make, and random collections a round
ROUNDS, COLLECTIONS = 3, 12
#: the first round merges whatever is nearest, up to the average distance at which the evidence of a pair is this: far
#: enough for wrong merges to be seen
FIRST_UP_TO = -3.63
#: as long as no merge is wrong, the first round is repeated up to a distance so many times as large, at most to the
#: farthest that there is
WIDER, FARTHEST = 1.5, 3.0
#: a later round merges beyond its own bar by so much, so that wrong merges are seen too
BEYOND = 4.0
#: share of the commonest person from which a cluster counts as that person's
PURE = 0.8


class TooFewPeople(EnrichdError):
    """Calibration takes at least four people with two or more photos each."""


@dataclass(frozen=True)
class Nearest:
    """Average linkage up to a distance: what the first round merges by."""

    up_to: float
    slack: float = 1.0

    def evidence(self, average: Floats, centroid: Floats, ones: Floats, others: Floats) -> Floats:
        """How much nearer than the limit."""
        return np.float32(self.up_to) - average

    def bar(self, clusters: int) -> float:
        """Nothing beyond the limit."""
        return 0.0


def distance_at(knots: Sequence[tuple[float, float]], ratio: float) -> float:
    """The distance at which the evidence of a pair of faces is `ratio`."""
    distances, ratios = zip(*knots, strict=True)
    return float(np.interp(-ratio, [-value for value in ratios], distances))


def half_of(person: str) -> int:
    """Which half of the people somebody belongs to, by name: 0 to calibrate on, 1 to report on."""
    return hashlib.sha256(person.encode()).digest()[0] % 2


def fit(model: str, vectors: Floats, people: Ints, seed: int = 0) -> Calibration:
    """(n, d) unit vectors and (n,) people → the calibration of their model. Raises TooFewPeople.

    The weights are those of a logistic regression on the merges that are come upon while random parts of the
    faces are clustered: whether both clusters are the same person's. Random pairs would be another question: the
    clusters that come together are each other's nearest, and a person's are parts that differ.
    """
    if int((np.bincount(people) > 1).sum()) < 4:
        raise TooFewPeople
    rng = np.random.default_rng(seed)
    knots = pair_knots(vectors, people)
    seen: list[tuple[Merge, bool, int]] = []
    up_to = distance_at(knots, FIRST_UP_TO)
    while all(right for _, right, _ in seen) and up_to < FARTHEST:
        seen = come_upon(vectors, people, rng, Nearest(up_to))
        up_to *= WIDER
    found = weighed(model, knots, seen)
    for _ in range(ROUNDS - 1):
        guide = replace(found, weights=(found.weights[0] + BEYOND, *found.weights[1:]))
        seen += come_upon(vectors, people, rng, guide)
        found = weighed(model, knots, seen)
    return found


def weighed(model: str, knots: tuple[tuple[float, float], ...], seen: Sequence[tuple[Merge, bool, int]]) -> Calibration:
    """The calibration that these merges give. Raises TooFewPeople."""
    weights, clusters = regress(seen)
    return Calibration(model, knots, weights, clusters, spread(seen))


def come_upon(
    vectors: Floats, people: Ints, rng: np.random.Generator, guide: Calibration | Nearest
) -> list[tuple[Merge, bool, int]]:
    """The merges of some random collections."""
    return [merge for _ in range(COLLECTIONS) for merge in merges(*part(vectors, people, rng), guide)]


def part(vectors: Floats, people: Ints, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """A random collection: most of the people, with some of the faces of each."""
    kept = rng.random(len(vectors)) < rng.uniform(0.4, 1.0)
    kept &= (rng.random(int(people.max()) + 1) < 0.85)[people]
    return np.ascontiguousarray(vectors[kept]), people[kept]


def merges(vectors: Floats, people: Ints, guide: Calibration | Nearest) -> list[tuple[Merge, bool, int]]:
    """The merges of clustering these faces: what was measured, whether it was right, and how many clusters were left.
    Those of clusters that are mixed already teach nothing and are left out."""
    count = len(vectors)
    if count < 2:
        return []
    faces = Faces(vectors, np.ones(count, np.float32), np.arange(count))
    clusters = Clusters.of(vectors, np.arange(count), [], marks_of(faces, [], Constraints()))
    record: list[Merge] = []
    near = neighbours(vectors, NEIGHBOURS)
    clusters.agglomerate(near.ones, near.others, guide, record)
    found = []
    for number, merge in enumerate(record):
        ones, others = np.bincount(people[list(merge.ones)]), np.bincount(people[list(merge.others)])
        if ones.max() >= PURE * ones.sum() and others.max() >= PURE * others.sum():
            found.append((merge, bool(ones.argmax() == others.argmax()), count - number))
    return found


def regress(seen: Sequence[tuple[Merge, bool, int]]) -> tuple[tuple[float, ...], float]:
    """Merges → weights of `features` behind a constant, and the number of clusters that they hold for. Raises
    TooFewPeople where no merge was wrong, or none right."""
    from sklearn.linear_model import LogisticRegression

    sizes = np.array([(len(merge.ones), len(merge.others)) for merge, _, _ in seen], dtype=np.float32)
    average = np.array([merge.average for merge, _, _ in seen], dtype=np.float32)
    centroid = np.array([merge.centroid for merge, _, _ in seen], dtype=np.float32)
    right = np.array([right for _, right, _ in seen])
    if not 0 < right.sum() < len(right):
        raise TooFewPeople("These people are too few to calibrate on: no two of them were ever taken for one another.")
    left = np.array([clusters for _, _, clusters in seen], dtype=np.float64)
    weight = np.sqrt(sizes.min(axis=1))
    measured = features(average, centroid, sizes[:, 0], sizes[:, 1])
    model = LogisticRegression(max_iter=5000).fit(measured, right, sample_weight=weight)
    likely = model.predict_proba(measured)[:, 1]
    doubt = weight * (likely * (1 - likely) + 1e-6)  # where the answer is open, the number of clusters matters
    clusters = float(np.exp(np.average(np.log(left), weights=doubt)))
    return (float(model.intercept_[0]), *(float(value) for value in model.coef_[0])), clusters


def spread(seen: Sequence[tuple[Merge, bool, int]]) -> tuple[float, float, float]:
    """How far apart the centroids of one person's parts lie, from the right merges: constant, slope and deviation.
    Small clusters, of which there are most, do not outweigh the large."""
    apart = np.log([merge.centroid for merge, right, _ in seen if right])
    sizes = np.log([1 / len(merge.ones) + 1 / len(merge.others) for merge, right, _ in seen if right])
    counts, bounds = np.histogram(sizes, 8)
    weight = 1.0 / counts[np.clip(np.digitize(sizes, bounds) - 1, 0, 7)]
    columns = np.stack([np.ones(len(sizes)), sizes], axis=1) * np.sqrt(weight)[:, None]
    constant, slope = np.linalg.lstsq(columns, apart * np.sqrt(weight), rcond=None)[0]
    variance = np.average((apart - constant - slope * sizes) ** 2, weights=weight)
    return float(constant), float(slope), float(np.sqrt(variance))


def pair_knots(vectors: Floats, people: Ints) -> tuple[tuple[float, float], ...]:
    """Evidence of pairs of faces: a logistic regression on the logarithm of their distance, same and different people
    weighing alike."""
    from sklearn.linear_model import LogisticRegression

    ones, others = np.triu_indices(len(vectors), 1)
    distances = np.maximum(1.0 - np.einsum("ij,ij->i", vectors[ones], vectors[others]), 1e-4)
    same = people[ones] == people[others]
    model = LogisticRegression(C=1e6, class_weight="balanced", max_iter=1000).fit(np.log(distances)[:, None], same)
    slope, constant = float(model.coef_[0, 0]), float(model.intercept_[0])
    return tuple((knot, round(constant + slope * float(np.log(knot)), 3)) for knot in KNOTS)
