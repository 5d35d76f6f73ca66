"""Training a recognizer on what people said: the named identities, or any field of theirs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
from bson import ObjectId

from daemon.identities import active_model, load
from daemon.recognition import IDENTITY, Judged, TooFewLabels, disjoint_split, judge, train
from daemon.store import recognizers as store
from daemon.store.collections import Collections, Document
from daemon.store.identities import ACTIVE


@dataclass(frozen=True)
class Trained:
    """What came of a training. `skipped`: labels with too few faces."""

    label: str
    labels: int
    faces: int
    skipped: int
    threshold: float
    judged: Judged
    shown: Mapping[str, str]  #: the labels as people call them

    def document(self) -> Document:
        """As plain types, for JSON; the confusion as a list, most frequent first."""
        values = asdict(self)
        pairs = sorted(self.judged.confusion.items(), key=lambda entry: -entry[1])
        values["judged"]["confusion"] = [
            {"is": self.shown.get(true, true), "told": self.shown.get(told, told), "faces": count}
            for (true, told), count in pairs
        ]
        del values["shown"]
        return values


async def train_recognizer(
    collections: Collections, label: str = IDENTITY, min_images: int = 10, seed: int = 0
) -> Trained:
    """Trains on the faces of active identities that have a name (or the field `label`) and at least `min_images` faces,
    judges on photos that were held back, and stores a recognizer trained on all of them. Raises TooFewLabels."""
    field = "name" if label == IDENTITY else label
    value_of: dict[ObjectId, str] = {}
    shown: dict[str, str] = {}
    async for document in collections.identities.find({"state": ACTIVE}, {field: 1, "name": 1}):
        value = document.get(field)
        if isinstance(value, str | int | float | bool) and value != "":
            value_of[document["_id"]] = str(document["_id"]) if label == IDENTITY else str(value)
            shown[value_of[document["_id"]]] = str(value)
    model = await active_model(collections)
    if model is None or not value_of:
        how = f"db.identities.updateOne({{_id: …}}, {{$set: {{{field}: …}}}})"
        raise TooFewLabels(f"No active identity has a {field}; it is given in mongosh: {how}.")
    loaded = await load(collections, model, {"identity": {"$in": list(value_of)}})
    values = [value_of[identity] for identity in loaded.identities if identity is not None]
    counts = Counter(values)
    names = sorted(value for value, count in counts.items() if count >= min_images)
    if len(names) < 2:
        raise TooFewLabels(f"Fewer than two values of {field} have {min_images} faces.")
    number = {name: index for index, name in enumerate(names)}
    rows = np.array([row for row, value in enumerate(values) if value in number])
    labels = np.array([number[values[row]] for row in rows])
    vectors, photos = loaded.faces.vectors[rows], loaded.faces.photo[rows]
    test = disjoint_split(labels, photos, seed)
    first = train(model, label, names, vectors[~test], labels[~test], photos[~test], seed)
    judged = judge(first, (vectors[~test], labels[~test]), (vectors[test], labels[test]))
    final = train(model, label, names, vectors, labels, photos, seed)
    used = sorted({loaded.identities[row] for row in rows if loaded.identities[row] is not None})
    await store.put(collections, label, final.document(), used, datetime.now(UTC))
    return Trained(label, len(names), len(rows), len(counts) - len(names), final.threshold, judged, shown)
