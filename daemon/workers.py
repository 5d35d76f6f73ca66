"""Spawned processes that do what the daemon's own process never does: decode images and run models."""

import asyncio
import contextlib
import ctypes
import itertools
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from enrichers.errors import EnrichdError

T = TypeVar("T")

_SPAWN = multiprocessing.get_context("spawn")
#: seconds that a worker may take to end by itself before it is killed
STOP_TIMEOUT_S = 5.0


class WorkerDied(EnrichdError):
    """The process that worked on this image ended."""


class WorkerHung(WorkerDied):
    """The process that worked on this image did not answer in time and was ended."""


class WorkerFailed(EnrichdError):
    """A worker process could not start."""

    transient = True


def enter_worker() -> None:
    """What each worker does first: leave Ctrl-C to the daemon, and end when the daemon's process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # prctl(2)
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    daemon = multiprocessing.parent_process()
    if daemon is not None and os.getppid() != daemon.pid:  # it ended before the line above
        raise SystemExit


class Worker:
    """One spawned process, asked through a pipe. `call` may be used many times at once; the process answers in any
    order. When it dies, every open call raises WorkerDied."""

    def __init__(self, name: str, serve: Callable[..., None], *args: Any) -> None:
        """`serve(connection, *args)` runs in the process: it sends `("ready", info)` or `("error", type, message)`,
        then answers each `(id, request)` with `(id, reply)`, until the pipe closes."""
        self.name = name
        self._serve = serve
        self._args = args
        self._ids = itertools.count()
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._died = False

    @property
    def alive(self) -> bool:
        return not self._died

    @property
    def load(self) -> int:
        """How many calls are open."""
        return len(self._open)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    async def start(self) -> Any:
        """Returns what the process says of itself. Raises WorkerFailed with the process's own message."""
        self._loop = asyncio.get_running_loop()
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=self._serve, args=(theirs, *self._args), name=f"enrichd-{self.name}", daemon=True
        )
        self._process.start()
        theirs.close()
        self._ready: asyncio.Future[Any] = self._loop.create_future()
        self._loop.add_reader(self._connection.fileno(), self._read)
        threading.Thread(target=self._send, name=f"{self.name}-outbox", daemon=True).start()
        try:
            kind, *info = await self._ready
        except WorkerDied as error:
            raise WorkerFailed(f"The {self.name} worker ended while it started: {error}") from error
        if kind == "error":
            await self.stop()
            raise WorkerFailed(f"{info[0]}: {info[1]}")
        return info[0]

    async def call(self, request: Any, timeout_s: float | None = None) -> Any:
        """The process's reply. Raises WorkerDied, or WorkerHung after `timeout_s`, when the process is killed."""
        if self._died:
            raise WorkerDied
        number = next(self._ids)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._open[number] = future
        self._outbox.put(pickle.dumps((number, request), protocol=pickle.HIGHEST_PROTOCOL))
        if timeout_s is None:
            return await future
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout_s)
        except TimeoutError:
            self.kill(WorkerHung(f"There was no answer within {timeout_s:.0f} s."))
            return await future

    def tell(self, message: Any) -> None:
        """Sends a message that needs no reply."""
        self._outbox.put(pickle.dumps((None, message), protocol=pickle.HIGHEST_PROTOCOL))

    def kill(self, reason: WorkerDied | None = None) -> None:
        self._process.kill()
        self._end(reason or WorkerDied("It was ended."))

    async def stop(self) -> None:
        """Closes the pipe, whereupon the process ends; by force if it does not."""
        if not self._died:
            self._end(WorkerDied("The daemon is stopping."))
        await asyncio.to_thread(self._process.join, STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _read(self) -> None:
        try:
            while True:
                message = pickle.loads(self._connection.recv_bytes())
                if not self._ready.done():
                    self._ready.set_result(message)
                else:
                    number, reply = message
                    future = self._open.pop(number, None)
                    if future is not None and not future.done():
                        future.set_result(reply)
                if not self._connection.poll():
                    return
        except (EOFError, OSError):
            self._process.join(1)
            self._end(WorkerDied(f"The process ended with {_exit(self._process.exitcode)}."))

    def _send(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._connection.send_bytes(message)
            except OSError:  # the reader sees the end of the pipe too and says so
                return

    def _end(self, reason: WorkerDied) -> None:
        if self._died:
            return
        self._died = True
        self._loop.remove_reader(self._connection.fileno())
        self._outbox.put(None)
        self._connection.close()
        if not self._ready.done():
            self._ready.set_exception(reason)
        for future in self._open.values():
            if not future.done():
                future.set_exception(reason)
        self._open.clear()


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def receive(connection: Connection) -> Any:
    """In a worker: the next `(id, request)`; None when the daemon has closed the pipe."""
    try:
        return pickle.loads(connection.recv_bytes())
    except (EOFError, OSError):
        return None


def reply(connection: Connection, message: Any) -> None:
    """In a worker: sends one message; a daemon that has gone away is no error."""
    with contextlib.suppress(OSError):
        connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


async def apart(name: str, work: Callable[[], T]) -> T:
    """What `work` returns or raises, run in a process of its own, which ends with this one and with the task that waits
    for it. `work`, its result and its exception are pickled. Raises WorkerDied where the process ends early."""
    worker = Worker(name, _serve_work)
    try:
        await worker.start()
        raised, outcome = await worker.call(work)
    finally:
        worker.kill()
        await worker.stop()
    if raised:
        raise outcome
    return outcome  # type: ignore[no-any-return]


def _serve_work(connection: Connection) -> None:
    enter_worker()
    reply(connection, ("ready", None))
    while (message := receive(connection)) is not None:
        number, work = message
        try:
            outcome = (False, work())
        except Exception as error:
            outcome = (True, error)
        reply(connection, (number, outcome))
