"""The `identities` collection: one document a person, named or not yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from pymongo import ASCENDING, IndexModel, UpdateOne

from daemon.store.collections import Collections, Document
from daemon.store.faces import BATCH, batches
from daemon.store.images import sources_of
from daemon.store.vectors import from_binary, to_binary

ACTIVE, HIDDEN, MERGED = "active", "hidden", "merged"

INDEXES = (
    IndexModel([("name", ASCENDING)]),
    IndexModel([("state", ASCENDING)]),
    IndexModel([("updated_at", ASCENDING)]),
)


@dataclass(frozen=True)
class Exemplar:
    """A face that stands for an identity: its id and its vectors by embedding model, each of shape (d,)."""

    face: ObjectId
    embeddings: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Identity:
    """A stored identity."""

    id: ObjectId
    name: str | None
    state: str
    merged_into: ObjectId | None
    face_count: int
    image_count: int
    cover_face: ObjectId | None
    exemplars: tuple[Exemplar, ...]
    ignored: bool  #: its faces are those of a stranger whom a person wants to see no more


def identity(document: Document) -> Identity:
    """A document of `identities` → Identity."""
    name = document.get("name")
    return Identity(
        id=document["_id"],
        name=name if isinstance(name, str) and name.strip() else None,
        state=document.get("state", ACTIVE),
        merged_into=document.get("merged_into"),
        face_count=int(document.get("face_count") or 0),
        image_count=int(document.get("image_count") or 0),
        cover_face=document.get("cover_face"),
        exemplars=tuple(
            Exemplar(entry["face"], {model: from_binary(value) for model, value in entry["embeddings"].items()})
            for entry in document.get("exemplars") or ()
        ),
        ignored=bool(document.get("ignored")),
    )


def exemplars_document(exemplars: Sequence[Exemplar]) -> list[Document]:
    """Exemplars as stored."""
    return [
        {"face": entry.face, "embeddings": {model: to_binary(vector) for model, vector in entry.embeddings.items()}}
        for entry in exemplars
    ]


def new_document(id: ObjectId, now: datetime, **fields: Any) -> Document:
    """A new identity with every field in its place."""
    return {
        "_id": id,
        "name": None,
        "decided_name": None,
        "shown_name": None,
        "face_count": 0,
        "image_count": 0,
        "cover_face": None,
        "exemplars": [],
        "centroid": {},
        "state": ACTIVE,
        "merged_into": None,
        "ignored": False,
        "created_at": now,
        "updated_at": now,
        **fields,
    }


def decided(fields: Mapping[str, Any]) -> Document:
    """Fields that a decision sets, with what tells its name from one that somebody set in the database."""
    return {**fields, "decided_name": fields["name"]} if "name" in fields else dict(fields)


async def load(collections: Collections, query: Mapping[str, Any] | None = None) -> dict[ObjectId, Identity]:
    """Identities by id."""
    return {document["_id"]: identity(document) async for document in collections.identities.find(dict(query or {}))}


async def by_ids(collections: Collections, ids: Sequence[ObjectId]) -> dict[ObjectId, Identity]:
    """Identities of some ids; ids that are not there are left out."""
    found: dict[ObjectId, Identity] = {}
    for some in batches(list(ids)):
        found.update(await load(collections, {"_id": {"$in": list(some)}}))
    return found


async def names(collections: Collections, ids: Sequence[ObjectId]) -> dict[ObjectId, str | None]:
    """What the images show as name of these identities: None for hidden, ignored and nameless ones."""
    found: dict[ObjectId, str | None] = {}
    for some in batches(list(set(ids))):
        async for document in collections.identities.find({"_id": {"$in": list(some)}}, {"name": 1, "state": 1}):
            found[document["_id"]] = document.get("name") if document.get("state") == ACTIVE else None
    return found


async def some_sources(collections: Collections, id: ObjectId, source: str, count: int) -> list[Any]:
    """Sources, at the dotted path `source`, of at most `count` images that an identity is seen on."""
    cursor = await collections.faces.aggregate(
        [
            {"$match": {"identity": id, "detached": {"$ne": True}}},
            {"$group": {"_id": "$image._id"}},
            {"$sort": {"_id": 1}},
            {"$limit": count},
        ]
    )
    images = [entry["_id"] async for entry in cursor]
    sources = await sources_of(collections, images, source)
    return [sources[image] for image in images if image in sources]


async def count_faces(collections: Collections, ids: Sequence[ObjectId]) -> None:
    """Brings `face_count` and `image_count` of some identities up to date; detached faces do not count. `updated_at`
    stays: who a person is has not changed, and no daemon need read it again."""
    for some in batches(list(ids), BATCH):
        cursor = await collections.faces.aggregate(
            [
                {"$match": {"identity": {"$in": list(some)}, "detached": {"$ne": True}}},
                {"$group": {"_id": {"identity": "$identity", "image": "$image"}, "faces": {"$sum": 1}}},
                {"$group": {"_id": "$_id.identity", "faces": {"$sum": "$faces"}, "images": {"$sum": 1}}},
            ]
        )
        found = {entry["_id"]: (entry["faces"], entry["images"]) async for entry in cursor}
        operations = []
        for id in some:
            faces, images = found.get(id, (0, 0))
            counts = {"face_count": faces, "image_count": images}
            operations.append(UpdateOne({"_id": id, "$nor": [counts]}, {"$set": counts}))
        await collections.identities.bulk_write(operations, ordered=False)


async def any_identity(collections: Collections) -> bool:
    """Whether there is an identity, of whatever state."""
    return await collections.identities.find_one({}, {"_id": 1}) is not None
