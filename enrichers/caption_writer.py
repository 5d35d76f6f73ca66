"""Writes a sentence about the things found in a picture with the project's own small sequence model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.caption_evidence import NAMES, PLACES, Thing, noun_fits, nouns_for, quantity_fits, words
from enrichers.contract import Network

#: things that the model takes in, the most prominent ones
THINGS = 12
#: counts are told apart up to this many
COUNTS = 4
#: units that a sentence has at most, and at least
LONGEST, SHORTEST = 18, 4
#: numbers of the marks that begin and end a sentence
START, END = 0, 1

_SEXED, _CONTACT = words("sexed"), words("contact")
_STANDING = frozenset({"top", "atop"})
_OPEN, _DETERMINERS, _DETERMINED, _PARTS = (words(key) for key in ("open", "determiners", "determined", "parts"))

_NAME_INDEX = {name: at for at, name in enumerate(NAMES)}


@dataclass(frozen=True)
class Vocabulary:
    """What the model can write: units (words, and names of several words), and the noun that a unit stands for."""

    units: tuple[str, ...]
    nouns: tuple[str | None, ...]  #: in the singular; None for a unit that names nothing

    @classmethod
    def load(cls) -> "Vocabulary":
        """The vocabulary that ships with the package."""
        text = resources.files("enrichers").joinpath("caption_vocabulary.json").read_text("utf-8")
        table: Mapping[str, Any] = json.loads(text)
        return cls(tuple(table["units"]), tuple(table["nouns"]))


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of a picture beside the things in it."""

    touching: bool  #: whether any two of them touch
    standing: bool  #: whether any of them stands, sits or lies on another
    elsewhere: frozenset[str] = frozenset()  #: settings that the picture is not in


