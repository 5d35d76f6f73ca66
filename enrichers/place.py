"""Whether a picture was taken indoors or outdoors, from what is in it and how it was exposed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from math import log2
from typing import Any

#: exposure value at ISO 100 between rooms and daylight, and how much one step of it says (log odds): rooms have 5 to 8,
#: overcast days 12, sun 15 (ISO 2720's table of exposure values)
BETWEEN, A_STEP = 9.5, 0.8

#: most that the exposure can say: a flash or a filter makes it wrong
MOST = 3.0

#: weights of several things are no independent evidence; their sum counts this much
TOGETHER = 0.6


@dataclass(frozen=True)
class PlaceWords:
    """How much each thing speaks for outdoors (above 0) or indoors (below)."""

    weights: Mapping[str, float]
    above: Mapping[str, tuple[str, ...]]  #: tags → hypernyms, nearest first

    @classmethod
    def load(cls) -> "PlaceWords":
        """`place.tsv`: thing and log odds, made by training/attributes/place.py."""
        rows = (line.split("\t") for line in _lines("place.tsv"))
        weights = {thing: float(weight) for thing, weight in rows}
        classes = (line.split("\t") for line in _lines("imagenet.tsv"))
        return cls(weights, {name: tuple(filter(None, above.split("|"))) for name, _, above in classes})

    def weight(self, thing: str) -> float:
        """A thing's own weight, else that of the nearest hypernym that has one, else 0."""
        return next((self.weights[word] for word in (thing, *self.above.get(thing, ())) if word in self.weights), 0.0)

    def outdoors(self, tags: Mapping[str, float], objects: Iterable[str]) -> float:
        """Log odds for outdoors. `tags`: label → score; `objects`: labels of what was found, each once."""
        tagged = sum(score * self.weight(label) for label, score in tags.items())
        return TOGETHER * (tagged + sum(map(self.weight, objects)))


def _lines(name: str) -> list[str]:
    return resources.files("enrichers").joinpath(name).read_text("utf-8").splitlines()


def exposure_value(camera: Mapping[str, Any] | None) -> float | None:
    """EV at ISO 100 of a camera's settings (log₂ N²/t, less what the sensitivity adds); None where the flash fired or a
    setting is not known. `camera` is as `enrichments.properties.camera`."""
    if not camera or camera["flash"]:
        return None
    time, stop, iso = (camera[key] for key in ("exposure_s", "f_number", "iso"))
    if not (time and stop and iso):
        return None
    return log2(stop**2 / time) - log2(iso / 100)


def exposed_outdoors(value: float) -> float:
    """Log odds for outdoors of an exposure value."""
    return max(-MOST, min(MOST, A_STEP * (value - BETWEEN)))
