"""Decodes images in worker processes, into shared memory."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from daemon.arena import Arena
from daemon.workers import Worker, WorkerDied, enter_worker, receive, reply
from enrichers.contract import Failure
from enrichers.errors import ImageTooLarge
from enrichers.image import Facts


@dataclass(frozen=True)
class PixelsRef:
    """Where decoded pixels lie: (height, width, 3) uint8 RGB at `offset` of the shared memory `memory`."""

    memory: str
    offset: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image; `release` gives its memory back, once."""

    pixels: PixelsRef
    facts: Facts
    ms: float
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may be at most."""

    max_pixels: int
    max_bytes: int
    memory_bytes: int = 8 << 30  #: of the process that decodes it, beside the shared memory


def serve_decoding(connection: Connection, memory: str, size: int, limits: Limits) -> None:
    """The decode worker's loop. A request is `(source, max_side)`, a message `("free", offset)`; the reply is
    `(offset, height, width, facts, ms)` or a Failure."""
    enter_worker()
    from enrichers.decode import decode

    shared = SharedMemory(memory)
    if sys.platform == "linux":
        limit_memory(limits.memory_bytes)
    arena = Arena(size)
    waiting: list[Any] = []
    reply(connection, ("ready", None))

    def place(count: int) -> int:
        while (offset := arena.allocate(count)) is None:
            if arena.empty:
                raise ImageTooLarge(
                    f"The decoded image takes {count >> 20} MB, more than its share of pipeline.in_flight_mb."
                )
            message = receive(connection)
            if message is None:
                raise SystemExit
            if message[0] is None:
                arena.free(message[1])
            else:
                waiting.append(message)
        return offset

    while (message := waiting.pop(0) if waiting else receive(connection)) is not None:
        number, request = message
        if number is None:
            arena.free(request)
            continue
        source, max_side = request
        started = time.perf_counter()
        try:
            pixels, facts = decode(source, max_side=max_side, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes)
            offset = place(pixels.nbytes)
            try:
                reserve(shared, offset, pixels.nbytes)
            except OSError:
                arena.free(offset)
                raise
            target = np.ndarray(pixels.shape, np.uint8, buffer=shared.buf, offset=offset)
            np.copyto(target, pixels)
            height, width = pixels.shape[:2]
            del pixels, target
            result: Any = (offset, height, width, facts, (time.perf_counter() - started) * 1000)
        except Exception as error:
            result = Failure.of(error)
        reply(connection, (number, result))


def limit_memory(more: int) -> None:
    """Makes this process's allocations fail that need more than `more` bytes of address space beyond what libraries and
    shared memory take already."""
    import resource

    limit = more + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def reserve(shared: SharedMemory, offset: int, size: int) -> None:
    """Has the system back a stretch of shared memory. Raises OSError where the file system of the memory is full,
    which would otherwise end the process with SIGBUS at the first write."""
    if sys.platform == "linux":
        os.posix_fallocate(shared._fd, offset, size)  # type: ignore[attr-defined]


class _Slot:
    """One decode worker with the memory it fills; the memory lives until its last image is released."""

    def __init__(self, name: str, size: int, limits: Limits) -> None:
        self.memory = SharedMemory(create=True, size=size)
        self.worker = Worker(name, serve_decoding, self.memory.name, size, limits)
        self._held: set[int] = set()
        self._closed = False

    async def decode(self, source: Path | bytes, max_side: int | None, timeout_s: float) -> Decoded | Failure:
        answer = await self.worker.call((source, max_side), timeout_s)
        if isinstance(answer, Failure):
            return answer
        offset, height, width, facts, ms = answer
        self._held.add(offset)
        pixels = PixelsRef(self.memory.name, offset, height, width)
        return Decoded(pixels, facts, ms, lambda: self._release(offset))

    def _release(self, offset: int) -> None:
        if offset not in self._held:
            return
        self._held.discard(offset)
        if self.worker.alive:
            self.worker.tell(offset)
        self._unlink_if_unused()

    async def close(self) -> None:
        await self.worker.stop()
        self._closed = True
        self._unlink_if_unused()

    def _unlink_if_unused(self) -> None:
        if self._closed and not self._held:
            self.memory.close()
            self.memory.unlink()
            self._closed = False


class Decoders:
    """A pool of decode workers. A worker that dies is replaced; each image it held is tried once more, alone."""

    def __init__(self, workers: int, memory_bytes: int, limits: Limits, timeout_s: float) -> None:
        self._count = workers
        self._share = memory_bytes // workers
        self._limits = limits
        self._timeout_s = timeout_s
        self._slots: list[_Slot] = []
        self._replacing: dict[int, asyncio.Task[_Slot]] = {}
        self._isolation = asyncio.Lock()

    async def start(self) -> None:
        self._slots = list(await asyncio.gather(*(self._started(f"decode-{n}") for n in range(self._count))))

    async def close(self) -> None:
        await asyncio.gather(*(slot.close() for slot in self._slots))

    @property
    def dead(self) -> list[str]:
        """Names of the workers that have ended and were not replaced yet."""
        return [slot.worker.name for slot in self._slots if not slot.worker.alive]

    async def revive(self) -> None:
        """Replaces a worker that has ended. Raises WorkerFailed where that fails."""
        if self.dead:
            await self._least_loaded()

    def pids(self) -> list[int]:
        return [slot.worker.pid for slot in self._slots if slot.worker.pid]

    async def decode(self, source: Path | bytes, max_side: int | None) -> Decoded | Failure:
        """Decodes a file or bytes so that the longest side is at least `max_side` where the image has it."""
        slot = await self._least_loaded()
        try:
            return await slot.decode(source, max_side, self._timeout_s)
        except WorkerDied:
            return await self._alone(source, max_side)

    async def _least_loaded(self) -> _Slot:
        index = min(range(self._count), key=lambda n: self._slots[n].worker.load)
        dead = next((n for n in range(self._count) if not self._slots[n].worker.alive), None)
        if dead is not None:
            index = dead
            if dead not in self._replacing:
                self._replacing[dead] = asyncio.create_task(self._replaced(dead))
            await self._replacing[dead]
        return self._slots[index]

    async def _replaced(self, index: int) -> _Slot:
        try:
            await self._slots[index].close()
            self._slots[index] = await self._started(f"decode-{index}")
            return self._slots[index]
        finally:
            del self._replacing[index]

    async def _started(self, name: str) -> _Slot:
        slot = _Slot(name, self._share, self._limits)
        await slot.worker.start()
        return slot

    async def _alone(self, source: Path | bytes, max_side: int | None) -> Decoded | Failure:
        async with self._isolation:
            slot = await self._started("decode-alone")
            try:
                return await slot.decode(source, max_side, self._timeout_s)
            except WorkerDied as error:
                return Failure("WorkerCrashed", f"Decoding this image ended its process, twice. {error}")
            finally:
                await slot.close()
