"""Work in a process of its own."""

import asyncio
import multiprocessing
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from daemon.workers import WorkerDied, apart

#: says the number of the process that works, and is then ended while that one works
ENDED_AT_WORK = """
import asyncio, os, sys, threading, time
from functools import partial
from daemon.workers import apart

def say():
    while not (children := open(f"/proc/self/task/{os.getpid()}/children").read().split()):
        time.sleep(0.01)
    time.sleep(float(sys.argv[1]))
    print(*open(f"/proc/self/task/{os.getpid()}/children").read().split(), flush=True)

if __name__ == "__main__":
    threading.Thread(target=say).start()
    asyncio.run(apart("sleep", partial(time.sleep, 60)))
"""


async def test_the_result_and_the_exception_come_back() -> None:
    assert await apart("divide", partial(divmod, 17, 5)) == (3, 2)
    with pytest.raises(ZeroDivisionError):
        await apart("divide", partial(divmod, 17, 0))


async def test_a_process_that_ends_early_is_told() -> None:
    with pytest.raises(WorkerDied, match="exit code 3"):
        await apart("exit", partial(sys.exit, 3))


async def test_who_no_longer_waits_ends_the_process() -> None:
    task = asyncio.create_task(apart("sleep", partial(time.sleep, 60)))
    while not any(child.name == "enrichd-sleep" for child in multiprocessing.active_children()):
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert not [child for child in multiprocessing.active_children() if child.name == "enrichd-sleep"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("after_s", [0.0, 2.0])
def test_a_killed_daemon_leaves_no_process_behind(after_s: float, tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(ENDED_AT_WORK)
    with subprocess.Popen([sys.executable, str(script), str(after_s)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        children = process.stdout.readline().split()
        process.kill()
    assert children
    deadline = time.monotonic() + 30
    while alive := [pid for pid in children if Path("/proc", pid.decode()).exists()]:
        assert time.monotonic() < deadline, f"{alive} are left"
        time.sleep(0.05)
