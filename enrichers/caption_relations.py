"""Whether what a sentence says of two things is so in the picture, as far as boxes tell."""

from collections.abc import Iterator, Sequence

from enrichers.caption_evidence import PEOPLE, PLACES, nouns_for, words
from enrichers.caption_grammar import Placed, overlap, touch

_RIDDEN, _HELD, _CARRIERS, _VESSELS, _EATEN, _CONTACT = (
    words(key) for key in ("ridden", "held", "carriers", "vessels", "eaten", "contact")
)
_HUMANS = frozenset({"person", *PEOPLE})
_WORN = frozenset({"tie", "backpack", "handbag", "suit", "hat", "baseball glove", "skis"})
_RIDING = frozenset({"riding", "rides", "ride"})
_HOLDING = frozenset({"holding", "holds", "hold", "held", "carrying", "carries", "swinging", "swing", "swings"})
_WEARING = frozenset({"wearing", "wears", "wear"})
_EATING = frozenset({"eating", "eats", "eat"})
_ON, _IN = frozenset({"on", "top", "atop", "onto"}), frozenset({"in", "inside", "into"})
_WAY = frozenset({"down", "up", "through", "over", "across", "under", "underneath", "above", "below", "behind"})
#: the share of a thing's width in which what stands on it may stick out
_FLAT = 0.3


def holds(units: Sequence[str], nouns: Sequence[str | None], placed: Sequence[Placed]) -> bool:
    """Whether no two nouns mean the same single thing, and what is said between two things (riding, holding, on, in)
    fits their boxes. Settings have no box, so that anything but standing on top of them may be said of them.

    `nouns` are those that the `units` stand for.
    """
    evidence = nouns_for(p.thing for p in placed)
    at_name = {p.name: p for p in placed}
    before: list[list[Placed]] = []
    last = 0
    people = sum(p.thing.count for p in placed if p.name == "person")
    for at, noun in enumerate(nouns):
        if noun is None:
            continue
        things = [at_name[thing.name] for thing in evidence.get(noun, ())]
        if any(_same(things, other) for other in before):
            return False
        if sum(_is_human(named) for named in (*before, things)) > max(1, people):
            return False
        between = set(units[last:at])
        if before and not any(_fits(between, subject, things) for subject in before):
            return False
        if not before and not things and noun not in PLACES:
            return False
        before.append(things)
        last = at + 1
    return bool(before)


def _is_human(things: Sequence[Placed]) -> bool:
    return any(p.name in _HUMANS for p in things)


def _same(one: Sequence[Placed], other: Sequence[Placed]) -> bool:
    """Whether both can only mean one specimen."""
    return any(p.thing.count == 1 for p in one if p in other)


def _fits(between: set[str], subject: Sequence[Placed], things: Sequence[Placed]) -> bool:
    if not things:  # a setting
        return "top" not in between and "atop" not in between and not between & _HOLDING
    if not subject:
        return not between & (_ON | _IN | _CONTACT)
    names = {p.name for p in things}
    pairs = list(_pairs(subject, things))
    touching = any(touch(one, other) for one, other in pairs)
    if between & _RIDING:
        return touching and bool(names & _RIDDEN)
    if between & _HOLDING:
        return touching and bool(names & _HELD) and _is_human(subject)
    if between & _WEARING:
        return touching and bool(names & _WORN)
    if between & _EATING:
        return touching and bool(names & _EATEN)
    if between & _ON:
        return any(stands_on(one, other) for one, other in pairs)
    if between & _IN:
        return touching and bool(names & _VESSELS)
    if between & _WAY:
        return False
    return touching or not between & _CONTACT


def _pairs(subject: Sequence[Placed], things: Sequence[Placed]) -> Iterator[tuple[Placed, Placed]]:
    return ((one, other) for one in subject for other in things)


def stands_on(one: Placed, other: Placed) -> bool:
    """Whether the one is on the other: it reaches higher, its lower half lies in the other's box, and the other is
    something to ride or to stand, sit and lie on, or at least half as wide."""
    if not one.boxes or not other.boxes:
        return True
    for a in one.boxes:
        for b in other.boxes:
            lower = (a[0], a[1] + a[3] / 2, a[2], a[3] / 2)
            if a[1] >= b[1] + b[3] / 2 or overlap(lower, b) < _FLAT:
                continue
            if other.name in _CARRIERS | _RIDDEN or (b[2] > a[2] / 2 and other.name not in _HUMANS | _HELD):
                return True
    return False
