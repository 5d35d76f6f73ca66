"""Promise 8: transient faults are tried again, permanent ones are not, and people can ask for both."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import PLUGINS, ROOT, DaemonProcess, World
from tests.plugin import standins

pytestmark = pytest.mark.integration


async def enrichd(daemon: DaemonProcess, *arguments: str) -> str:
    """What a command prints that uses the daemon's configuration."""
    path = os.pathsep.join([*map(str, PLUGINS), str(ROOT)])
    command = [str(Path(sys.executable).parent / "enrichd"), *arguments, "--config", str(daemon.file)]
    environment = {**os.environ, "PYTHONPATH": path}
    done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_promise_08_failures_are_told_and_requeued(world: World) -> None:
    daemon = await world.started()
    await world.images.insert_many(
        [
            {"_id": "permanent", "source": world.paint("yellow.png", standins.FAILS)},
            {"_id": "transient", "source": world.paint("cyan.png", standins.FLAKY)},
            {"_id": "not an image", "source": b"just text"},
            {"_id": "away", "source": "comes-later.png"},
            {"_id": "good", "source": world.paint("good.png")},
        ]
    )
    await world.settled({"enrichments.standin.run.attempts": 3, "_id": "transient"}, 1)
    await world.settled({"enrichment.state": {"$in": ["partial", "unreadable"]}}, 4)
    found = {document["_id"]: document async for document in world.images.find({})}
    assert found["good"]["enrichment"]["state"] == "complete"
    assert found["permanent"]["enrichments"]["standin"]["run"]["attempts"] == 1
    assert found["permanent"]["enrichments"]["faces"]["run"]["state"] == "done", "the others of the document go on"
    assert all("next_attempt_at" not in document["enrichment"] for document in found.values()), "no attempt is left"

    told = json.loads(await enrichd(daemon, "failures", "--json"))
    kinds = {(entry["_id"], entry["type"]) for entry in told}
    assert {("permanent", "Yellow"), ("transient", "Cyan"), ("away", "SourceMissing")} <= kinds

    world.paint("comes-later.png")
    world.paint("yellow.png", (1, 2, 3))
    await enrichd(daemon, "retry")
    await world.settled({"_id": {"$in": ["away", "permanent"]}, "enrichment.state": "complete"}, 2)
    await daemon.stop()
    assert await world.violations() == []
