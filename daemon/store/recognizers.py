"""Trained recognizers in `enrichd_state`: plain numbers and base64, nothing that has to be unpickled."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId

from daemon.store.collections import Collections, Document

KIND = "recognition"


def id_of(label: str) -> str:
    return f"{KIND}:{label}"


async def put(
    collections: Collections, label: str, recognizer: Mapping[str, Any], identities: Sequence[ObjectId], now: datetime
) -> None:
    """Stores the recognizer of a label, and whose faces it learned from."""
    document = {"_id": id_of(label), "kind": KIND, "at": now, "identities": list(identities), **recognizer}
    await collections.state.replace_one({"_id": id_of(label)}, document, upsert=True)


async def get(collections: Collections, label: str) -> Document | None:
    """The stored recognizer of a label."""
    return await collections.state.find_one({"_id": id_of(label)})


async def stored_at(collections: Collections, label: str) -> datetime | None:
    """When the recognizer of a label was stored; None without one."""
    document = await collections.state.find_one({"_id": id_of(label)}, {"at": 1})
    return document["at"] if document else None
