"""The embedded MongoDB-compatible server: a process of its own beside the daemon, with its data in one folder."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from enrichers.errors import EnrichdError

#: seconds that the server may take until it answers; it opens WiredTiger and recovers its log first
START_TIMEOUT_S = 60.0
#: seconds that it may take to end; it writes a last checkpoint
STOP_TIMEOUT_S = 10.0
#: seconds between idle oplog entries, so that a quiet stream's token stays inside the history
HEARTBEAT_S = 10


class EmbeddedMissing(EnrichdError):
    """The embedded server is not installed: install enrichd with the extra "embedded" or set mongo.uri."""


class EmbeddedFailed(EnrichdError):
    """The embedded server did not start."""


def free_port() -> int:
    """A port of the loopback interface that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _address_file(data: Path) -> Path:
    return data.with_name(data.name + ".uri")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _address(data: Path) -> str | None:
    try:
        return _address_file(data).read_text().strip()
    except OSError:
        return None


def running(data: Path) -> str | None:
    """The URI of the server that has `data` open at the moment, whichever process started it; None without one."""
    uri = _address(data)
    return uri if uri is not None and _answers(int(uri.partition("127.0.0.1:")[2].partition("/")[0])) else None


def exists(data: Path) -> bool:
    """Whether a server has ever kept data in `data`."""
    return data.is_dir() and any(data.iterdir())


def program() -> str | None:
    """The server's executable; None where it is not installed."""
    return shutil.which("secantusd-py", path=os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))


def end(data: Path, pid: int) -> None:
    """Tells the server process `pid`, which has `data` open and is not this process's own, to end; returns when it no
    longer answers. Raises EmbeddedFailed where it goes on."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while running(data) is not None:
        if time.monotonic() > deadline:
            raise EmbeddedFailed(f"The embedded server (process {pid}) does not end; `kill -9 {pid}` ends it.")
        time.sleep(0.05)
    _address_file(data).unlink(missing_ok=True)


class EmbeddedServer:
    """One server process; `start` returns when it accepts connections, `stop` when it has ended."""

    def __init__(self, data: Path, port: int = 0, options: tuple[str, ...] = ()) -> None:
        """`port` 0 picks a free one; `options` are further flags of the server."""
        self.data = data
        self.port = port or free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        return self.data.with_name(self.data.name + ".log")

    def start(self) -> None:
        """Raises EmbeddedMissing or EmbeddedFailed, which shows the end of the server's log."""
        command = program()
        if command is None:
            raise EmbeddedMissing
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(command, "--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(self.data)),
                    *("--sync-on-commit", "--noop-heartbeat-seconds", str(HEARTBEAT_S), "--log-level", "WARNING"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the daemon alone, which stops the server last
            )
        try:
            self._wait(self._process)
            _address_file(self.data).write_text(self.uri)
        except BaseException:  # also an interrupt: a server that nobody waits for would stay for ever
            self.stop()
            raise

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.port):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-1500:]
                raise EmbeddedFailed(f"The embedded server did not start; the end of {self.log}:\n{tail}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends the process in an orderly way, by force after STOP_TIMEOUT_S."""
        process, self._process = self._process, None
        if process is None:
            return
        if _address(self.data) == self.uri:
            _address_file(self.data).unlink(missing_ok=True)
        if process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Ends the process at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
