"""What the server lets through of the changes of a collection."""

from typing import Any

from bson import ObjectId

from daemon.clock import utc_now
from daemon.store.collections import Collections
from daemon.watch import stream_pipeline


async def test_only_what_others_change_comes_through(collections: Collections) -> None:
    images = collections.images
    await images.insert_many([{"_id": n, "source": {"path": f"{n}.jpg"}} for n in range(3)])
    result = {
        "enrichments.noop": {"run": {"state": "done"}},
        "enrichment.state": "complete",
        "enrichment.at": utc_now(),
    }
    came: list[tuple[str, Any]] = []
    async with await images.watch(stream_pipeline("source.path"), max_await_time_ms=100) as stream:
        await images.update_one({"_id": 0}, {"$set": result, "$unset": {"enrichment.refused": ""}})  # a first result
        await images.update_one({"_id": 0}, {"$set": result | {"enrichment.at": utc_now()}})  # one more
        await images.update_one({"_id": 1}, {"$set": {"enrichment.requested.noop": ObjectId()}})  # before any result
        await images.update_one({"_id": 0}, {"$set": {"enrichment.requested": {"noop": ObjectId()}}})
        await images.update_one({"_id": 2}, {"$set": {"album": "pets"}})
        await images.update_one({"_id": 2}, {"$set": {"sources": 1, "source.pathetic": 1, "other.source.path": 1}})
        await images.update_one({"_id": 2}, {"$set": {"source.path": "other.jpg"}})
        await images.update_one({"_id": 2}, {"$set": {"source.path": {"deep": 1}}})
        await images.update_one({"_id": 2}, {"$set": {"source.path.deep": 2}})
        await images.update_one({"_id": 2}, {"$set": {"source": {"path": "whole.jpg"}}})
        await images.update_one({"_id": 2}, {"$unset": {"source.path": ""}})
        await images.delete_one({"_id": 2})
        while (change := await stream.try_next()) is not None or not came or came[-1][0] != "delete":
            if change is not None:
                came.append((change["operationType"], change["documentKey"]["_id"]))
    assert came == [("update", 1), ("update", 0), *[("update", 2)] * 5, ("delete", 2)]
