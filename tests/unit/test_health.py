"""What fails which check, and what the endpoint answers."""

import json
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from daemon.health import Endpoint, Signs, examine
from daemon.metrics import Metrics

WELL = Signs(
    tail_open=True,
    tail_age_s=1,
    lag_s=5,
    oplog_window_s=86400,
    sweeping=False,
    sweep_age_s=4000,
    lease_age_s=2,
    device="cpu",
    worker_device="cpu",
    workers_dead=(),
    tasks_ended=(),
)


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({}, []),
        ({"tail_age_s": 31}, ["tail"]),
        ({"tail_open": False}, ["tail"]),
        ({"lag_s": 50_000}, ["lag"]),  # more than half of the window
        ({"lag_s": 50_000, "oplog_window_s": None}, []),  # nobody knows the window
        ({"lag_s": 40, "oplog_window_s": 50}, []),  # a server that was just set up
        ({"sweeping": True}, ["sweep"]),
        ({"sweeping": True, "sweep_age_s": 10}, []),
        ({"lease_age_s": 16}, ["lease"]),
        ({"device": "cuda"}, ["device"]),
        ({"workers_dead": ("decode-1",)}, ["workers"]),
        ({"tasks_ended": ("watch",)}, ["tasks"]),
    ],
)
def test_what_is_wrong_fails_its_check_alone(change: dict[str, object], failing: list[str]) -> None:
    checks = examine(replace(WELL, **change))  # type: ignore[arg-type]
    assert [check.name for check in checks if not check.ok] == failing


@pytest.mark.parametrize(
    ("target", "signs", "status"),
    [
        ("/livez", WELL, 200),
        ("/livez", replace(WELL, tail_age_s=1000), 200),  # alive, though of no use
        ("/livez", replace(WELL, tasks_ended=("watch",)), 503),
        ("/readyz", WELL, 200),
        ("/readyz", replace(WELL, tail_age_s=1000), 503),
        ("/metrics?name=x", WELL, 200),
        ("/", WELL, 404),
    ],
)
async def test_the_endpoint_answers(target: str, signs: Signs, status: int) -> None:
    import asyncio

    endpoint = Endpoint("127.0.0.1", 0, lambda: signs, Metrics())
    url = await endpoint.start()

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url + target, timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    code, body = await asyncio.to_thread(ask)
    await endpoint.close()
    assert code == status
    if target == "/readyz":
        assert json.loads(body)["ready"] == (status == 200)
