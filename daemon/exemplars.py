"""The known people's exemplars in memory, to ask at once whom a new face clearly belongs to."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from daemon.calibration import Calibrations
from daemon.recognition import Recognizer
from daemon.store import identities as store
from daemon.store import recognizers
from daemon.store.collections import Collections
from daemon.store.identities import ACTIVE, HIDDEN, Identity

#: log-likelihood ratio, less the logarithm of how many identities there are to choose from, at which a new face is
#: given to an identity at once: odds of 3,000 to 1. What is less clear waits for the next recluster, which sees all
#: faces together.
SURE = 8.0
#: how much nearer, in log-likelihood ratio, the best identity must be than the second
MARGIN = 3.0
#: clocks of several writers may differ by this much
CLOCK_MARGIN = timedelta(seconds=60)


@dataclass(frozen=True)
class Nearest:
    """The identity nearest to a face. `distance` is cosine; `sure`: it is near enough, and no other is as near."""

    identity: ObjectId
    distance: float
    log_ratio: float
    sure: bool


@dataclass(frozen=True)
class Recognized:
    """Whom a trained recognizer takes a face for; `sure`: its confidence is above what it was calibrated to need."""

    identity: ObjectId
    confidence: float
    sure: bool


class Exemplars:
    """All exemplars of the living identities; `refresh` reads what changed since the last time."""

    def __init__(self, calibrations: Calibrations | None = None) -> None:
        """`calibrations`: what distances mean; the shipped ones where none are given. A face of an embedding model
        without a calibration belongs to nobody."""
        self.calibrations = calibrations or Calibrations.load()
        self._known: dict[ObjectId, Identity] = {}
        self._latest: datetime | None = None
        self._recognizer: Recognizer | None = None
        self._recognizer_at: datetime | None = None
        self._gone: set[ObjectId] = set()
        self._matrices: dict[str, tuple[NDArray[np.float32], list[ObjectId]]] = {}

    async def refresh(self, collections: Collections) -> None:
        """Reads the identities that changed since the last call."""
        query: dict[str, Any] = {} if self._latest is None else {"updated_at": {"$gt": self._latest - CLOCK_MARGIN}}
        changed = False
        self._gone.clear()
        async for document in collections.identities.find(query):
            known = store.identity(document)
            if (at := document.get("updated_at")) is not None and (self._latest is None or at > self._latest):
                self._latest = at
            if self._known.get(known.id) is None or not same(self._known[known.id], known):
                changed = True
            if known.id not in self._gone:  # forgotten while this was read
                self._known[known.id] = known
        if changed:
            self._matrices.clear()

        at = await recognizers.stored_at(collections, "identity")
        if at != self._recognizer_at:
            learned = await recognizers.get(collections, "identity") if at else None
            self._recognizer = Recognizer.of(learned) if learned else None
            self._recognizer_at = at

    def recognized(self, embeddings: Mapping[str, NDArray[np.float32]]) -> Recognized | None:
        """Whom a trained recognizer takes a face for; None without one, or where that identity is not known."""
        recognizer = self._recognizer
        if recognizer is None or (vector := embeddings.get(recognizer.model)) is None:
            return None
        unit = np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)
        number, confidence = recognizer.tell(unit[None])
        identity = ObjectId(recognizer.names[int(number[0])])
        entry = self._known.get(identity)
        if entry is None or entry.state not in (ACTIVE, HIDDEN):
            return None
        return Recognized(identity, float(confidence[0]), float(confidence[0]) >= recognizer.threshold)

    def ignored(self, identity: ObjectId) -> bool:
        """Whether an identity is a stranger whom a person wants to see no more."""
        return identity in self._known and self._known[identity].ignored

    def forget(self, ids: Iterable[ObjectId]) -> None:
        """Takes identities out that no longer exist, and what was learned from them."""
        for id in ids:
            self._gone.add(id)
            self._known.pop(id, None)
        self._matrices.clear()
        self._recognizer = self._recognizer_at = None  # read again, if it is still there

    async def compare(self, collections: Collections) -> None:
        """Takes out the identities that are no longer in the database."""
        there = {document["_id"] async for document in collections.identities.find({}, {"_id": 1})}
        if gone := self._known.keys() - there:
            self.forget(gone)

    def _matrix(self, model: str) -> tuple[NDArray[np.float32], list[ObjectId]]:
        if model not in self._matrices:
            rows: list[NDArray[np.float32]] = []
            owners: list[ObjectId] = []
            for identity in self._known.values():
                if identity.state not in (ACTIVE, HIDDEN):
                    continue
                for exemplar in identity.exemplars:
                    if (vector := exemplar.embeddings.get(model)) is not None:
                        rows.append(vector / max(float(np.linalg.norm(vector)), 1e-12))
                        owners.append(identity.id)
            self._matrices[model] = (np.stack(rows) if rows else np.zeros((0, 0), np.float32), owners)
        return self._matrices[model]

    def nearest(self, embeddings: Mapping[str, NDArray[np.float32]]) -> Nearest | None:
        """The identity nearest to a face by the first of its embedding models that any identity has."""
        for model in sorted(embeddings):
            calibration = self.calibrations.get(model)
            if calibration is None:
                continue
            matrix, owners = self._matrix(model)
            vector = embeddings[model]
            if not len(owners) or matrix.shape[1] != vector.shape[0]:
                continue
            unit = np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)
            distances = np.asarray(1.0 - matrix @ unit, dtype=np.float32)
            best = int(np.argmin(distances))
            others = distances[[owner != owners[best] for owner in owners]]
            ratio = float(calibration.log_ratio(distances[best : best + 1])[0])
            second = float(calibration.log_ratio(others.min(keepdims=True))[0]) if len(others) else -np.inf
            sure = ratio >= SURE + math.log(len(set(owners))) and ratio - second >= MARGIN
            return Nearest(owners[best], float(distances[best]), ratio, sure)
        return None


def same(a: Identity, b: Identity) -> bool:
    """Whether two readings of an identity offer the same exemplars."""
    return (a.state, a.ignored, [e.face for e in a.exemplars]) == (b.state, b.ignored, [e.face for e in b.exemplars])
