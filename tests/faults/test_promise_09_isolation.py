"""Promise 9: an image that crashes, hangs or eats all memory is set aside, and its batch companions finish.
Promise 10: a batch that does not fit on the device is halved, and the size that fits is remembered."""

import pytest

from tests.faults.conftest import World
from tests.plugin import standins

pytestmark = pytest.mark.integration


@pytest.mark.timeout(600)
async def test_promise_09_bad_images_are_found_out_alone(world: World) -> None:
    daemon = await world.started(
        pipeline={**world.config().pipeline.model_dump(), "task_timeout_s": 5, "task_memory_mb": 512}
    )
    bad = {"crash": standins.CRASHES, "hang": standins.HANGS, "eat": standins.EATS}
    documents = [{"_id": name, "source": world.paint(f"{name}.png", colour)} for name, colour in bad.items()]
    documents += [{"_id": n, "source": world.paint(f"{n}.png", (n, 1, 1))} for n in range(20)]
    await world.images.insert_many(documents)
    await world.complete(20, 180)
    await world.settled({"enrichment.state": "partial"}, 3, 180)
    why = {d["_id"]: d["enrichments"]["standin"]["run"] async for d in world.images.find({"_id": {"$in": [*bad]}})}
    assert all(run["error"]["type"] == "WorkerCrashed" and "next_attempt_at" not in run for run in why.values())
    assert "SIGSEGV" in why["crash"]["error"]["message"]
    assert "no answer within" in why["hang"]["error"]["message"]
    assert "pipeline.task_memory_mb" in why["eat"]["error"]["message"]
    await daemon.stop()
    assert await world.violations() == []


async def test_promise_10_out_of_memory_halves_the_batch_once(world: World) -> None:
    settings = {"enabled": ["standin"], "standin": {"log": str(world.calls_log), "fits": 4}}
    daemon = await world.started(enrichers=settings)
    await world.insert(64, chunk=64)
    await world.complete(64)
    await daemon.stop()
    sizes = [int(line.split()[2]) for line in world.calls_log.read_text().splitlines()]
    assert max(sizes) > 4, "a batch that did not fit was tried"
    first = next(n for n, size in enumerate(sizes) if size <= 4)
    assert max(sizes[first:]) <= 4, "and none after the size that fits was known"
    assert await world.violations() == []
