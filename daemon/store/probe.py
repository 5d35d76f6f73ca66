"""Tries what the daemon has to do in the database, on nothing of the user's."""

from collections.abc import Awaitable, Callable

from pymongo.errors import OperationFailure

from daemon.connection import UNAUTHORIZED
from daemon.store.collections import Collections
from daemon.store.images import ENRICHMENT


async def try_privileges(collections: Collections, name: str) -> list[str]:
    """What the server refuses the user to do, in words. `name`: an id that no document has."""
    images, state = collections.images, collections.state

    async def watch() -> None:
        async with await images.watch([], max_await_time_ms=1) as stream:
            await stream.try_next()

    trials: dict[str, Callable[[], Awaitable[object]]] = {
        "read the images": lambda: images.find_one({"_id": name}),
        "write the images": lambda: images.update_one({"_id": name}, {"$set": {f"{ENRICHMENT}.state": "complete"}}),
        "watch the images": watch,
        "read the indexes of the images": lambda: images.list_indexes(),
        "write enrichd's own collections": lambda: state.update_one({"_id": name}, {"$set": {"at": None}}, upsert=True),
        "delete from enrichd's own collections": lambda: state.delete_one({"_id": name}),
    }
    refused = []
    for what, trial in trials.items():
        try:
            await trial()
        except OperationFailure as error:
            if error.code == UNAUTHORIZED:
                refused.append(what)
    return refused
