"""A daemon and a server as processes of their own, as benchmarks start them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.embedded import EmbeddedServer
from daemon.logs import READY

PLUGIN = Path(__file__).parent / "plugin"
#: seconds that a daemon may take until it takes images
START_TIMEOUT_S = 180.0


@contextmanager
def server(folder: Path) -> Iterator[EmbeddedServer]:
    """A running embedded server with its data below `folder`."""
    running = EmbeddedServer(folder / "server")
    running.start()
    try:
        yield running
    finally:
        running.stop()


def pss_mb(pid: int) -> float:
    """Memory of a process in MB; what it shares with others counts by its share. 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def cpu_s(pid: int | None) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class DaemonProcess:
    """A running `enrichd run`."""

    process: subprocess.Popen[bytes]
    start_s: float  #: seconds from start to ready

    def tree(self) -> list[int]:
        """The process ids of the daemon and its workers."""
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # a thread that has just ended
                    waiting += [int(child) for child in task.read_text().split()]
        return found

    def rss_mb(self) -> float:
        """Memory of all its processes in MB; what they share counts once a process by its share (PSS)."""
        return sum(pss_mb(pid) for pid in self.tree())

    def cpu_s(self) -> float:
        """Seconds of processor time of all its processes so far."""
        return sum(cpu_s(pid) for pid in self.tree())


@contextmanager
def daemon(folder: Path, settings: Mapping[str, Any], *, plugins: Path | None = None) -> Iterator[DaemonProcess]:
    """A daemon with these dotted settings, ready; it is stopped by SIGTERM when the block is left. `plugins`: a folder
    with enrichers beside the installed ones.

    Raises RuntimeError with the end of its log if it does not get ready.
    """
    log = folder / "daemon.log"
    variables = {
        "ENRICHD_" + key.upper().replace(".", "__"): value if isinstance(value, str) else json.dumps(value)
        for key, value in settings.items()
    }
    environment = os.environ | variables | ({"PYTHONPATH": str(plugins)} if plugins else {})
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("enrichd")), "run", "--yes"],
            env=environment,
            stdout=output,
            stderr=output,
            cwd=folder,
        )
    try:
        while READY.encode() not in (text := log.read_bytes()):
            if process.poll() is not None or time.perf_counter() - started > START_TIMEOUT_S:
                raise RuntimeError(f"The daemon did not start:\n{text.decode(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield DaemonProcess(process, time.perf_counter() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
