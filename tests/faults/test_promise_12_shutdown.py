"""Promise 12: the daemon stops within a bounded time, with its work finished or given back."""

import time

import pytest

from tests.faults.conftest import World

pytestmark = pytest.mark.integration


async def test_promise_12_images_in_flight_finish_and_none_is_repeated(world: World) -> None:
    slow = {"enabled": ["standin"], "standin": {"log": str(world.calls_log), "ms": 50.0}}
    daemon = await world.started(enrichers=slow)
    await world.insert(100, chunk=100)
    await world.settled({"enrichment.state": "complete"}, 16)
    started = time.monotonic()
    assert await daemon.stop() == 0
    assert time.monotonic() - started < 40
    assert "stopped" in daemon.text() and "did not finish" not in daemon.text()
    done = await world.images.count_documents({"enrichment.state": "complete"})
    assert len(world.calls()) == done, "what was begun is written"
    daemon.start()
    await world.complete(100)
    await daemon.stop()
    assert set(world.calls().values()) == {1}
    assert await world.violations() == []


@pytest.mark.parametrize("fault", ["hanging image", "silent database"])
async def test_promise_12_the_time_is_bounded_whatever_hangs(world: World, fault: str) -> None:
    slow = {"enabled": ["standin"], "standin": {"ms": 200_000.0 if fault == "hanging image" else 0.0}}
    pipeline = {**world.config().pipeline.model_dump(), "task_timeout_s": 300, "stop_timeout_s": 5}
    daemon = await world.started(enrichers=slow, pipeline=pipeline)
    await world.insert(3)
    if fault == "silent database":
        await world.complete(3)
        world.proxy.black_hole()
    started = time.monotonic()
    assert await daemon.stop(90) == 0
    assert time.monotonic() - started < 45
    world.proxy.restore()
