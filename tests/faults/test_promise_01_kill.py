"""Promise 1: killed at any moment, again and again, the daemon loses nothing and repeats only what was in flight."""

import asyncio
import os
import random

import pytest

from tests.faults.conftest import World

pytestmark = pytest.mark.integration

#: kills and images of the default run; `make soak` and the acceptance run use 50 and 2,000
KILLS = int(os.environ.get("ENRICHD_EVAL_KILLS", "4"))
IMAGES = int(os.environ.get("ENRICHD_EVAL_KILL_IMAGES", "300"))
SEED = int(os.environ.get("ENRICHD_EVAL_SEED", "1"))


@pytest.mark.timeout(3600)
async def test_promise_01_killed_again_and_again(world: World) -> None:
    print("seed", SEED)
    chance = random.Random(SEED)
    slow = {"standin": {"log": str(world.calls_log), "ms": 5.0}, "faces": {"log": str(world.calls_log)}}
    daemon = world.daemon(enrichers={"enabled": ["standin", "follower", "faces"], **slow})
    inserting = asyncio.create_task(world.insert(IMAGES, chunk=20))
    for number in range(KILLS):
        daemon.start()
        if number % 4:  # one in four dies while it starts
            await daemon.ready()
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        assert daemon.running, daemon.text()
        daemon.kill()
    await inserting
    daemon.start()
    await world.complete(IMAGES, 600)
    await daemon.stop()

    assert await world.violations() == []
    in_flight = daemon.config.pipeline.in_flight
    for enricher in ("standin", "faces"):
        calls = world.calls(enricher)
        assert len(calls) == IMAGES
        repeated = sum(calls.values()) - IMAGES
        print(f"{enricher}: {repeated} of {sum(calls.values())} calls were repetitions, over {KILLS} kills")
        assert repeated <= KILLS * in_flight, "no finished call is repeated beyond the batches in flight"
