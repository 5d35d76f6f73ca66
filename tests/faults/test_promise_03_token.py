"""Promises 3 and 4: the resume token is saved only behind safe work, and a history that is lost is swept for."""

import asyncio
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from daemon.store.leases import LeaseStore
from daemon.watch import NOT_RESUMABLE, SAVE_INTERVAL_S
from tests.faults.conftest import World

pytestmark = pytest.mark.integration


async def saved_token(world: World) -> Any:
    """The token of the one daemon that runs, else that which it left for the next."""
    store = LeaseStore(world.collections)
    members = await store.members()
    return members[0].token if members else (await store.table()).buckets[0].token


async def changed(world: World, before: Any, timeout_s: float = 30) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            while await saved_token(world) == before:
                await asyncio.sleep(0.2)
    except TimeoutError:
        return False
    return True


async def test_promise_03_the_token_waits_for_the_work_before_it(world: World) -> None:
    slow = {"enrichers": {"enabled": ["standin"], "standin": {"log": str(world.calls_log), "ms": 8000.0}}}
    daemon = await world.started(**slow)
    assert await saved_token(world) is not None, "where the stream was opened"
    await world.insert(1)
    async with asyncio.timeout(30):
        while not world.calls_log.exists():  # the event has come; until then the token may move up to it
            await asyncio.sleep(0.05)
    await asyncio.sleep(2 * SAVE_INTERVAL_S)
    before = await saved_token(world)
    assert not await changed(world, before, 3), "the image is still worked on"
    await world.complete(1)
    assert await changed(world, before)
    await daemon.stop()


async def test_promise_03_the_token_advances_while_the_collection_is_quiet(world: World) -> None:
    daemon = await world.started()
    await asyncio.sleep(2)
    before = await saved_token(world)
    others = world.collections.database["others"]
    async with asyncio.timeout(60):
        while await saved_token(world) == before:
            await others.insert_one({})  # another collection's changes, and the server's idle entries every ten seconds
            await asyncio.sleep(0.5)
    await daemon.stop()


async def test_promise_04_errors_that_cannot_be_resumed_are_swept_for(world: World) -> None:
    daemon = await world.started()
    faults: list[dict[str, Any]] = [{"errorCode": code} for code in sorted(NOT_RESUMABLE)]
    faults.append({"errorCode": 8000, "errorLabels": ["NonResumableChangeStreamError"]})
    for number, fault in enumerate(faults):
        lost = daemon.text().count("history lost")
        await world.fail("getMore", times=2, **fault)  # the stream of the identities takes one of them
        await daemon.says(rf"(?s)(history lost.*?){{{lost + 1}}}the verifying sweep read")
        await world.insert(2, first=2 * number)
        await world.complete(2 * number + 2)
    assert daemon.text().count("history lost") <= 2 * len(faults), "a token that was refused is not used again"
    await daemon.stop()
    assert await world.violations() == []


@pytest.mark.server("--oplog-max-entries", "200")
async def test_promise_04_what_changed_in_a_lost_history_is_found(world: World) -> None:
    daemon = await world.started()
    await world.insert(20)
    await world.complete(20)
    await daemon.stop()
    await world.images.update_one({"_id": 3}, {"$set": {"source": world.paint("other.png", (7, 7, 7))}})
    await world.images.delete_one({"_id": 4})
    await world.insert(5, first=20)
    client: AsyncMongoClient[Any] = world.collections.database.client
    await client["elsewhere"]["noise"].insert_many([{"n": n} for n in range(1000)])

    daemon.start()
    await daemon.says("history lost")
    await world.complete(24)
    await world.settled({"_id": 3, "enrichment.source_ref": "other.png"}, 1)
    await daemon.says(r"the verifying sweep read \d+ documents")
    await daemon.stop()
    assert await world.collections.faces.count_documents({"image._id": 4}) == 0, "the delete was in the gap too"
    assert await world.violations() == []
