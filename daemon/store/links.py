"""The `enrichd_links` collection: what people said about faces belonging together or not, kept for ever."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bson import ObjectId
from pymongo import ASCENDING, IndexModel

from daemon.store.collections import Collections, Document
from daemon.store.faces import batches

MUST, CANNOT = "must", "cannot"

#: faces in one link document; a longer list is several documents that share a face
FACES_A_LINK = 20_000

INDEXES = (
    IndexModel([("faces", ASCENDING)]),
    IndexModel([("others", ASCENDING)]),
    IndexModel([("identity", ASCENDING)]),
    IndexModel([("audit", ASCENDING)]),
)


@dataclass(frozen=True)
class Link:
    """One constraint. `must`: all of `faces` are one person. `cannot`: none of `faces` is the same person as any of
    `others`, nor as `identity` where that is set."""

    id: ObjectId
    kind: str
    faces: tuple[ObjectId, ...]
    others: tuple[ObjectId, ...] = ()
    identity: ObjectId | None = None


def link(document: Document) -> Link:
    """A document of `enrichd_links` → Link."""
    return Link(
        id=document["_id"],
        kind=document["kind"],
        faces=tuple(document["faces"]),
        others=tuple(document.get("others") or ()),
        identity=document.get("identity"),
    )


async def load(collections: Collections) -> list[Link]:
    """Every constraint that is in force, oldest first."""
    return [link(document) async for document in collections.links.find({"void": False}).sort("_id", ASCENDING)]


async def of_faces(collections: Collections, faces: Sequence[ObjectId]) -> list[Link]:
    """The constraints in force that name one of these faces."""
    found: dict[ObjectId, Link] = {}
    for some in batches(list(faces)):
        for field in ("faces", "others"):
            async for document in collections.links.find({field: {"$in": list(some)}}):
                if not document["void"]:
                    found[document["_id"]] = link(document)
    return [found[id] for id in sorted(found)]


async def insert(
    collections: Collections,
    audit: ObjectId,
    now: datetime,
    kind: str,
    faces: Sequence[ObjectId],
    others: Sequence[ObjectId] = (),
    identity: ObjectId | None = None,
) -> list[ObjectId]:
    """Stores a constraint that the decision `audit` made; returns the ids of its documents."""
    step = FACES_A_LINK - 1 if kind == MUST else FACES_A_LINK
    starts = range(0, max(1, len(faces) - (1 if kind == MUST else 0)), step)
    documents: list[Document] = [
        {
            "_id": ObjectId(),
            "kind": kind,
            "faces": list(faces[start : start + FACES_A_LINK]),
            "others": list(others[:FACES_A_LINK]),
            "identity": identity,
            "audit": audit,
            "void": False,
            "at": now,
        }
        for start in starts
    ]
    await collections.links.insert_many(documents)
    return [document["_id"] for document in documents]


async def set_void(collections: Collections, ids: Sequence[ObjectId], void: bool) -> None:
    """Takes constraints out of force, or puts them back."""
    for some in batches(list(ids)):
        await collections.links.update_many({"_id": {"$in": list(some)}}, {"$set": {"void": void}})
