"""What a recluster changes: clusters matched to identities by the faces they share, as a pure function."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Member:
    """A face as matching sees it. `identity` is the one it has now; `pinned`: a person put it there; `refused`: the
    identities that it is not, as a person said."""

    identity: Hashable | None
    pinned: bool = False
    refused: frozenset[Hashable] = frozenset()


@dataclass(frozen=True)
class New:
    """An identity that does not exist yet."""

    number: int


@dataclass(frozen=True)
class Matched:
    """Whom each face belongs to after a recluster: an identity as given, New, or None."""

    owners: tuple[Hashable | None, ...]
    created: int  #: how many New there are


def match_identities(labels: Ints, members: Sequence[Member], kept: frozenset[Hashable], min_faces: int) -> Matched:
    """Gives each cluster the identity with which it shares most faces; the bigger share keeps the id.

    `labels`: (n,) cluster numbers, -1 for faces that belong to none. `kept`: identities that a person named or decided
    on; they never lose their last face to another, two of them never become one, and they need no `min_faces`.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        groups[int(label)].append(row)
    left = groups.pop(-1, [])
    parts = [part for label in sorted(groups) for part in divide(groups[label], members, kept)]

    shares: list[tuple[int, int, int, Hashable]] = []  # sorted so that the biggest share comes first
    order = {identity: index for index, identity in enumerate(dict.fromkeys(m.identity for m in members))}
    for number, part in enumerate(parts):
        counts = Counter(members[row].identity for row in part if members[row].identity is not None)
        pinned = Counter(members[row].identity for row in part if members[row].pinned)
        for identity, count in counts.items():
            weight = count + pinned[identity] * len(members)  # where a person put faces, the identity stays
            shares.append((-weight, order[identity], number, identity))
    owners: list[Hashable | None] = [None] * len(members)
    owner_of: dict[int, Hashable] = {}
    used: set[Hashable] = set()
    for _, _, number, identity in sorted(shares, key=lambda share: share[:3]):
        if number not in owner_of and identity not in used:
            owner_of[number] = identity
            used.add(identity)
    created = 0
    for number, part in enumerate(parts):
        owner = owner_of.get(number)
        if owner is not None and owner not in kept and len(part) < min_faces:
            owner = None
        elif owner is None and len(part) >= min_faces:
            owner = New(created)
            created += 1
        for row in part:
            owners[row] = owner
    for row, member in enumerate(members):
        if member.pinned:
            owners[row] = member.identity
        elif owners[row] in member.refused:
            owners[row] = None
    for row in left:
        owners[row] = members[row].identity if members[row].pinned else None
    return Matched(tuple(owners), created)


def divide(rows: Sequence[int], members: Sequence[Member], kept: frozenset[Hashable]) -> list[list[int]]:
    """A cluster that holds faces of several kept identities, divided so that each keeps its own; the other faces go
    with the one that has most. Usually there is nothing to divide."""
    counts = Counter(members[row].identity for row in rows if members[row].identity in kept)
    if len(counts) < 2:
        return [list(rows)]
    main = counts.most_common(1)[0][0]
    parts: Mapping[Hashable | None, list[int]] = {identity: [] for identity in counts}
    for row in rows:
        identity = members[row].identity
        parts[identity if identity in counts else main].append(row)
    return list(parts.values())


@dataclass(frozen=True)
class Changes:
    """How many faces and identities a recluster touches; what `--dry-run` shows."""

    moved: int  #: faces that go from one identity to another
    assigned: int  #: faces that had none and get one
    released: int  #: faces that had one and have none
    created: int  #: new identities
    emptied: int  #: identities without a face left
    merged: int  #: pairs of old identities whose faces come together
    split: int  #: old identities whose faces part


@dataclass(frozen=True)
class Flow:
    """Faces that go the same way: from an identity (None: they had none) to another (None: they get none)."""

    faces: int
    source: Hashable | None
    target: Hashable | None


def flows(before: Sequence[Hashable | None], after: Sequence[Hashable | None]) -> list[Flow]:
    """Which faces move, those that most have in common first."""
    pairs = Counter((old, new) for old, new in zip(before, after, strict=True) if old != new)
    return [Flow(count, old, new) for (old, new), count in pairs.most_common()]


NO_CHANGES = Changes(0, 0, 0, 0, 0, 0, 0)


def changes(before: Sequence[Hashable | None], after: Sequence[Hashable | None], created: int, emptied: int) -> Changes:
    """Compares who was who with who will be."""
    pairs = Counter(zip(before, after, strict=True))
    sources: dict[Hashable, set[Hashable]] = defaultdict(set)
    targets: dict[Hashable, set[Hashable]] = defaultdict(set)
    for old, new in pairs:
        if old is not None and new is not None:
            sources[new].add(old)
            targets[old].add(new)
    return Changes(
        moved=sum(n for (old, new), n in pairs.items() if old is not None and new is not None and old != new),
        assigned=sum(n for (old, new), n in pairs.items() if old is None and new is not None),
        released=sum(n for (old, new), n in pairs.items() if old is not None and new is None),
        created=created,
        emptied=emptied,
        merged=sum(len(olds) - 1 for olds in sources.values()),
        split=sum(len(news) > 1 for news in targets.values()),
    )
