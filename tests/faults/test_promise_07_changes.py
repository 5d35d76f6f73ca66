"""Promise 7: the newer image wins, and what is deleted stays deleted, with its faces."""

import asyncio

import pytest

from tests.faults.conftest import World, picture

pytestmark = pytest.mark.integration


def slow(world: World, ms: float) -> dict[str, dict[str, object]]:
    names = ["standin", "follower", "faces"]
    return {"enrichers": {"enabled": names, "standin": {"ms": ms}, "faces": {"log": str(world.calls_log)}}}


async def test_promise_07_the_image_changes_while_it_is_processed(world: World) -> None:
    daemon = await world.started(**slow(world, 2500.0))
    world.paint("old.png", (10, 10, 10), (40, 20))  # two faces
    world.paint("new.png", (50, 50, 50), (20, 40))  # one
    await world.images.insert_one({"_id": 1, "source": "old.png"})
    async with asyncio.timeout(30):  # until the first one is being worked on
        while not world.calls("faces"):
            await asyncio.sleep(0.05)
    await world.images.update_one({"_id": 1}, {"$set": {"source": "new.png"}})
    await world.settled({"_id": 1, "enrichment.state": "complete"}, 1)
    document = await world.images.find_one({"_id": 1})
    assert document["enrichment"]["source_ref"] == "new.png", "the older result was never written"
    assert document["enrichments"]["standin"]["mean"] == [50.0] * 3
    await daemon.stop()
    assert await world.collections.faces.count_documents({}) == 1
    assert await world.violations() == []


async def test_promise_07_deleted_while_processed_and_while_no_daemon_runs(world: World) -> None:
    daemon = await world.started(**slow(world, 300.0))
    same = picture(1)  # one person on all of them
    await world.images.insert_many([{"_id": n, "source": same} for n in range(12)])
    async with asyncio.timeout(60):
        while await world.collections.faces.count_documents({}) < 1:
            await asyncio.sleep(0.02)
    await world.images.delete_many({"_id": {"$gte": 10}})
    await world.complete(10)
    await daemon.stop()
    assert await world.violations() == []
    people = [person async for person in world.collections.identities.find({})]
    assert [(person["face_count"], person["image_count"]) for person in people] == [(10, 10)]

    await world.images.delete_many({"_id": {"$gte": 7}})
    daemon.start()
    await daemon.ready()
    async with asyncio.timeout(60):
        while await world.collections.faces.count_documents({}) > 7:
            await asyncio.sleep(0.1)
    await daemon.stop()
    assert await world.images.count_documents({}) == 7, "no document is resurrected"
    assert await world.violations() == []
    people = [person async for person in world.collections.identities.find({})]
    assert [(person["face_count"], person["image_count"]) for person in people] == [(7, 7)]
