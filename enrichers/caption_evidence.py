"""What a caption may say: the things found in a picture, and the nouns that they are evidence for."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from enrichers.caption_words import singular

_TABLE: Mapping[str, Any] = tomllib.loads(
    resources.files("enrichers").joinpath("caption_evidence.toml").read_text("utf-8")
)


def words(key: str) -> frozenset[str]:
    """A list of words of `caption_evidence.toml`."""
    return frozenset(_TABLE[key])


def _lists(key: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(listed) for name, listed in _TABLE[key].items()}


LABELS: tuple[str, ...] = tuple(_TABLE["labels"])
PEOPLE: tuple[str, ...] = tuple(_TABLE["people"])
PLACES: tuple[str, ...] = tuple(_TABLE["places"])
CLASSES, LABEL_CLASSES = _lists("classes"), _lists("label_classes")
#: every kind of thing that can be found
NAMES: tuple[str, ...] = (*LABELS, *PEOPLE, *CLASSES)
#: how many people make a crowd
CROWD = 6

ROLES = _lists("roles")
_SAID, _BROADER = _lists("said"), _lists("broader")
_MANY, _MORE = words("many"), words("more")


@dataclass(frozen=True, slots=True)
class Thing:
    """A kind of thing found in a picture."""

    name: str  #: one of NAMES, or any other noun
    count: int
    prominence: int  #: 0 small or aside, 1 middling, 2 large
    source: str  #: the enricher that found it
    score: float = 1.0


def said(name: str) -> tuple[str, ...]:
    """The nouns that name a thing, the plain one first."""
    return _SAID.get(name, (name,))


def nouns_for(things: Iterable[Thing]) -> dict[str, tuple[Thing, ...]]:
    """The nouns, in the singular, that the things found are evidence for, each with that evidence."""
    found = {thing.name: thing for thing in things}
    nouns: dict[str, tuple[Thing, ...]] = {}
    for thing in found.values():
        for noun in said(thing.name):
            nouns.setdefault(noun, (thing,))
    for noun, kinds in _BROADER.items():
        support = tuple(found[kind] for kind in kinds if kind in found)
        if support:
            nouns.setdefault(noun, support)
    people = found.get("person")
    if people:
        for role, owned in ROLES.items():
            support = tuple(found[name] for name in owned if name in found)
            if support:
                nouns[role] = (people, *support)
        if people.count >= CROWD:
            nouns["crowd"] = (people,)
    return nouns


#: numbers that a sentence may name
_NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_NO_PLURAL = frozenset({"skis", "scissors", "broccoli", "sheep"})
#: from so many of a kind on, they are a group
GROUP = 3


def quantity_fits(word: str, counts: Sequence[int]) -> bool:
    """Whether a word that says how many may be said of things found so often; any other word may."""
    most = max(counts, default=0)
    if word in _NUMBERS:
        return _NUMBERS[word] in counts
    if word in _MANY:
        return most >= GROUP
    return word not in _MORE or most >= 2


def noun_fits(surface: str, name: str, nouns: Mapping[str, tuple[Thing, ...]]) -> bool:
    """Whether a noun, `name` in the singular, may be said in the form `surface`: it has evidence, and as a plural
    enough of it."""
    support = nouns.get(name)
    if support is None:
        return False
    last = surface.rsplit(" ", 1)[-1]
    if surface == name or surface in _NO_PLURAL or singular(last) == last:
        return True
    return sum(thing.count for thing in support) >= 2
