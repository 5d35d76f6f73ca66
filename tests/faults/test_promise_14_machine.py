"""Promise 14: a clock that steps, a full disk and a file that disappears give clear errors, and work goes on."""

import asyncio
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest

from daemon import clock
from daemon.decoding import reserve
from daemon.fetch import Fetcher
from daemon.plan import FARTHEST_RETRY, ImageDocument, Plan, Reason, Step, decide
from tests.integration.conftest import Harness, harness, plugin  # noqa: F401

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("step", [timedelta(days=-1), timedelta(days=400)])
async def test_promise_14_the_clock_steps(
    harness: Harness,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    step: timedelta,
) -> None:
    offset = timedelta()

    def stepped() -> datetime:
        return clock.utc_now() + offset

    for module in ("pipeline", "sweep", "app"):
        if hasattr(sys.modules[f"daemon.{module}"], "utc_now"):
            monkeypatch.setattr(f"daemon.{module}.utc_now", stepped)
    async with harness.daemon():
        await harness.collections.images.insert_one({"_id": 1, "source": harness.paint("a.png", (10, 10, 10))})
        await harness.state(1)
        offset = step
        await harness.collections.images.update_one(
            {"_id": 1}, {"$set": {"source": harness.paint("b.png", (50, 50, 50))}}
        )
        await harness.collections.images.insert_one({"_id": 2, "source": "a.png"})
        document = await harness.settled(lambda d: d["enrichment"]["source_ref"] == "b.png", 1)
        await harness.state(2)
    assert document["enrichments"]["standin"]["mean"] == [50.0] * 3


def test_promise_14_a_retry_set_by_a_clock_that_was_ahead_is_due() -> None:
    plan = Plan((Step("standin", "f"),))
    now = clock.utc_now()
    run = {"fingerprint": "f", "state": "failed", "at": now}

    def reasons(at: datetime) -> Any:
        entry = {"standin": {"run": {**run, "next_attempt_at": at}}}
        return decide(ImageDocument({"_id": 1}, "a.png", {"source_ref": "a.png"}, entry), plan, now).missing

    assert reasons(now + timedelta(hours=1)) == {}
    assert reasons(now + FARTHEST_RETRY + timedelta(hours=1)) == {"standin": Reason.RETRY}


def test_promise_14_shared_memory_that_is_full_is_an_error_not_a_crash() -> None:
    """More than all of it is asked for, which the system refuses before it fills anything."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("this platform keeps shared memory elsewhere")
    memory = SharedMemory(create=True, size=shutil.disk_usage("/dev/shm").total + (64 << 20))
    try:
        reserve(memory, 0, 1 << 16)
        with pytest.raises(OSError, match="No space"):
            reserve(memory, 0, memory.size)
    finally:
        memory.close()
        memory.unlink()


async def test_promise_14_a_file_disappears_between_fetch_and_decode(
    harness: Harness,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch = Fetcher.fetch

    async def fetch_and_lose(self: Fetcher, source: Any) -> Any:
        found = await fetch(self, source)
        if isinstance(found, Path) and found.name == "fleeting.png":
            found.unlink()
        return found

    monkeypatch.setattr(Fetcher, "fetch", fetch_and_lose)
    async with harness.daemon():
        await harness.collections.images.insert_many(
            [{"_id": 1, "source": harness.paint("fleeting.png")}, {"_id": 2, "source": harness.paint("stays.png")}]
        )
        first = await harness.state(1, "unreadable")
        await harness.state(2)
        assert first["enrichment"]["error"]["type"] in ("FileNotFoundError", "SourceMissing")
        gone = await harness.settled(lambda d: d["enrichment"]["error"]["type"] == "SourceMissing", 1)
    assert "next_attempt_at" not in gone["enrichment"], "what is gone is not tried again"


async def test_promise_14_a_full_disk_under_the_model_cache_is_told(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for the full disk: a write beyond it fails as one without room does."""
    weights = tmp_path / "weights.onnx"
    weights.write_bytes(b"w" * (4 << 20))
    code = f"""
import hashlib, resource, signal, sys
from pathlib import Path
from enrichers.catalogue import Catalogue
from enrichers.errors import EnrichdError
from enrichers.weights import ModelStore
digest = hashlib.sha256(Path({str(weights)!r}).read_bytes()).hexdigest()
entry = {{"provider": "file", "path": {str(weights)!r}, "sha256": digest, "licence": "none", "runtime": "onnx"}}
cache = Path({str(tmp_path / "cache")!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    ModelStore(cache, Catalogue.load({{"mine": entry}}), False).pull("mine")
except EnrichdError as error:
    print("told:", type(error).__name__, error)
print("left:", [file.name for file in cache.rglob("*") if file.is_file() and file.stat().st_size])
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("told:"), done.stdout + done.stderr
