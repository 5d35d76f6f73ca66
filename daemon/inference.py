"""Runs enrichers in a worker process: one unit (the enrichers that share a batch) at a time a lane."""

import asyncio
import logging
import mmap
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from daemon.decoding import PixelsRef
from daemon.workers import Worker, WorkerDied, WorkerFailed, enter_worker, receive, reply
from enrichers.contract import Enricher, Failure, Result
from enrichers.errors import EnrichdError, OutOfMemory
from enrichers.image import Facts, Image

log = logging.getLogger(__name__)

#: seconds that the isolated worker is kept after its last suspect
ISOLATED_IDLE_S = 30.0
#: seconds between looks at the memory of the isolated worker while it works
MEMORY_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Unit:
    """Enrichers that run on the same batch, one after another: those that share a network, or one alone."""

    name: str
    enrichers: tuple[str, ...]
    requires: frozenset[str]  #: enrichers of other units
    max_batch: int
    concurrent: bool = False  #: whether several batches of it may run side by side


def lanes_of(units: Sequence[Unit], cores: int, device: str = "cpu") -> int:
    """How many batches an inference worker runs side by side: on a GPU two at least, so that it computes one while the
    processor prepares the other."""
    return max(2 if device == "cuda" else 1, min(len(units), cores))


def units_of(enrichers: Sequence[Enricher]) -> tuple[Unit, ...]:
    """The units of `enrichers`, each after those that it requires."""
    groups: dict[str, list[Enricher]] = {}
    for enricher in enrichers:
        groups.setdefault(enricher.shares or enricher.name, []).append(enricher)
    units = []
    for name, members in groups.items():
        inside = {member.name for member in members}
        outside = frozenset(required for member in members for required in member.requires) - inside
        units.append(
            Unit(
                name,
                tuple(m.name for m in members),
                outside,
                min(m.max_batch for m in members),
                all(m.concurrent for m in members),
            )
        )
    return tuple(units)


@dataclass(frozen=True)
class ImageRef:
    """An image as it is handed to an inference worker; `wanted` are the enrichers to run on it."""

    key: int
    pixels: PixelsRef
    width: int
    height: int
    facts: Facts
    wanted: tuple[str, ...]
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Timed:
    """An outcome with its share of the batch's time."""

    outcome: Result | Failure
    ms: float


Answers = dict[str, Timed]


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """What an inference worker needs to know to load the same enrichers as the daemon has planned."""

    names: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]
    cache: Path
    entries: Mapping[str, Any]  #: the user's own catalogue entries
    device: str  #: "cpu" or "cuda"
    threads: int  #: cores to use in all
    memory_bytes: int = 8 << 30  #: of the process that tries a suspect image alone
    gpu_memory_mb: int = 0  #: of a GPU that all networks together may take; 0: what there is
    tensorrt: bool = False  #: whether TensorRT runs the graphs that suit it


def serve_inference(connection: Connection, settings: InferenceSettings) -> None:
    """The inference worker's loop. A request is `(unit name, [ImageRef, …])`, the reply one Answers for each."""
    enter_worker()
    try:
        enrichers, device = _load(settings)
    except Exception as error:
        reply(connection, ("error", type(error).__name__, str(error)))
        return
    units = units_of(list(enrichers.values()))
    lanes = lanes_of(units, settings.threads, device)
    _Lanes(connection, {unit.name: unit for unit in units}, enrichers, device).serve(lanes)


