"""Says what was found in a picture by rules: how many of what, where they are to one another, and in what setting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from enrichers.caption_evidence import PEOPLE, Thing, words
from enrichers.caption_words import plural
from enrichers.image import Box

NUMBERS = {2: "two", 3: "three"}
#: from so many on, people and animals are a group or a herd
GROUP = 4
#: the share of a box that must lie in another for the two to touch
TOUCH = 0.15

_HERDS, _RIDDEN, _HELD, _CARRIERS = words("herds"), words("ridden"), words("held"), words("carriers")
_HUMANS = frozenset({"person", *PEOPLE})
_SAID = {"dining table": "table", "cell phone": "phone", "sports ball": "ball", "potted plant": "plant"}
_SAID |= {"hair drier": "hair dryer", "tv": "television", "skis": "skis", "scissors": "pair of scissors"}

#: settings that follow from what stands in them: the first whose things are there, with how many of them it takes
SETTINGS: Sequence[tuple[str, str, frozenset[str], int]] = (
    ("bathroom", "in a bathroom", frozenset({"toilet", "bathtub"}), 1),
    ("kitchen", "in a kitchen", frozenset({"oven", "refrigerator", "microwave", "stove", "sink", "toaster"}), 2),
    ("tennis court", "on a tennis court", frozenset({"tennis racket"}), 1),
    ("baseball field", "on a baseball field", frozenset({"baseball bat", "baseball glove"}), 1),
    ("snow", "in the snow", frozenset({"skis", "snowboard"}), 1),
    ("water", "in the water", frozenset({"surfboard"}), 1),
    ("bedroom", "in a bedroom", frozenset({"bed"}), 1),
    ("living room", "in a living room", frozenset({"couch", "tv", "remote"}), 2),
    (
        "street",
        "on a street",
        frozenset({"traffic light", "stop sign", "parking meter", "fire hydrant", "bus", "car"}),
        2,
    ),
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A kind of thing with the boxes of its specimens, as shares of the picture: x, y, width, height."""

    thing: Thing
    boxes: tuple[Box, ...]

    @property
    def name(self) -> str:
        return self.thing.name


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words in a row, and the things that they name: (word, things)."""

    words: str
    named: tuple[tuple[str, tuple[Thing, ...]], ...]


def overlap(one: Box, other: Box) -> float:
    """The share of the smaller box that lies in the other."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    smaller = min(one[2] * one[3], other[2] * other[3])
    return max(0.0, width) * max(0.0, height) / smaller if smaller > 0 else 0.0


def touch(one: Placed, other: Placed) -> bool:
    """Whether a specimen of the one touches one of the other."""
    return any(overlap(a, b) >= TOUCH for a in one.boxes for b in other.boxes)


def relation(one: Placed, other: Placed) -> str:
    """How the one stands to the other in the picture: a preposition, or a verb where they touch."""
    if not one.boxes or not other.boxes:
        return "with"
    a, b = max(one.boxes, key=_area), max(other.boxes, key=_area)
    if touch(one, other):
        if one.name in _HUMANS and other.name in _RIDDEN:
            return "on" if other.name == "skis" else "riding"
        if one.name in _HUMANS and other.name in _HELD:
            return "holding"
        if one.name in _HUMANS and other.name == "tie":
            return "wearing"
        if other.name in _CARRIERS and a[1] + a[3] / 2 < b[1] + b[3] / 2:
            return "on"
        return "with" if _area(b) < _area(a) / 4 else "in front of" if a[1] + a[3] > b[1] + b[3] else "next to"
    if a[1] + a[3] <= b[1] and abs(a[0] + a[2] / 2 - b[0] - b[2] / 2) < max(a[2], b[2]) / 2:
        return "above"
    return "next to"


def describe(placed: Sequence[Placed]) -> Phrase | None:
    """A sentence about the most prominent things, or None where there is none."""
    placed = _one_word_a_person(placed)
    ranked = sorted(placed, key=lambda p: -_weight(p))
    if not ranked:
        return None
    first, rest = ranked[0], ranked[1:]
    text = _quantity(first)
    named: list[tuple[str, tuple[Thing, ...]]] = [(_said(first.name), (first.thing,))]
    second = next((p for p in rest if p.thing.prominence > 0 or touch(first, p)), None)
    if second:
        text += f" {relation(first, second)} {_quantity(second)}"
        named.append((_said(second.name), (second.thing,)))
    names = {p.name: p.thing for p in placed}
    for setting, phrase, signs, enough in SETTINGS:
        there = tuple(names[name] for name in sorted(signs & names.keys()))
        if len(there) >= enough:
            text += f" {phrase}"
            named.append((setting, there))
            break
    return Phrase(text, tuple(named))


def _one_word_a_person(placed: Sequence[Placed]) -> list[Placed]:
    """Without the kinds of people that faces show, and with that kind instead of persons where it is everyone's."""
    kinds = [p for p in placed if p.name in PEOPLE]
    others = [p for p in placed if p.name not in PEOPLE]
    if len(kinds) != 1:
        return others
    kind = kinds[0].thing
    return [
        Placed(replace(p.thing, name=kind.name, source=kind.source), p.boxes)
        if p.name == "person" and kind.count >= p.thing.count
        else p
        for p in others
    ]


def _weight(p: Placed) -> float:
    kind = 1.5 if p.name in _HUMANS else 0.5 if p.name in _CARRIERS or p.name in ("book", "bottle", "cup") else 1.0
    return kind * (p.thing.prominence + 0.5) * p.thing.score + sum(_area(box) for box in p.boxes)


def _quantity(p: Placed) -> str:
    noun, count = _said(p.name), p.thing.count
    if count == 1:
        if noun in ("skis", "scissors"):
            return f"a pair of {noun}"
        return f"{article(noun)} {noun}"
    many = plural(noun)
    if count in NUMBERS:
        return f"{NUMBERS[count]} {many}"
    if p.name in _HUMANS:
        return f"a group of {many}"
    if p.name in _HERDS:
        return f"a herd of {many}"
    return f"several {many}"


def article(noun: str) -> str:
    """ "a" or "an", by the first letter."""
    return "an" if noun[0].lower() in "aeiou" else "a"


def _said(name: str) -> str:
    return _SAID.get(name, name)


def _area(box: Box) -> float:
    return box[2] * box[3]
