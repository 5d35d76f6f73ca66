"""Random faults for as long as asked: `make soak`. ENRICHD_EVAL_SEED repeats the faults of a run."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter

import pytest
from pymongo.errors import PyMongoError

from tests.faults.conftest import DaemonProcess, World, picture

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
SEED = int(os.environ.get("ENRICHD_EVAL_SEED") or random.randrange(10_000))

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(SECONDS + 1200),
    pytest.mark.skipif(not SECONDS, reason="SOAK_SECONDS is not set"),
]

#: documents that wait at most before people change more
BACKLOG = 200
SLOW = {"enabled": ["standin", "follower", "faces"], "standin": {"ms": 5.0}}


class Soak:
    """Two daemons, people who insert, change and delete, and a fault every few seconds."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.daemons = [world.daemon("first", enrichers=SLOW), world.daemon("second", enrichers=SLOW)]
        self.faults: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.next = 0
        self.started = 0

    def start(self, daemon: DaemonProcess) -> None:
        daemon.start()
        self.started += 1

    async def people(self, until: float) -> None:
        while time.monotonic() < until:
            try:
                waiting = self.world.images.count_documents({"enrichment.plan": None})
                if await waiting < BACKLOG:  # a busy machine would else work on it long after the last fault
                    await self._change()
            except PyMongoError:  # the server is down just now
                self.changes["refused"] += 1
            await asyncio.sleep(self.chance.uniform(0.0, 0.6))

    async def _change(self) -> None:
        images = self.world.images
        match self.chance.choice(["insert"] * 3 + ["change", "replace", "delete", "request", "other"]):
            case "insert":
                count = self.chance.randint(1, 20)
                first, self.next = self.next, self.next + count
                await images.insert_many([{"_id": n, "source": picture(n)} for n in range(first, self.next)])
                self.changes["inserted"] += count
            case "change":
                change = {"$set": {"source": picture(self.chance.randrange(10**6, 10**7))}}
                self.changes["changed"] += (await images.update_one({"_id": self._any()}, change)).modified_count
            case "replace":
                new = {"source": picture(self.chance.randrange(10**6, 10**7)), "album": "new"}
                self.changes["replaced"] += (await images.replace_one({"_id": self._any()}, new)).modified_count
            case "delete":
                self.changes["deleted"] += (await images.delete_one({"_id": self._any()})).deleted_count
            case "request":
                token = {"$set": {"enrichment.requested.standin": self.chance.random()}}
                self.changes["requested"] += (await images.update_one({"_id": self._any()}, token)).modified_count
            case "other":
                await images.update_many({"_id": {"$lt": 100}}, {"$inc": {"views": 1}})

    def _any(self) -> int:
        return self.chance.randrange(max(1, self.next))

    async def fault(self) -> None:
        daemon = self.chance.choice(self.daemons)
        kind = self.chance.choice(
            ["kill", "kill", "term", "pause", "cut", "slow", "black hole", "errors", "worker", "server"]
        )
        self.faults[kind] += 1
        match kind:
            case "kill":
                daemon.kill()
            case "term":
                await daemon.stop(90)
            case "pause":
                if daemon.running:
                    daemon.signal(signal.SIGSTOP)
                    await asyncio.sleep(self.chance.uniform(1, 16))
                    daemon.signal(signal.SIGCONT)
            case "cut":
                self.world.proxy.cut()
            case "slow":
                self.world.proxy.delay_s = 0.1
                await asyncio.sleep(self.chance.uniform(1, 5))
                self.world.proxy.restore()
            case "black hole":
                self.world.proxy.black_hole()
                await asyncio.sleep(self.chance.uniform(1, 12))
                self.world.proxy.cut()
                self.world.proxy.restore()
            case "errors":
                commands = self.chance.choice([["update"], ["find"], ["getMore"], ["aggregate", "delete"]])
                code = self.chance.choice([91, 10107, 11602, 50, 286 if commands == ["getMore"] else 189])
                await self.world.fail(*commands, times=self.chance.randint(1, 6), errorCode=code)
            case "server":
                self.world.server.kill()
                await asyncio.sleep(self.chance.uniform(0, 5))
                await asyncio.to_thread(self.world.server.start)
            case "worker":
                if daemon.running and (workers := children(daemon.pid)):
                    os.kill(self.chance.choice(workers), signal.SIGKILL)
        for each in self.daemons:
            if not each.running:
                self.start(each)


def children(pid: int) -> list[int]:
    """The worker processes of a daemon."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            found = [int(child) for child in file.read().split()]
    except OSError:
        return []
    workers = []
    for child in found:
        try:
            with open(f"/proc/{child}/cmdline", "rb") as file:
                if b"spawn_main" in file.read():
                    workers.append(child)
        except OSError:
            continue
    return workers


async def test_soak_random_faults(world: World) -> None:
    print(f"\nseed {SEED}, {SECONDS:.0f} s")
    soak = Soak(world, random.Random(SEED))
    for daemon in soak.daemons:
        soak.start(daemon)
    until = time.monotonic() + SECONDS
    people = asyncio.create_task(soak.people(until))
    while time.monotonic() < until:
        await asyncio.sleep(soak.chance.uniform(1, 8))
        await soak.fault()
    await people
    world.proxy.restore()
    await world.collections.database.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
    left = await world.images.count_documents({})
    began = time.monotonic()
    done = -1
    while (now_done := await world.images.count_documents({"enrichment.state": "complete"})) < left:
        assert now_done != done, f"{done} of {left} documents are complete, and none more in a minute"
        done = now_done
        with contextlib.suppress(AssertionError):
            await world.complete(left, 60)
    print(f"documents: {left}; people: {dict(soak.changes)}; faults: {dict(soak.faults)}; daemons: {soak.started}")
    print(f"complete {time.monotonic() - began:.1f} s after the last fault")
    await soak.daemons[0].says(r"ready|joined", 60)
    deadline = time.monotonic() + 60
    while (found := await world.violations()) and time.monotonic() < deadline:
        await asyncio.sleep(2)  # what people changed last is still being looked at
    assert found == []
    for daemon in soak.daemons:
        assert await daemon.stop(90) == 0, daemon.text()[-3000:]
    assert await world.violations() == []
    print("verify: nothing lost, stale, duplicated or orphaned")