def _load(settings: InferenceSettings) -> tuple[dict[str, Enricher], str]:
    """The loaded enrichers, and the device that they were given."""
    from enrichers import registry
    from enrichers.catalogue import Catalogue
    from enrichers.loading import Gpu, ProcessLoader
    from enrichers.weights import ModelStore

    catalogue = Catalogue.load(settings.entries, settings.cache)
    enrichers = registry.enabled(settings.names, lambda name: settings.settings.get(name, {}), catalogue)
    enrichers = [enricher for enricher in enrichers if enricher.name in settings.names]
    lanes = lanes_of(units_of(enrichers), settings.threads, settings.device)
    store = ModelStore(settings.cache, catalogue, offline=True)
    weights = [weights.name for enricher in enrichers for weights in enricher.weights()]
    gpu = Gpu(settings.gpu_memory_mb, settings.tensorrt).share(catalogue, weights)
    loader = ProcessLoader(store, settings.device, max(1, settings.threads // lanes), gpu)
    failures: list[BaseException] = []

    def load(enricher: Enricher) -> None:
        try:
            enricher.load(loader)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=load, args=(enricher,)) for enricher in enrichers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return {enricher.name: enricher for enricher in enrichers}, loader.device


class _Lanes:
    """Threads that take batches in turn; a unit runs on one of them at a time unless it is concurrent."""

    def __init__(
        self, connection: Connection, units: Mapping[str, Unit], enrichers: Mapping[str, Enricher], device: str
    ) -> None:
        self._connection = connection
        self._device = device
        self._units = units
        self._enrichers = enrichers
        self._queues: dict[str, deque[tuple[int, list[ImageRef]]]] = {name: deque() for name in units}
        self._busy: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._memories = Memories()
        self._sizes = Sizes()

    def serve(self, lanes: int) -> None:
        for n in range(lanes):
            threading.Thread(target=self._lane, name=f"lane-{n}", daemon=True).start()
        reply(self._connection, ("ready", {"lanes": lanes, "device": self._device}))
        while (message := receive(self._connection)) is not None:
            number, (unit, images) = message
            with self._changed:
                self._queues[unit].append((number, images))
                self._changed.notify()

    def _free(self, name: str) -> bool:
        return self._units[name].concurrent or not self._busy[name]

    def _next(self) -> tuple[str, int, list[ImageRef]]:
        with self._changed:
            while True:
                ready = [name for name, queue in self._queues.items() if queue and self._free(name)]
                if ready:
                    name = min(ready, key=lambda unit: self._queues[unit][0][0])  # the oldest first
                    self._busy[name] += 1
                    number, images = self._queues[name].popleft()
                    return name, number, images
                self._changed.wait()

    def _lane(self) -> None:
        while True:
            name, number, refs = self._next()
            try:
                answers: Any = self._run(self._units[name], refs)
            except Exception as error:  # a reference that cannot be attached, say: never the end of the lane
                answers = [{wanted: Timed(Failure.of(error), 0.0) for wanted in ref.wanted} for ref in refs]
            with self._sending:
                reply(self._connection, (number, answers))
            with self._changed:
                self._busy[name] -= 1
                self._changed.notify()

    def _run(self, unit: Unit, refs: Sequence[ImageRef]) -> list[Answers]:
        memories = [self._memories.attached(ref.pixels.memory) for ref in refs]  # held until all is read
        images = [image_of(ref, memory) for ref, memory in zip(refs, memories, strict=True)]
        answers: list[Answers] = [{} for _ in refs]
        for name in unit.enrichers:
            chosen = [n for n, ref in enumerate(refs) if name in ref.wanted]
            if not chosen:
                continue
            started = time.perf_counter()
            outcomes = enrich(self._enrichers[name], [images[n] for n in chosen], self._sizes)
            ms = (time.perf_counter() - started) * 1000 / len(chosen)
            for n, outcome in zip(chosen, outcomes, strict=True):
                answers[n][name] = Timed(outcome, ms)
                if isinstance(outcome, Result):
                    images[n].results = {**images[n].results, name: outcome.required()}
        return answers


def image_of(ref: ImageRef, memory: SharedMemory) -> Image:
    """The image whose pixels lie in `memory`, which must be held for as long as they are read."""
    shape = (ref.pixels.height, ref.pixels.width, 3)
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = np.ndarray(
        shape, np.uint8, buffer=memory.buf, offset=ref.pixels.offset
    )
    pixels.flags.writeable = False
    return Image(ref.key, pixels, ref.width, ref.height, ref.facts, ref.results)


class Memories:
    """The memories of the decode workers, each mapped once for all lanes. A memory is unmapped with the last reference
    to its object, whatever arrays are made of it: reading those then ends the process."""

    def __init__(self) -> None:
        self._attached: dict[str, SharedMemory] = {}
        self._lock = threading.Lock()

    def attached(self, name: str) -> SharedMemory:
        """The memory of this name, to be held by the caller for as long as it reads from it."""
        with self._lock:
            memory = self._attached.get(name)
            if memory is None:
                for other in list(self._attached):  # memories of replaced decode workers
                    if not Path("/dev/shm", other).exists() and Path("/dev/shm").is_dir():
                        self._attached.pop(other)
                memory = self._attached[name] = SharedMemory(name)
            return memory


class Sizes:
    """How many images each enricher can take at a time, learned where the device's memory did not suffice."""

    def __init__(self) -> None:
        self._most: dict[str, int] = {}

    def most(self, enricher: str) -> int | None:
        """None: no limit is known."""
        return self._most.get(enricher)

    def too_many(self, enricher: str, count: int) -> None:
        self._most[enricher] = max(1, min(count // 2, self._most.get(enricher, count)))


def enrich(enricher: Enricher, images: Sequence[Image], sizes: Sizes | None = None) -> list[Result | Failure]:
    """One outcome for each image, whatever the enricher does: a batch that raises is tried again in halves. `sizes`
    keeps which batches fit into memory, so that later ones are cut before they fail."""
    most = None if sizes is None else sizes.most(enricher.name)
    if most is not None and len(images) > most:
        parts = (enrich(enricher, images[n : n + most], sizes) for n in range(0, len(images), most))
        return [outcome for part in parts for outcome in part]
    try:
        outcomes = list(enricher.enrich(images))
        if len(outcomes) == len(images):
            return outcomes
        raise EnrichdError(f"The enricher {enricher.name} gave {len(outcomes)} outcomes for {len(images)} images.")
    except Exception as error:
        if len(images) == 1:
            if isinstance(error, MemoryError):
                error = OutOfMemory(str(error))
            return [Failure.of(error)]
        half = len(images) // 2
        if sizes is not None and isinstance(error, (OutOfMemory, MemoryError)):
            sizes.too_many(enricher.name, len(images))
        return enrich(enricher, images[:half], sizes) + enrich(enricher, images[half:], sizes)


async def limit_memory(worker: Worker, limit: int) -> None:
    """Ends a worker whose resident memory grows beyond `limit` bytes; cancel it to stop watching. Its address space is
    no measure: runtimes and drivers reserve far more than they use."""
    while worker.alive and (resident := resident_bytes(worker.pid)) is not None:
        if resident > limit:
            worker.kill(WorkerDied(f"It took more than the {limit >> 20} MB of pipeline.task_memory_mb."))
        await asyncio.sleep(MEMORY_POLL_S)


def resident_bytes(pid: int | None) -> int | None:
    """The resident memory of a process; None where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return None


class Inference:
    """The inference worker. When it dies it is replaced, and each image it held is tried once more, alone, in a worker
    of its own."""

    def __init__(self, settings: InferenceSettings, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._worker = Worker("inference", serve_inference, settings)
        self._replacing: asyncio.Task[None] | None = None
        self._isolation = asyncio.Lock()
        self._isolated: Worker | None = None
        self._isolated_end: asyncio.TimerHandle | None = None
        self.device: str | None = None  #: what the worker says that it runs on
        self.cores = settings.threads  #: that its lanes share
        self.crashes = 0  #: workers that ended while they held images

    async def start(self) -> None:
        """Raises WorkerFailed with the reason, such as missing weights or a missing device."""
        self.device = str((await self._worker.start())["device"])

    async def close(self) -> None:
        if self._isolated_end is not None:
            self._isolated_end.cancel()
        await asyncio.gather(*(worker.stop() for worker in (self._worker, self._isolated) if worker is not None))

    @property
    def alive(self) -> bool:
        return self._worker.alive

    def pids(self) -> list[int]:
        return [worker.pid for worker in (self._worker, self._isolated) if worker is not None and worker.pid]

    async def run(self, unit: str, images: Sequence[ImageRef]) -> list[Answers]:
        """The answers of a unit's enrichers for each of `images`, those that each wants."""
        if not self._worker.alive:
            await self._replaced()
        try:
            answers: list[Answers] = await self._worker.call((unit, list(images)), self._timeout_s)
            return answers
        except WorkerDied as error:
            self.crashes += 1
            log.warning(
                "a batch of %d images of %s ended its worker; each is tried alone: %s", len(images), unit, error
            )
            return [await self._alone(unit, image) for image in images]

    async def revive(self) -> None:
        """Replaces the worker where it has ended. Raises WorkerFailed where that fails."""
        if not self._worker.alive:
            await self._replaced()

    async def _replaced(self) -> None:
        if self._replacing is None:
            self._replacing = asyncio.create_task(self._replace())
        await self._replacing

    async def _replace(self) -> None:
        try:
            await self._worker.stop()
            worker = Worker("inference", serve_inference, self._settings)
            self.device = str((await worker.start())["device"])
            self._worker = worker
        finally:
            self._replacing = None

    async def _alone(self, unit: str, image: ImageRef) -> Answers:
        async with self._isolation:
            if self._isolated_end is not None:
                self._isolated_end.cancel()
            try:
                if self._isolated is None or not self._isolated.alive:
                    self._isolated = Worker("inference-alone", serve_inference, self._settings)
                    await self._isolated.start()
                watching = asyncio.create_task(limit_memory(self._isolated, self._settings.memory_bytes))
                try:
                    answers: list[Answers] = await self._isolated.call((unit, [image]), self._timeout_s)
                finally:
                    watching.cancel()
                return answers[0]
            except WorkerFailed as error:
                failure = Failure("WorkerFailed", str(error), transient=True)
            except WorkerDied as error:
                failure = Failure("WorkerCrashed", f"This image ended the process that worked on it, twice. {error}")
            finally:
                loop = asyncio.get_running_loop()
                self._isolated_end = loop.call_later(ISOLATED_IDLE_S, self._end_isolated)
            return {name: Timed(failure, 0.0) for name in image.wanted}

    def _end_isolated(self) -> None:
        worker, self._isolated = self._isolated, None
        if worker is not None and worker.alive:
            worker.kill()