class Grounding:
    """Which units may be said of which things."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._of_noun: dict[str, list[tuple[int, str]]] = {}
        self._conditional: list[tuple[int, str]] = []
        self._always: list[int] = [END]
        for at, (unit, noun) in enumerate(zip(vocabulary.units, vocabulary.nouns, strict=True)):
            if noun is not None:
                self._of_noun.setdefault(noun, []).append((at, unit))
            elif unit in _SEXED | _CONTACT | _STANDING or not quantity_fits(unit, []):
                self._conditional.append((at, unit))
            elif at > END:
                self._always.append(at)
        units = vocabulary.units
        opens = np.array([unit in _OPEN for unit in units])
        determines = np.array([unit in _DETERMINERS for unit in units])
        named = np.array(
            [noun is not None or unit in _DETERMINED for unit, noun in zip(units, vocabulary.nouns, strict=True)]
        )
        parts = np.array([unit in _PARTS for unit in units])
        the = np.array(units) == "the"
        #: (units, units) bool: that the second never follows the first
        self.never = determines[:, None] & ~named[None, :] & ~(the[:, None] & parts[None, :])
        self.never |= ~the[:, None] & parts[None, :] & determines[:, None]
        self.never |= np.eye(len(units), dtype=bool)
        self.never[opens, END] = True
        self.never[END, END] = False
        self.same = {at: [other for other, _ in units] for units in self._of_noun.values() for at, _ in units}

    def allowed(self, things: Sequence[Thing], places: set[str], layout: Layout) -> list[int]:
        """The numbers of the units that may be said, where these things were found and these settings are likely."""
        nouns = nouns_for(things)
        nouns |= {place: tuple(things) for place in places if place not in nouns}
        counts = [thing.count for thing in things]
        barred: frozenset[str] = frozenset()
        if not any(kind in nouns for kind in ("man", "woman", "boy", "girl")):
            barred |= _SEXED
        if not layout.touching:
            barred |= _CONTACT
        if not layout.standing:
            barred |= _STANDING
        fits = [at for noun in nouns for at, unit in self._of_noun.get(noun, ()) if noun_fits(unit, noun, nouns)]
        fits += [at for at, unit in self._conditional if unit not in barred and quantity_fits(unit, counts)]
        return [*self._always, *fits]


def arrays(found: Sequence[Sequence[Thing]]) -> dict[str, NDArray[np.int64]]:
    """The things of n pictures as the model takes them: `names`, `counts` and `prominences`, each (n, THINGS)."""
    names = np.full((len(found), THINGS), len(NAMES), np.int64)
    counts = np.zeros_like(names)
    prominences = np.zeros_like(names)
    for row, things in enumerate(found):
        for at, thing in enumerate(things[:THINGS]):
            names[row, at] = _NAME_INDEX[thing.name]
            counts[row, at] = min(thing.count, COUNTS)
            prominences[row, at] = thing.prominence
    return {"names": names, "counts": counts, "prominences": prominences}


def is_known(thing: Thing) -> bool:
    """Whether the model knows this kind of thing."""
    return thing.name in _NAME_INDEX


@dataclass(frozen=True, slots=True)
class Written:
    """A sentence: its units, the noun of each, and how likely the settings are that it may name."""

    units: tuple[str, ...]
    nouns: tuple[str | None, ...]
    places: Mapping[str, float]
    score: float  #: mean log-probability a unit


class Writer:
    """Beam search over the model, restricted to what there is evidence for."""

    def __init__(self, network: Network, vocabulary: Vocabulary, beams: int, likely: float) -> None:
        self._network, self._vocabulary = network, vocabulary
        self._grounding = Grounding(vocabulary)
        self._beams, self._likely = beams, likely

    def write(self, found: Sequence[Sequence[Thing]], layouts: Sequence[Layout]) -> list[list[Written]]:
        """Sentences for each picture, the likeliest first; every picture has at least one thing, all of them known to
        the model."""
        if not found:
            return []
        fed = arrays(found)
        n, beams = len(found), self._beams
        last = np.full(n, START, np.int64)
        first = self._network.run(
            {**fed, "of": np.arange(n), "state": self._no_state(n), "last": last, "begin": np.ones(n, np.float32)}
        )
        chances = 1 / (1 + np.exp(-first["places"]))
        mask = np.full((n, len(self._vocabulary.units)), -np.inf, np.float32)
        likely: list[dict[str, float]] = []
        for row, things in enumerate(found):
            likely.append(
                {
                    p: float(c)
                    for p, c in zip(PLACES, chances[row], strict=True)
                    if c >= self._likely and p not in layouts[row].elsewhere
                }
            )
            mask[row, self._grounding.allowed(things, set(likely[row]), layouts[row])] = 0
        fed["of"] = np.repeat(np.arange(n), beams)
        mask = np.repeat(mask, beams, axis=0)
        totals = np.full((n, beams), -np.inf)
        totals[:, 0] = 0
        lines = np.full((n * beams, 0), END, np.int64)
        done = np.zeros(n * beams, bool)
        state = np.repeat(self._no_state(n), beams, axis=0)
        last = np.full(n * beams, START, np.int64)
        for at in range(LONGEST):
            begin = np.full(n * beams, float(at == 0), np.float32)
            out = self._network.run({**fed, "state": state, "last": last, "begin": begin})
            logits = np.where(self._grounding.never[last], -np.inf, out["logits"] + mask)
            if at < SHORTEST:
                logits[:, END] = -np.inf
            scores = _log_softmax(logits)
            scores[done] = -np.inf
            scores[done, END] = 0
            sums = (totals.reshape(-1, 1) + scores).reshape(n, -1)
            best = np.argpartition(-sums, beams, axis=1)[:, :beams]
            totals = np.take_along_axis(sums, best, axis=1)
            came = (best // scores.shape[1] + np.arange(n)[:, None] * beams).reshape(-1)
            last = (best % scores.shape[1]).reshape(-1)
            lines = np.concatenate([lines[came], last[:, None]], axis=1)
            state, mask, done = out["state"][came], mask[came], done[came] | (last == END)
            for row, unit in enumerate(last):
                mask[row, self._grounding.same.get(int(unit), [])] = -np.inf
            if done.all():
                break
        lengths = (lines != END).sum(axis=1).reshape(n, beams) + 1
        means = totals / lengths
        return [
            [
                self._written(lines[row * beams + beam], likely[row], float(means[row, beam]))
                for beam in np.argsort(-means[row])
                if np.isfinite(means[row, beam])
            ]
            for row in range(n)
        ]

    def _written(self, line: NDArray[np.int64], places: Mapping[str, float], score: float) -> Written:
        numbers = [int(number) for number in line if number != END]
        units, nouns = self._vocabulary.units, self._vocabulary.nouns
        while numbers and units[numbers[-1]] in _OPEN:  # a sentence that was cut at its greatest length
            numbers.pop()
        return Written(tuple(units[i] for i in numbers), tuple(nouns[i] for i in numbers), places, score)

    def _no_state(self, n: int) -> NDArray[np.float32]:
        return np.zeros((n, STATE), np.float32)


def fitted(words: Sequence[str]) -> list[str]:
    """The words with "a" or "an" as the next word's first letter asks for."""
    after = [*words[1:], ""]
    return [
        ("an" if following[:1] in "aeiou" and following else "a") if word in ("a", "an") else word
        for word, following in zip(words, after, strict=True)
    ]


#: size of the model's state
STATE = 256


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    top = np.maximum(logits.max(axis=1, keepdims=True), np.finfo(np.float32).min)  # a row may allow nothing
    sums = np.exp(logits - top).sum(axis=1, keepdims=True)
    return np.asarray(logits - top - np.log(np.maximum(sums, np.finfo(np.float32).tiny)), np.float32)
