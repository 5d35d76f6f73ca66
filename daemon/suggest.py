"""What people should look at: likely merges, likely wrong members and likely names, best first, with the evidence."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from daemon.calibration import Calibration, Calibrations
from daemon.identities import Loaded, active_model, load
from daemon.neighbours import knn
from daemon.plural import counted
from daemon.store import identities as identity_store
from daemon.store import links as link_store
from daemon.store.collections import Collections
from daemon.store.identities import MERGED, Identity
from daemon.store.links import CANNOT

Floats = NDArray[np.float32]

#: log-likelihood ratio of the middle of the exemplars' nearest pairs from which a merge is worth a look
MERGE_FROM = 1.0
#: identities that each is compared with
NEAREST = 8
#: log-likelihood ratio to its own identity below which a face may be a wrong member
WRONG_BELOW = 0.0


@dataclass(frozen=True)
class Suggestion:
    """One thing to look at. `kind`: "merge" (two identities), "wrong member" (a face of an identity) or "name" (an
    identity that may be a named one). `score`: natural logarithm of the evidence, larger is likelier; `evidence` says
    it in words."""

    kind: str
    score: float
    identities: tuple[ObjectId, ...]
    face: ObjectId | None
    evidence: str


async def suggestions(collections: Collections, calibrations: Calibrations, limit: int = 20) -> list[Suggestion]:
    """The likeliest suggestions of each kind, at most `limit` of each. Raises CalibrationMissing."""
    known = {id: i for id, i in (await identity_store.load(collections)).items() if i.state != MERGED and not i.ignored}
    model = await active_model(collections)
    if model is None:
        return []
    loaded = await load(collections, model, {"identity": {"$in": list(known)}})
    links = await link_store.load(collections)
    apart: set[tuple[ObjectId, ObjectId | None]] = {
        (face, link.identity) for link in links if link.kind == CANNOT and link.identity for face in link.faces
    }
    calibration = calibrations.of(model)
    found = [
        *same_names(known),
        *merges(known, model, calibration),
        *wrong_members(loaded, known, calibration, apart),
    ]
    by_kind: dict[str, list[Suggestion]] = defaultdict(list)
    for suggestion in sorted(found, key=lambda entry: (-entry.score, entry.identities)):
        by_kind[suggestion.kind].append(suggestion)
    return [entry for kind in ("merge", "name", "wrong member") for entry in by_kind[kind][:limit]]


def same_names(known: Mapping[ObjectId, Identity]) -> list[Suggestion]:
    """Identities that people gave the same name: offered for merging, never merged without being asked."""
    named: dict[str, list[ObjectId]] = defaultdict(list)
    for id, entry in sorted(known.items()):
        if entry.name:
            named[entry.name.strip().casefold()].append(id)
    return [
        Suggestion("merge", 100.0, pair, None, f"both are called {known[pair[0]].name!r}")
        for ids in named.values()
        for pair in combinations(ids, 2)
    ]


def vectors_of(entry: Identity, model: str) -> Floats | None:
    """The exemplars of an identity as unit vectors (k, d); None where it has none of this model."""
    rows = [exemplar.embeddings[model] for exemplar in entry.exemplars if model in exemplar.embeddings]
    if not rows:
        return None
    stacked = np.stack(rows)
    return np.asarray(stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def merges(known: Mapping[ObjectId, Identity], model: str, calibration: Calibration) -> list[Suggestion]:
    """Pairs of identities whose exemplars lie near one another. Each exemplar of the smaller one is asked for its
    nearest in the other, and the middle answer counts, so that one odd face decides nothing."""
    exemplars = {id: v for id, entry in sorted(known.items()) if (v := vectors_of(entry, model)) is not None}
    ids = list(exemplars)
    if len(ids) < 2:
        return []
    means = np.stack([exemplars[id].mean(axis=0) for id in ids])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    _, near = knn(means, means, min(NEAREST + 1, len(ids)))
    pairs = {(min(a, int(b)), max(a, int(b))) for a in range(len(ids)) for b in near[a] if a != b}
    result = []
    for a, b in sorted(pairs):
        one, other = known[ids[a]], known[ids[b]]
        if one.name and other.name:
            continue
        first, second = sorted((exemplars[ids[a]], exemplars[ids[b]]), key=len)
        nearest = calibration.log_ratio(1.0 - (first @ second.T).max(axis=1))
        score = float(np.median(nearest))
        if score < MERGE_FROM:
            continue
        evidence = f"{int((nearest > 0).sum())} of {len(nearest)} exemplars look like the other's"
        name = one.name or other.name
        kind = "name" if name else "merge"
        order = (ids[b], ids[a]) if name and one.name else (ids[a], ids[b])
        result.append(Suggestion(kind, score, order, None, f"may be {name!r}: {evidence}" if name else evidence))
    return result


def wrong_members(
    loaded: Loaded,
    known: Mapping[ObjectId, Identity],
    calibration: Calibration,
    confirmed: set[tuple[ObjectId, ObjectId | None]],
) -> list[Suggestion]:
    """Faces that look less like the others of their identity than like strangers. What a person assigned is right."""
    rows: dict[ObjectId, list[int]] = defaultdict(list)
    for row, identity in enumerate(loaded.identities):
        if identity is not None and identity in known:
            rows[identity].append(row)
    result = []
    for identity, members in sorted(rows.items()):
        if len(members) < 3:
            continue
        vectors = loaded.faces.vectors[members]
        others = (vectors.sum(axis=0) - vectors) @ vectors.T / (len(members) - 1)
        ratio = calibration.log_ratio(1.0 - np.diagonal(others).astype(np.float32))
        for row, value in zip(members, ratio, strict=True):
            if value < WRONG_BELOW and not loaded.pinned[row] and (loaded.ids[row], identity) not in confirmed:
                label = known[identity].name or str(identity)
                evidence = f"unlike the other {counted(len(members) - 1, 'face')} of {label}"
                result.append(Suggestion("wrong member", -float(value), (identity,), loaded.ids[row], evidence))
    return result


def as_documents(found: Sequence[Suggestion]) -> list[dict[str, object]]:
    """As plain types, for JSON."""
    return [
        {
            "kind": entry.kind,
            "score": round(entry.score, 2),
            "identities": list(entry.identities),
            "face": entry.face,
            "evidence": entry.evidence,
        }
        for entry in found
    ]
