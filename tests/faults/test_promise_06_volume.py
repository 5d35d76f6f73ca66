"""Promise 6: large documents, large events, large inserts and a busy collection cost no memory and no lag."""

import asyncio
import time

import pytest
from pymongo import UpdateOne

from daemon.inference import resident_bytes
from tests.faults.conftest import World, picture
from tests.faults.test_promise_13_health import ask

pytestmark = pytest.mark.integration


def value(metrics: str, name: str) -> float:
    return float(next(line for line in metrics.splitlines() if line.startswith(f"{name} ")).split()[1])


@pytest.mark.timeout(600)
async def test_promise_06_ten_thousand_at_once_and_a_busy_collection(world: World) -> None:
    daemon = await world.started(pipeline={**world.config().pipeline.model_dump(), "queue": 1000})
    await world.insert(50, first=90_000)
    await world.complete(50)
    before = resident_bytes(daemon.pid) or 0
    await world.images.insert_many([{"_id": n, "album": "no image yet"} for n in range(10_000)])
    await world.images.insert_one({"_id": "last", "source": picture(1)})
    await world.settled({"_id": "last", "enrichment.state": "complete"}, 1, 120)
    grown = (resident_bytes(daemon.pid) or 0) - before
    assert grown < 100 << 20, f"{grown >> 20} MB more"

    _, metrics = await ask(daemon, "/metrics")
    done = value(metrics, 'enrichd_images_total{written="written"}')
    started = time.monotonic()
    for second in range(5):  # a thousand updates a second of what is none of our business
        await world.images.bulk_write(
            [UpdateOne({"_id": 90_000 + n % 50}, {"$inc": {"views": 1}}) for n in range(1000)], ordered=False
        )
        await asyncio.sleep(max(0.0, started + second + 1 - time.monotonic()))
    _, metrics = await ask(daemon, "/metrics")
    assert value(metrics, 'enrichd_images_total{written="written"}') == done, "not one of them was looked at"
    assert value(metrics, "enrichd_lag_seconds") < 5
    await daemon.stop()
    assert await world.violations() == []


async def test_promise_06_documents_and_events_of_sixteen_megabytes(world: World) -> None:
    daemon = await world.started()
    large = "x" * (15 << 20)
    await world.images.insert_one({"_id": 1, "source": picture(1), "filler": large})
    await world.complete(1)
    # before and after of this one are more than 16 MB together
    await world.images.replace_one({"_id": 1}, {"source": picture(2), "filler": large[::-1]})
    await world.insert(3, first=10)
    await world.complete(4, 90)
    assert len(world.calls()) == 5
    await daemon.stop()
    assert await world.violations() == []
