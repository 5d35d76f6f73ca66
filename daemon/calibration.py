"""What a distance means: per embedding model, distance of two faces → evidence that they are one person."""

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


@cache
def shipped() -> dict[str, Any]:
    """The tables that come with enrichd."""
    return tomllib.loads(SHIPPED.read_text())


@dataclass(frozen=True)
class Calibration:
    """A monotone map from cosine distance to log-likelihood ratio, as knots of a piecewise linear function."""

    model: str
    distances: tuple[float, ...]  #: increasing
    ratios: tuple[float, ...]  #: decreasing; natural logarithms

    @classmethod
    def of(cls, model: str) -> "Calibration":
        """The shipped calibration of an embedding model; that of the default model where it has none."""
        table = shipped().get(model) or shipped()[FALLBACK]
        distances, ratios = zip(*table["knots"], strict=True)
        return cls(model, tuple(distances), tuple(ratios))

    def log_ratio(self, distance: Floats) -> Floats:
        """Cosine distances, any shape → log-likelihood ratios (one person : two people) of the same shape."""
        return np.interp(distance, self.distances, self.ratios).astype(np.float32)

    def distance_at(self, ratio: float) -> float:
        """The distance at which the evidence is `ratio`."""
        return float(np.interp(-ratio, [-value for value in self.ratios], self.distances))
