"""The `faces` collection: one document a face, the truth of who is on which image."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from bson import BSON, Binary, ObjectId
from numpy.typing import NDArray
from pymongo import ASCENDING, IndexModel, UpdateOne
from pymongo.errors import BulkWriteError

from daemon.store.collections import Collections, Document
from daemon.store.vectors import from_binary, to_binary
from enrichers.contract import Face

#: ids in one `$in`, operations in one bulk write
BATCH = 1000

INDEXES = (
    IndexModel([("image._id", ASCENDING)]),
    IndexModel([("identity", ASCENDING)]),
    IndexModel([("clustered_at", ASCENDING)]),
    IndexModel([("verdict", ASCENDING)]),
    IndexModel([("image_sha256", ASCENDING)]),
)

#: attributes of a face that are stored; null where the enricher gives none
ATTRIBUTES = ("age", "age_range", "gender", "gender_score", "emotion", "emotion_score")

#: verdicts: what a person said of a face. A forgotten face keeps its place on the image and nothing of the person.
NOT_A_FACE, IGNORED, FORGOTTEN = "not_a_face", "ignored", "forgotten"

#: fields that a forgotten face keeps: where it is, and that it is forgotten
WITHOUT_PERSON = frozenset(
    ("_id", "image", "image_sha256", "box", "embeddings", "identity", "assigned", "verdict", "decided", "detached")
) | {"clustered_at", "created_at"}

#: `clustered_at` of faces that clustering need not look at
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StoredFace:
    """A stored face as matching and assignment see it. `box` is x, y, width, height in pixels of the upright image."""

    id: ObjectId
    image: Mapping[str, Any]  #: documentKey of the image
    image_sha256: str
    box: tuple[float, float, float, float]
    embeddings: Mapping[str, NDArray[np.float32]]
    identity: ObjectId | None
    assigned: Mapping[str, Any] | None
    verdict: str | None
    detached: bool
    marked: bool = False  #: a decision names it

    @property
    def decided(self) -> bool:
        """Whether a person decided something about this face."""
        return self.marked or self.verdict is not None or bool(self.assigned and self.assigned.get("by") == "user")


def stored_face(document: Document) -> StoredFace:
    """A document of `faces` (without thumbnail) → StoredFace."""
    x, y, width, height = document["box"]
    return StoredFace(
        id=document["_id"],
        image=document["image"],
        image_sha256=document.get("image_sha256", ""),
        box=(x, y, width, height),
        embeddings={model: from_binary(value) for model, value in (document.get("embeddings") or {}).items()},
        identity=document.get("identity"),
        assigned=document.get("assigned"),
        verdict=document.get("verdict"),
        detached=bool(document.get("detached")),
        marked=bool(document.get("decided")),
    )


def key_of(document_key: Mapping[str, Any]) -> bytes:
    """A documentKey as bytes that compare equal for equal keys."""
    return BSON.encode(dict(sorted(document_key.items())))


def face_id(document_key: Mapping[str, Any], image_sha256: str, rank: int) -> ObjectId:
    """The id of a new face, the same for the same image, bytes and rank."""
    digest = hashlib.sha256(key_of(document_key) + image_sha256.encode() + rank.to_bytes(4, "big")).digest()
    return ObjectId(digest[:12])


def described(face: Face) -> Document:
    """What a detection says of a face, as stored: everything but embeddings, identity and verdict."""
    return {
        "box": [round(float(value), 1) for value in face.box],
        "landmarks": [[round(float(x), 1), round(float(y), 1)] for x, y in face.landmarks],
        "score": round(float(face.score), 4),
        "quality": dict(face.quality),
        "thumbnail": Binary(face.thumbnail),
        **{name: face.attributes.get(name) for name in ATTRIBUTES},
    }


def batches(values: Sequence[Any], size: int = BATCH) -> Iterable[Sequence[Any]]:
    """`values` in runs of at most `size`."""
    return (values[start : start + size] for start in range(0, len(values), size))


async def of_images(
    collections: Collections, document_keys: Sequence[Mapping[str, Any]]
) -> dict[bytes, list[StoredFace]]:
    """The stored faces of images, detached ones too, by `key_of` their documentKey."""
    wanted = {key_of(key) for key in document_keys}
    found: dict[bytes, list[StoredFace]] = {key: [] for key in wanted}
    for some in batches([key["_id"] for key in document_keys]):
        async for document in collections.faces.find({"image._id": {"$in": list(some)}}, {"thumbnail": 0}):
            if (key := key_of(document["image"])) in wanted:  # a sharded collection may hold an _id twice
                found[key].append(stored_face(document))
    return found


async def forgotten_boxes(collections: Collections, hashes: Sequence[str]) -> dict[str, list[StoredFace]]:
    """Faces of forgotten people on images with these hashes, by hash."""
    found: dict[str, list[StoredFace]] = {}
    for some in batches(sorted(set(hashes))):
        query = {"image_sha256": {"$in": list(some)}, "verdict": FORGOTTEN}
        async for document in collections.faces.find(query, {"thumbnail": 0}):
            found.setdefault(document["image_sha256"], []).append(stored_face(document))
    return found


async def by_ids(collections: Collections, ids: Sequence[ObjectId]) -> dict[ObjectId, StoredFace]:
    """Stored faces by id; ids that are not there are left out."""
    found: dict[ObjectId, StoredFace] = {}
    for some in batches(list(ids)):
        async for document in collections.faces.find({"_id": {"$in": list(some)}}, {"thumbnail": 0}):
            found[document["_id"]] = stored_face(document)
    return found


async def of_identities(collections: Collections, identities: Sequence[ObjectId]) -> list[StoredFace]:
    """All faces of some identities."""
    found: list[StoredFace] = []
    for some in batches(list(identities)):
        cursor = collections.faces.find({"identity": {"$in": list(some)}}, {"thumbnail": 0})
        found += [stored_face(document) async for document in cursor]
    return found


async def of_model(
    collections: Collections, model: str, query: Mapping[str, Any] | None = None
) -> AsyncIterator[Document]:
    """Every face that matches, with what clustering needs of it: a raw document without thumbnail."""
    projection = {
        f"embeddings.{model}": 1,
        **dict.fromkeys(("image", "image_sha256", "quality.value", "identity", "assigned", "verdict"), 1),
        **dict.fromkeys(("detached", "clustered_at", "decided"), 1),
    }
    async for document in collections.faces.find(dict(query or {}), projection, batch_size=5000):
        yield document


async def shown_by_image(collections: Collections) -> AsyncIterator[tuple[Document, list[Document]]]:
    """Each image's documentKey and the faces on it, with box, landmarks and identity: without those that are detached,
    no faces, or forgotten."""
    query = {"detached": {"$ne": True}, "verdict": {"$nin": [NOT_A_FACE, FORGOTTEN]}}
    fields = dict.fromkeys(("image", "box", "landmarks", "identity"), 1)
    faces: dict[bytes, list[Document]] = {}
    async for document in collections.faces.find(query, fields):
        faces.setdefault(key_of(document["image"]), []).append(document)
    for found in faces.values():
        yield found[0]["image"], found


def upsert(
    id: ObjectId,
    document_key: Mapping[str, Any],
    image_sha256: str,
    face: Face,
    now: datetime,
    fresh: bool,
    insert: Document,
) -> UpdateOne:
    """The write of one detection. `fresh`: its embedding is new, so the next recluster looks at it; `insert`: what
    only a face that is not there yet gets."""
    change = {
        **described(face),
        **{f"embeddings.{model}": to_binary(vector) for model, vector in face.embeddings.items()},
        "image": dict(document_key),
        "image_sha256": image_sha256,
        "detached": False,
    }
    once = {"identity": None, "assigned": None, "verdict": None, "decided": False, "created_at": now, **insert}
    if fresh:
        change["clustered_at"] = None
    else:
        once["clustered_at"] = None
    return UpdateOne({"_id": id}, {"$set": change, "$setOnInsert": once}, upsert=True)


def upsert_forgotten(
    id: ObjectId, document_key: Mapping[str, Any], image_sha256: str, face: Face, now: datetime
) -> UpdateOne:
    """The write of a detection of somebody who was forgotten: where it is, and nothing else."""
    change = {
        "image": dict(document_key),
        "image_sha256": image_sha256,
        "box": [round(float(value), 1) for value in face.box],
        "verdict": FORGOTTEN,
        "decided": True,
        "embeddings": {},
        "identity": None,
        "assigned": None,
        "clustered_at": NEVER,
        "detached": False,
    }
    return UpdateOne({"_id": id}, {"$set": change, "$setOnInsert": {"created_at": now}}, upsert=True)


def assignment(
    identity: ObjectId | None, by: str, now: datetime, distance: float | None, confidence: float | None = None
) -> Document:
    """The fields of a face that say whom it belongs to, by whom ("cluster", "classifier", "user") and how far it was
    from what it was compared with (cosine distance), or the classifier's confidence."""
    assigned: Document | None = None if identity is None else {"by": by, "at": now, "distance": distance}
    if assigned is not None and confidence is not None:
        assigned["confidence"] = round(confidence, 4)
    return {"identity": identity, "assigned": assigned}


