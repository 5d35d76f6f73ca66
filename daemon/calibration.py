"""What distances mean: per embedding model, measured distances → evidence that faces are one person."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, field_validator

from enrichers.errors import EnrichdError

Floats = NDArray[np.float32]

SHIPPED = Path(__file__).with_name("calibration.toml")
#: distances are looked at as logarithms of their ratio to these, so that the weights have comparable sizes
TYPICAL_AVERAGE, TYPICAL_CENTROID = 0.066, 0.03
#: clusters larger than those that weights were found on count as this large
LARGEST = 16.0
#: how fast the bar rises with the logarithm of the number of clusters. In proportion (1.0) keeps the number of wrong
#: pairs constant but leaves more and more right ones apart, since of many a pair that is each other's likeliest is
#: more often right; found on made-up collections of 2,000 to 100,000 faces (docs/identities.md)
CROWDING = 0.7
#: deviations beyond the usual distance of one person's parts from which it counts against them, and how much
FAR, TOO_FAR = 1.5, 3.0


class CalibrationInvalid(EnrichdError):
    """The file of calibrations cannot be used."""


class CalibrationMissing(EnrichdError):
    """Nobody found out what the distances of this embedding model mean."""


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

    def log_ratio(self, distance: Floats) -> Floats:
        """Cosine distances, any shape → log-likelihood ratios (one person : two people) of the same shape."""
        distances, ratios = zip(*self.knots, strict=True)
        return np.asarray(np.interp(distance, distances, ratios), dtype=np.float32)

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
        them by chance."""
        return CROWDING * float(np.log(max(clusters, 1) / self.people))


class Table(BaseModel):
    """A calibration as it stands in a file; `Calibration` says what the values mean."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    knots: Annotated[list[tuple[float, float]], Field(min_length=2)]
    weights: Annotated[list[float], Field(min_length=8, max_length=8)]
    people: PositiveFloat
    spread: tuple[float, float, PositiveFloat]

    @field_validator("knots")
    @classmethod
    def ordered(cls, knots: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """The farther apart, the less evidence."""
        if any(near >= far or more < less for (near, more), (far, less) in pairwise(knots)):
            raise ValueError("distances must rise, and their evidence fall")
        return knots


#: what to do about a model without a calibration
CALIBRATE = (
    "Run `enrichd calibrate PEOPLE -o FILE` on photos of known people and name the file in identities.calibration."
)


@dataclass(frozen=True)
class Calibrations:
    """The calibrations that are known, by embedding model."""

    by_model: Mapping[str, Calibration]

    @classmethod
    def load(cls, file: Path | None = None) -> "Calibrations":
        """The shipped ones, and those of a file of `enrichd calibrate`, which come first. Raises CalibrationInvalid."""
        return cls({**shipped(), **(read_tables(file) if file else {})})

    def get(self, model: str) -> Calibration | None:
        """The calibration of an embedding model; None where it has none."""
        return self.by_model.get(model)

    def of(self, model: str) -> Calibration:
        """The calibration of an embedding model. Raises CalibrationMissing: the distances of one model say nothing of
        another's."""
        found = self.by_model.get(model)
        if found is None:
            raise CalibrationMissing(f"The embedding model {model!r} has no calibration. {CALIBRATE}")
        return found


@cache
def shipped() -> Mapping[str, Calibration]:
    """Those that come with enrichd."""
    return read_tables(SHIPPED)


def read_tables(file: Path) -> dict[str, Calibration]:
    """The calibrations of a file, one table a model. Raises CalibrationInvalid."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CalibrationInvalid(f"{file} cannot be read: {reason}") from None
    found = {}
    for model, values in tables.items():
        try:
            table = Table.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (model, *first["loc"])))
            raise CalibrationInvalid(f"{file}: {where}: {first['msg']}; `enrichd calibrate -o` writes it.") from None
        found[model] = Calibration(model, tuple(table.knots), tuple(table.weights), table.people, table.spread)
    return found


def as_toml(calibration: Calibration) -> str:
    """A calibration as a table that `read_tables` takes."""
    name = calibration.model if re.fullmatch(r"[A-Za-z0-9_-]+", calibration.model) else json.dumps(calibration.model)
    knots = ", ".join(f"[{distance}, {ratio}]" for distance, ratio in calibration.knots)
    weights = ", ".join(f"{weight:.4f}" for weight in calibration.weights)
    spread = ", ".join(f"{value:.4f}" for value in calibration.spread)
    return (
        f"[{name}]\nknots = [{knots}]\nweights = [{weights}]\npeople = {calibration.people:.1f}\nspread = [{spread}]\n"
    )
