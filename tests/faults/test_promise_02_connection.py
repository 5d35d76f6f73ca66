"""Promise 2: whatever becomes of the server or the connection, the daemon goes on by itself."""

import asyncio
import re
from typing import Any

import pytest

from tests.faults.conftest import World

pytestmark = pytest.mark.integration


async def test_promise_02_the_server_is_killed_and_restarted(world: World) -> None:
    daemon = await world.started()
    await world.insert(60)
    await asyncio.sleep(0.5)
    world.server.kill()
    await asyncio.sleep(6)
    assert daemon.running
    world.server.start()
    await world.complete(60, 120)
    assert daemon.running
    assert 1 <= len(re.findall("WARNING", daemon.text())) <= 40, "it tries again, and does not spin"
    await world.insert(5, first=60)
    await world.complete(65)
    await daemon.stop()
    assert await world.violations() == []


@pytest.mark.timeout(600)
async def test_promise_02_the_connection_is_cut_and_slow(world: World) -> None:
    daemon = await world.started()
    inserting = asyncio.create_task(world.insert(200, chunk=10))
    for _ in range(10):
        await asyncio.sleep(0.4)
        world.proxy.cut()
    world.proxy.refusing = True
    await asyncio.sleep(3)
    world.proxy.restore()
    world.proxy.delay_s = 0.05
    await inserting
    await world.complete(200, 120)
    assert daemon.running
    await daemon.stop()
    assert await world.violations() == []


FAULTS: list[tuple[list[str], dict[str, Any]]] = [
    (["update"], {"errorCode": 10107}),  # NotWritablePrimary: the primary stepped down
    (["update"], {"errorCode": 11602}),  # InterruptedDueToReplStateChange
    (["update"], {"errorCode": 50}),  # MaxTimeMSExpired: the write timed out
    (["update"], {"closeConnection": True}),
    (["update"], {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}),
    (["find", "getMore", "aggregate"], {"errorCode": 91}),  # ShutdownInProgress
    (["find", "getMore", "aggregate"], {"closeConnection": True}),
]


async def test_promise_02_errors_that_pass_set_nothing_aside(world: World) -> None:
    daemon = await world.started()
    for number, (commands, fault) in enumerate(FAULTS):
        await world.fail(*commands, times=6, **fault)
        await world.insert(10, first=10 * number)
        await world.complete(10 * number + 10, 90)
    assert await world.collections.failures.count_documents({}) == 0
    assert daemon.running
    await daemon.stop()
    assert await world.violations() == []