async def write(collections: Collections, operations: Sequence[UpdateOne]) -> None:
    """Writes in batches, unordered. Two writers may upsert the same new face at once: the one that comes second
    finds it there and writes again, as an update."""
    for some in batches(list(operations)):
        try:
            await collections.faces.bulk_write(list(some), ordered=False)
        except BulkWriteError as error:
            errors = (error.details or {}).get("writeErrors", [])
            if any(entry.get("code") != 11000 for entry in errors):
                raise
            await collections.faces.bulk_write([some[entry["index"]] for entry in errors], ordered=False)


async def remove(collections: Collections, faces: Sequence[StoredFace]) -> int:
    """Deletes faces; those that carry a person's decision are detached instead. Returns how many are gone."""
    free = [face.id for face in faces if not face.decided]
    decided = [face.id for face in faces if face.decided and not face.detached]
    gone = 0
    for some in batches(free):
        undecided = {"_id": {"$in": list(some)}, "verdict": None, "decided": False, "assigned.by": {"$nin": ["user"]}}
        gone += (await collections.faces.delete_many(undecided)).deleted_count
    for some in batches(decided):
        await collections.faces.update_many({"_id": {"$in": list(some)}}, {"$set": {"detached": True}})
    return gone


async def image_keys(collections: Collections) -> AsyncIterator[Document]:
    """The documentKey of every image that has faces, some more than once."""
    last: Any = None
    async for document in collections.faces.find({}, {"image": 1}, batch_size=BATCH):
        if document["image"] != last:
            last = document["image"]
            yield last


async def looked_at(collections: Collections, ids: Sequence[ObjectId], now: datetime) -> None:
    """Notes that a recluster has looked at these faces."""
    for some in batches(list(ids)):
        query = {"_id": {"$in": list(some)}, "clustered_at": None}
        await collections.faces.update_many(query, {"$set": {"clustered_at": now}})


async def traces(collections: Collections, ids: Sequence[ObjectId]) -> dict[str, str]:
    """Every field of these faces that says something of the person, as `$unset` takes them."""
    found: set[str] = set()
    async for document in collections.faces.find({"_id": {"$in": list(ids)}}):
        found.update(document)
    return dict.fromkeys(sorted(found - WITHOUT_PERSON), "")


async def count_waiting(collections: Collections) -> int:
    """How many faces without an identity no recluster has looked at yet."""
    return await collections.faces.count_documents({"clustered_at": None, "identity": None, "detached": {"$ne": True}})
