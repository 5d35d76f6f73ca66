"""Promise 11: several daemons share a collection evenly, take over from the dead, and never undo each other's work."""

import asyncio
import signal
import time
from collections import Counter

import pytest

from daemon.clock import utc_now
from daemon.plan import Plan, Step
from daemon.store.leases import LeaseStore
from daemon.store.state import State
from tests.faults.conftest import World

pytestmark = pytest.mark.integration


async def owners(world: World) -> Counter[str | None]:
    return Counter(bucket.owner for bucket in (await LeaseStore(world.collections).table()).buckets)


async def shared_by(world: World, members: int, timeout_s: float) -> float:
    """Waits until the buckets are shared evenly among so many; the seconds that took."""
    started = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while True:
            found = await owners(world)
            counts = [count for owner, count in found.items() if owner is not None]
            if len(found) == len(counts) == members and max(counts) - min(counts) <= 1:
                return time.monotonic() - started
            await asyncio.sleep(0.1)


@pytest.mark.timeout(600)
async def test_promise_11_two_daemons_share_and_one_dies(world: World) -> None:
    first, second = await world.started("first"), await world.started("second")
    await shared_by(world, 2, 60)
    await world.insert(200, chunk=20)
    await world.complete(200, 120)
    assert set(world.calls().values()) == {1}, "each image is processed once"
    pids = Counter(line.split()[3] for line in world.calls_log.read_text().splitlines() if "standin" in line)
    assert len(pids) == 2 and min(pids.values()) > 50, "by both alike"

    first.kill()
    await world.insert(50, first=200)
    assert await shared_by(world, 1, 30) < 15
    await world.complete(250, 90)
    assert (await LeaseStore(world.collections).table()).singletons.keys() == {"verify", "recluster"}
    await second.stop()
    assert await world.violations() == []


@pytest.mark.timeout(600)
async def test_promise_11_a_paused_daemon_does_no_harm(world: World) -> None:
    slow = {"enrichers": {"enabled": ["standin", "follower", "faces"], "standin": {"ms": 30.0}}}
    first, second = await world.started("first", **slow), await world.started("second", **slow)
    await shared_by(world, 2, 60)
    await world.insert(60, chunk=60)
    await asyncio.sleep(1)
    first.signal(signal.SIGSTOP)  # in the middle of its work; only its lease tells the other
    assert await shared_by(world, 1, 30) < 20
    await world.complete(60, 120)
    for n in range(0, 60, 3):  # what the paused one still has in hand is about the pictures of before
        await world.images.update_one({"_id": n}, {"$set": {"source": world.paint(f"{n}.png", (n, 3, 3))}})
    await world.settled({"enrichment.source_ref": {"$regex": "png$"}}, 20)
    first.signal(signal.SIGCONT)
    await first.says("joining anew")
    await shared_by(world, 2, 60)
    await asyncio.sleep(3)
    await world.complete(60)
    await asyncio.gather(first.stop(), second.stop())
    assert await world.violations() == []


async def test_promise_11_a_daemon_stops_when_another_plan_is_activated(world: World) -> None:
    daemon = await world.started()
    await world.insert(5)
    await world.complete(5)
    await State(world.collections).activate(Plan((Step("standin", "0" * 16),)), utc_now())
    assert await daemon.ended(30) == 1
    assert "Another plan was activated" in daemon.text() and "changed: standin" in daemon.text()
