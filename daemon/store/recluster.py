"""What is remembered from one recluster to the next, in `enrichd_state`."""

from daemon.store.collections import Collections, Document

ID = "recluster"


async def get(collections: Collections) -> Document | None:
    """What the last recluster left: `basis`, `faces` at the last full one, `added` since; None before the first."""
    return await collections.state.find_one({"_id": ID})


async def put(collections: Collections, state: Document) -> None:
    """Remembers it."""
    await collections.state.replace_one({"_id": ID}, {**state, "_id": ID}, upsert=True)
