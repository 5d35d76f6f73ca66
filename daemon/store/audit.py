"""The `enrichd_audit` collection: every decision of a person, with what it changed, so that it can be undone."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo import ASCENDING, DESCENDING, IndexModel

from daemon.store.collections import Collections, Document

INDEXES = (
    IndexModel([("at", DESCENDING)]),
    IndexModel([("identities", ASCENDING)]),
)


def entry(action: str, now: datetime, identities: Sequence[ObjectId], **fields: Any) -> Document:
    """A new entry. `identities` are those that the decision is about."""
    return {
        "_id": ObjectId(),
        "action": action,
        "at": now,
        "identities": list(identities),
        "faces": [],
        "identity_changes": [],
        "links_made": [],
        "links_voided": [],
        "undone_at": None,
        **fields,
    }


async def insert(collections: Collections, document: Document) -> ObjectId:
    """Stores an entry; returns its id."""
    await collections.audit.insert_one(document)
    id: ObjectId = document["_id"]
    return id


async def note_name(
    collections: Collections, identity: ObjectId, before: str | None, after: str | None, since: datetime | None
) -> None:
    """Stores that somebody gave an identity a name in the database itself. The entry's id follows from what changed
    and from `since`, when the identity changed before that, so that daemons who see it together store it once."""
    seen = repr((identity, before, after, since)).encode()
    change = {"identity": identity, "before": {"name": before}, "after": {"name": after}}
    document = entry("name", datetime.now(UTC), [identity], identity_changes=[change])
    document["_id"] = ObjectId(hashlib.sha256(seen).digest()[:12])
    await collections.audit.update_one({"_id": document.pop("_id")}, {"$setOnInsert": document}, upsert=True)


async def history(collections: Collections, identity: ObjectId | None = None, limit: int = 50) -> list[Document]:
    """The latest entries, newest first; only those about `identity` where it is given."""
    query = {} if identity is None else {"identities": identity}
    cursor = collections.audit.find(query).sort([("at", DESCENDING), ("_id", DESCENDING)]).limit(limit)
    return [document async for document in cursor]


async def get(collections: Collections, id: ObjectId) -> Document | None:
    """One entry."""
    return await collections.audit.find_one({"_id": id})
