"""Counts what the daemon does, and tells it in the text format of Prometheus."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

#: upper bounds of the histograms: seconds of a stage, images in a batch
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    escaped = (value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for value in values)
    pairs = [f'{name}="{value}"' for name, value in zip(names, escaped, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""


class Counter:
    """A number that only grows, for each combination of label values."""

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help, labels
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *values: str, by: float = 1) -> None:
        self._values[values] = self._values.get(values, 0.0) + by

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} counter"
        for values, number in sorted(self._values.items()):
            yield f"{self.name}{_labels(self.labels, values)} {number:g}"


class Reading:
    """A number that a part of the daemon keeps by itself and is asked for when somebody looks."""

    def __init__(self, name: str, help: str, read: Callable[[], float], kind: str = "gauge") -> None:
        self.name, self.help, self._read, self._kind = name, help, read, kind

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self._kind}"
        yield f"{self.name} {self._read():g}"


class Histogram:
    """How often values fell below each bound, for each combination of label values."""

    def __init__(self, name: str, help: str, bounds: Sequence[float], *labels: str) -> None:
        self.name, self.help, self.labels, self._bounds = name, help, labels, tuple(bounds)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, value: float, *values: str) -> None:
        counts = self._counts.setdefault(values, [0] * (len(self._bounds) + 1))
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[values] = self._sums.get(values, 0.0) + value

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} histogram"
        for values, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*map("{:g}".format, self._bounds), "+Inf"), counts, strict=True):
                total += count
                yield f"{self.name}_bucket{_labels((*self.labels, 'le'), (*values, bound))} {total}"
            yield f"{self.name}_sum{_labels(self.labels, values)} {self._sums[values]:g}"
            yield f"{self.name}_count{_labels(self.labels, values)} {total}"


class Metrics:
    """All metrics of one daemon. What other parts keep by themselves is added as a reading."""

    def __init__(self) -> None:
        self.images = Counter("enrichd_images_total", "Images looked at, by what became of the result.", "written")
        self.outcomes = Counter(
            "enrichd_enricher_images_total", "Images an enricher worked on, by outcome.", "enricher", "outcome"
        )
        self.errors = Counter("enrichd_errors_total", "Failures by enricher and type of error.", "enricher", "type")
        self.batch = Histogram("enrichd_batch_images", "Images in a batch.", SIZES, "unit")
        self.stage = Histogram("enrichd_stage_seconds", "Seconds an image spent in a stage.", SECONDS, "stage")
        self._readings: list[Reading] = []

    def reading(self, name: str, help: str, read: Callable[[], float], kind: str = "gauge") -> None:
        self._readings.append(Reading(name, help, read, kind))

    def names(self) -> list[str]:
        return [metric.name for metric in self._all()]

    def text(self) -> str:
        return "\n".join(line for metric in self._all() for line in metric.lines()) + "\n"

    def _all(self) -> list[Counter | Histogram | Reading]:
        return [self.images, self.outcomes, self.errors, self.batch, self.stage, *self._readings]
