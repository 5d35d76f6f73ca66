"""Promise 13: health that tells the truth, and metrics that show what happens."""

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.faults.conftest import DaemonProcess, World
from tests.faults.test_promise_08_retries import enrichd

pytestmark = pytest.mark.integration


async def ask(daemon: DaemonProcess, target: str) -> tuple[int, str]:
    url = (await daemon.says(r"health and metrics at (\S+)"))[1]

    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url + target, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(get)


def find_checks(told: Any) -> list[Any]:
    return told if isinstance(told, list) else next(value for value in told.values() if isinstance(value, list))


async def failing(daemon: DaemonProcess) -> set[str]:
    _, body = await ask(daemon, "/readyz")
    return {check["name"] for check in json.loads(body)["checks"] if not check["ok"]}


async def until_failing(daemon: DaemonProcess, wanted: set[str], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while (found := await failing(daemon)) != wanted:
            print(found)
            await asyncio.sleep(0.5)


async def test_promise_13_the_endpoint_tells_the_truth(world: World) -> None:
    daemon = await world.started()
    await world.insert(20)
    await world.complete(20)
    await until_failing(daemon, set())
    assert (await ask(daemon, "/livez"))[0] == 200 and (await ask(daemon, "/readyz"))[0] == 200

    _, metrics = await ask(daemon, "/metrics")
    assert 'enrichd_images_total{written="written"} 20' in metrics
    assert 'enrichd_enricher_images_total{enricher="standin",outcome="done"} 20' in metrics
    assert "enrichd_queue_documents 0" in metrics and "enrichd_ready 1" in metrics

    told = json.loads(await enrichd(daemon, "doctor", "--json"))
    assert [entry["state"] for entry in find_checks(told) if entry["check"] == f"daemon {daemon.pid}"] == ["ok"]

    world.proxy.black_hole()  # nobody is told; only silence shows it
    await until_failing(daemon, {"tail", "lease"}, 90)
    assert (await ask(daemon, "/readyz"))[0] == 503
    assert (await ask(daemon, "/livez"))[0] == 200, "restarting it would not help"
    world.proxy.restore()
    world.proxy.cut()
    await until_failing(daemon, set(), 90)


async def test_promise_13_a_dead_worker_is_told_and_replaced(world: World) -> None:
    daemon = await world.started()
    children = [
        int(pid)
        for pid in (open(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read().split())  # noqa: ASYNC230, SIM115
    ]
    workers = [pid for pid in children if b"spawn_main" in open(f"/proc/{pid}/cmdline", "rb").read()]  # noqa: ASYNC230, SIM115
    assert len(workers) == 2, "one that decodes, one that infers"
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    await until_failing(daemon, {"workers"}, 10)
    await until_failing(daemon, set())  # though no image came that would have needed them
    await world.insert(5)
    await world.complete(5)
