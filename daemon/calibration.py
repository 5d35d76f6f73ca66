"""What distances mean: per embedding model, measured distances → evidence that faces are one person."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SHIPPED = Path(__file__).with_name("calibration.toml")
#: the model whose values stand in for one that nobody calibrated
FALLBACK = "dlib"
#: distances are looked at as logarithms of their ratio to these, so that the weights have comparable sizes
TYPICAL_AVERAGE, TYPICAL_CENTROID = 0.066, 0.03
#: clusters larger than those that weights were found on count as this large
LARGEST = 16.0
#: deviations beyond the usual distance of one person's parts from which it counts against them, and how much
FAR, TOO_FAR = 1.5, 3.0


@cache
def shipped() -> dict[str, Any]:
    """The tables that come with enrichd."""
    return tomllib.loads(SHIPPED.read_text())


def features(average: Floats, centroid: Floats, ones: Floats, others: Floats) -> Floats:
    """What the evidence on a pair of clusters is weighed from, (n, 7): mean cosine distance between their faces, half
    the squared distance of their centroids, and their sizes."""
    small = np.log(np.minimum(np.minimum(ones, others), LARGEST))
    large = np.log(np.minimum(np.maximum(ones, others), LARGEST))
    far = np.log(np.maximum(average, 1e-4) / TYPICAL_AVERAGE)
    apart = np.log(np.maximum(centroid, 1e-4) / TYPICAL_CENTROID)
    noise = np.log(np.exp(-small) + np.exp(-large))
    return np.stack([far, small, large, far * small, far * large, apart, apart * noise], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Calibration:
    """The calibration of one embedding model.

    `knots`: cosine distance of two faces → natural logarithm of how many times more probable it is for one person than
    for two. `weights`: of `features`, the first a constant: logarithm of the odds that a pair of clusters, come upon
    while `people` clusters are left, is one person. `spread`: how far apart the centroids of one person's parts lie
    (half the squared distance): its logarithm is first + second * log(1 / size + 1 / size), give or take the third.
    """

    model: str
    knots: tuple[tuple[float, float], ...]
    weights: tuple[float, ...]
    people: float
    spread: tuple[float, float, float]
    slack: float = 8.0  #: pairs whose evidence is below the bar by more than this never come to pass it

    @classmethod
    def of(cls, model: str) -> "Calibration":
        """The shipped calibration of an embedding model; that of the default model where it has none."""
        table = shipped().get(model) or shipped()[FALLBACK]
        knots = tuple((float(distance), float(ratio)) for distance, ratio in table["knots"])
        constant, slope, deviation = map(float, table["spread"])
        weights = tuple(map(float, table["weights"]))
        return cls(model, knots, weights, float(table["people"]), (constant, slope, deviation))

    def log_ratio(self, distance: Floats) -> Floats:
        """Cosine distances, any shape → log-likelihood ratios (one person : two people) of the same shape."""
        distances, ratios = zip(*self.knots, strict=True)
        return np.asarray(np.interp(distance, distances, ratios), dtype=np.float32)

    def distance_at(self, ratio: float) -> float:
        """The distance at which the evidence is `ratio`."""
        distances, ratios = zip(*self.knots, strict=True)
        return float(np.interp(-ratio, [-value for value in ratios], distances))

    def evidence(self, average: Floats, centroid: Floats, ones: Floats, others: Floats) -> Floats:
        """Evidence that pairs of clusters are one person, (n,); compare with `bar`. Centroids farther apart than those
        of one person's parts are evidence against it, whatever the weights say: of large clusters of people who look
        alike there are too few to learn from."""
        weights = np.array(self.weights, dtype=np.float32)
        weighed = features(average, centroid, ones, others) @ weights[1:] + weights[0]
        constant, slope, deviation = self.spread
        usual = constant + slope * np.log(1.0 / np.minimum(ones, LARGEST) + 1.0 / np.minimum(others, LARGEST))
        beyond = (np.log(np.maximum(centroid, 1e-5)) - usual) / deviation - FAR
        return np.asarray(weighed - TOO_FAR * np.maximum(beyond, 0.0) ** 2, dtype=np.float32)

    def bar(self, clusters: int) -> float:
        """The evidence that is needed while `clusters` are left: the more there are, the nearer comes the nearest of
        them by chance, in proportion to their number."""
        return float(np.log(max(clusters, 1) / self.people))
