"""Promise 5: the collection may be missing, dropped or renamed, and its database dropped; the daemon waits for it."""

import asyncio

import pytest
from pymongo import AsyncMongoClient

from tests.faults.conftest import World

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("fate", ["missing", "dropped", "renamed", "database"])
async def test_promise_05_the_collection_comes_and_goes(world: World, fate: str) -> None:
    daemon = await world.started()
    database = world.collections.database
    client: AsyncMongoClient[object] = database.client
    if fate == "missing":
        await world.images.drop()  # the migration made it with its indexes
    else:
        await world.insert(5)
        await world.complete(5)
    match fate:
        case "dropped":
            await world.images.drop()
        case "renamed":
            await world.images.rename("elsewhere")
        case "database":
            await client.drop_database(database.name)
    await daemon.says("the change stream ended|history lost|another plan|joining anew")
    await world.insert(7, first=100)
    await world.complete(7, 90)
    assert daemon.running
    await world.settled({"_id": {"$gte": 100}}, 7)
    async with asyncio.timeout(30):  # the sweep's index is there again with the next sweep
        while "enrichment.plan_1" not in {name async for name in _index_names(world)}:
            await asyncio.sleep(0.2)
    await daemon.says("the verifying sweep read")
    await daemon.stop()
    assert await world.violations() == []


async def _index_names(world: World):  # type: ignore[no-untyped-def]
    async for index in await world.images.list_indexes():
        yield index["name"]
