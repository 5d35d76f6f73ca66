"""Puts the daemon together, runs it until it is told to stop, and takes it apart in order."""

import asyncio
import itertools
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError

from daemon import connection
from daemon.activation import require_active, require_unchanged
from daemon.calibration import CALIBRATE, Calibrations
from daemon.config import Config
from daemon.decoding import Decoders, Limits
from daemon.embedded import running
from daemon.exemplars import Exemplars
from daemon.faces import delete_faces
from daemon.fetch import Fetcher
from daemon.health import Endpoint, Signs, examine
from daemon.inference import Inference, InferenceSettings
from daemon.intake import Intake
from daemon.leases import Leases
from daemon.metrics import Metrics
from daemon.pipeline import Pipeline, Writer
from daemon.plan import Plan
from daemon.plural import counted
from daemon.retry import RetryPolicy, backoff
from daemon.schedule import Schedule
from daemon.store.collections import Collections, open_collections
from daemon.store.faces import image_keys
from daemon.store.images import Images
from daemon.store.leases import LeaseStore
from daemon.store.oplog import OplogWindow
from daemon.store.state import State, StoredPlan
from daemon.sweep import Sweeper, missing_images
from daemon.tally import Tally
from daemon.watch import Watch
from daemon.workers import WorkerFailed
from enrichers.catalogue import Catalogue
from enrichers.contract import Enricher
from enrichers.errors import EnrichdError, ModelMissing
from enrichers.loading import resolve_device
from enrichers.registry import enabled
from enrichers.weights import ModelStore
from migrations.steps import require_current

log = logging.getLogger(__name__)

#: seconds between looks at whether the workers live
REVIVE_S = 2.0


class BackfillUnconfirmed(EnrichdError):
    """The collection already holds documents; `enrichd run --yes` starts on them."""


class RootMissing(EnrichdError):
    """A folder of images.roots is not there."""


@dataclass(frozen=True)
class Setup:
    """What the configuration comes to before anything is started."""

    config: Config
    device: str
    store: ModelStore
    enrichers: tuple[Enricher, ...]
    plan: Plan
    calibrations: Calibrations

    @classmethod
    def of(cls, config: Config) -> "Setup":
        """Raises EnricherUnknown, SettingInvalid, ModelUnknown, DeviceUnavailable or CalibrationInvalid."""
        device = resolve_device(config.pipeline.device)
        catalogue = Catalogue.load(config.models.entries, config.models.folder)
        store = ModelStore(config.models.folder, catalogue, config.models.offline)
        enrichers = tuple(enabled(config.enrichers.enabled, config.enrichers.settings, catalogue))
        calibrations = Calibrations.load(config.identities.calibration)
        return cls(config, device, store, enrichers, Plan.of(enrichers), calibrations)

    @property
    def uncalibrated(self) -> str | None:
        """The embedding model of the faces, where nobody calibrated it."""
        model = next(
            (enricher.settings.get("embedding") for enricher in self.enrichers if enricher.name == "faces"), None
        )
        return None if model is None or self.calibrations.get(model) else str(model)

    def weights(self) -> list[str]:
        """The catalogue names of all weights that the enabled enrichers need."""
        return sorted({weights.name for enricher in self.enrichers for weights in enricher.weights()})

    def require_weights(self) -> None:
        """Raises ModelMissing, which names them all."""
        missing = self.store.missing(self.weights())
        if missing:
            raise ModelMissing(f"The weights of {', '.join(missing)} are not in the cache: run `enrichd models pull`.")


def require_roots(config: Config) -> None:
    """Raises RootMissing: every image below a folder that is not there would count as gone for good."""
    missing = [str(root) for root in config.images.roots if not root.expanduser().is_dir()]
    if missing:
        raise RootMissing(
            f"No such folder: {', '.join(missing)}. Create or mount it, or correct images.roots (--root)."
        )


def open_images(config: Config, collections: Collections, key_fields: tuple[str, ...] = ("_id",)) -> Images:
    """The images collection as the configuration describes it."""
    return Images(collections, config.images.source, config.images.filter, key_fields)


async def run(
    config: Config,
    *,
    yes: bool = False,
    confirm: Callable[[int], bool] | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Runs the daemon until SIGTERM or SIGINT. `yes` starts on documents that are there already without asking;
    otherwise `confirm` is asked, with their number. `ready` is called with the database's URI when images are taken.

    Raises EnrichdError, before anything is processed, when a part that is needed is missing or wrong.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    setup = Setup.of(config)
    setup.require_weights()
    require_roots(config)
    if setup.uncalibrated:
        log.warning(
            "%s has no calibration: its faces are not grouped into identities. %s", setup.uncalibrated, CALIBRATE
        )
    adopted = config.mongo.uri is None and running(config.embedded.folder) is not None
    async with AsyncExitStack() as stack:
        uri = await stack.enter_async_context(connection.server_uri(config))
        client = await stack.enter_async_context(connection.open_client(config.mongo, uri))
        server = await connection.greet(client, config.mongo, uri)
        server.require_change_streams()
        collections = open_collections(client, config.mongo.database, config.mongo.collection)
        if adopted:
            stack.push_async_callback(connection.end_adopted, config, collections)
        await require_current(collections)
        images = open_images(config, collections)
        state = State(collections)
        stored = await require_active(state, images, setup.plan)
        await _confirm_backfill(images, LeaseStore(collections), yes, confirm)
        async with serve(setup, collections, images, state, stored, stop) as service:
            if not stop.is_set():
                log.info("ready: %s, device %s, database %s", ", ".join(setup.plan.names), setup.device, server.address)
                if ready is not None:
                    ready(uri)
            await service.until(stop)
            log.info("stopping")
        log.info("stopped")


async def _confirm_backfill(
    images: Images, leases: LeaseStore, yes: bool, confirm: Callable[[int], bool] | None
) -> None:
    if yes or await images.any_enriched() or await leases.any_joined():
        return
    waiting = await images.count_stale(None)
    if waiting and not (confirm is not None and confirm(waiting)):
        raise BackfillUnconfirmed(
            f"The collection already holds {counted(waiting, 'document')}: `enrichd run --yes` starts on them; "
            "images.filter in the configuration says which documents are enriched at all."
        )


@dataclass(frozen=True)
class Service:
    """The running parts."""

    pipeline: Pipeline
    leases: Leases
    tasks: list[asyncio.Task[None]]

    async def until(self, stop: asyncio.Event) -> None:
        """Waits for `stop`, or for a part that may not go on, whose error is raised."""
        stopping = asyncio.create_task(stop.wait())
        ended, _ = await asyncio.wait([stopping, *self.tasks], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in ended - {stopping}:
            task.result()
            raise AssertionError(f"the task {task.get_name()} ended by itself")


@asynccontextmanager
async def serve(
    setup: Setup,
    collections: Collections,
    images: Images,
    state: State,
    stored: StoredPlan,
    stop: asyncio.Event | None = None,
) -> AsyncIterator[Service]:
    """Everything that works on images, started; leaving the block stops intake, images in flight and token in order.
    `stop` set while the parts start ends the start."""
    config = setup.config
    cores = config.pipeline.threads or os.cpu_count() or 1
    retry = RetryPolicy(config.retry.attempts, config.retry.first_s, config.retry.max_s)
    intake = Intake(config.pipeline.queue)
    decoders = Decoders(
        config.pipeline.decode_workers or max(1, cores // 2),
        config.pipeline.in_flight_mb << 20,
        Limits(config.images.max_pixels, config.images.max_bytes, config.pipeline.task_memory_mb << 20),
        config.pipeline.task_timeout_s,
    )
    inference = Inference(inference_settings(setup, cores), config.pipeline.task_timeout_s)
    metrics = Metrics()
    fetcher = Fetcher(config.images, collections)
    exemplars, tally = Exemplars(setup.calibrations), Tally(collections)
    writer = Writer(collections, images, stored.plan, retry, exemplars, tally)

    async def gained(buckets: Sequence[int]) -> None:
        intake.drop(lambda key: not leases.owns(key))
        if watch.opened.is_set():
            watch.replay(leases.owed())
        sweeper.wake()

    async def check() -> None:
        await require_unchanged(state, setup.plan)

    leases = Leases(
        LeaseStore(collections),
        setup.plan.hash,
        position=lambda: watch.position,
        busy=intake.works_on,
        gained=gained,
        check=check,
    )
    pipeline = Pipeline(
        stored.plan,
        setup.enrichers,
        images,
        writer,
        fetcher,
        decoders,
        inference,
        intake,
        in_flight=config.pipeline.in_flight,
        wait_s=config.pipeline.batch_wait_ms / 1000,
        device=setup.device,
        set_aside=await images.set_aside(),
        owns=leases.owns,
        metrics=metrics,
    )
    watch = Watch(
        collections,
        state,
        intake,
        leases,
        config.images.source,
        deleted=partial(delete_faces, collections, tally=tally),
        dropped=images.forget_plan,
        sweep=lambda: sweeper.wake(),
    )
    sweeper = Sweeper(
        config.sweep,
        images,
        state,
        intake,
        stored,
        owns=leases.owns,
        verifies=lambda: leases.holds("verify"),
        opened=watch.opened,
        begun=watch.sweeping,
        faceless=partial(_remove_orphans, collections, images, tally),
    )
    schedule = Schedule(
        collections, config.identities, exemplars, lambda: leases.holds("recluster"), lambda: intake.idle
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(decoders.close)
        stack.push_async_callback(inference.close)
        stack.push_async_callback(fetcher.close)
        await asyncio.gather(decoders.start(), inference.start())
        token = await leases.join()
        tasks = [_supervised("leases", leases.run), _supervised("watch", partial(watch.run, token))]
        window = OplogWindow(collections)
        read = partial(signs, setup.device, watch, sweeper, leases, decoders, inference, window, tasks)
        add_readings(metrics, read, intake, watch, writer, leases, inference)
        if config.health.enabled:
            endpoint = Endpoint(config.health.host, config.health.port, read, metrics)
            url = await endpoint.start()
            stack.push_async_callback(endpoint.close)
            await leases.publish(url)
            log.info("health and metrics at %s", url)
        try:
            await _either(watch.opened, stop)  # open the stream first, then sweep: nothing falls in between
            watch.replay(leases.owed())
            tasks += [
                _supervised("sweep", sweeper.run),
                _supervised("pipeline", pipeline.run),
                _supervised("schedule", schedule.run),
                _supervised("tally", tally.run),
                _supervised("workers", partial(_keep_alive, decoders, inference)),
                _supervised("oplog", window.run),
            ]
            yield Service(pipeline, leases, tasks)
        finally:
            await _wind_down(tasks, pipeline, watch, leases, tally, config.pipeline.stop_timeout_s)


async def _keep_alive(decoders: Decoders, inference: Inference) -> None:
    """Replaces workers that ended, also while nothing is to be done. Never returns."""
    for attempt in itertools.count(1):
        try:
            await asyncio.sleep(REVIVE_S)
            await decoders.revive()
            await inference.revive()
        except WorkerFailed as error:
            log.error("a worker could not be started again: %s", error)
            await asyncio.sleep(backoff(min(attempt, 5), REVIVE_S, 60.0))


def signs(
    device: str,
    watch: Watch,
    sweeper: Sweeper,
    leases: Leases,
    decoders: Decoders,
    inference: Inference,
    window: OplogWindow,
    tasks: Sequence[asyncio.Task[None]],
) -> Signs:
    """What the parts show now."""
    now = asyncio.get_running_loop().time()
    return Signs(
        tail_open=watch.opened.is_set(),
        tail_age_s=now - watch.heard_at,
        lag_s=watch.lag_s,
        oplog_window_s=window.seconds,
        sweeping=sweeper.sweeping,
        sweep_age_s=now - sweeper.progress_at,
        lease_age_s=now - leases.renewed_at,
        device=device,
        worker_device=inference.device,
        workers_dead=(*decoders.dead, *(() if inference.alive else ("inference",))),
        tasks_ended=tuple(task.get_name() for task in tasks if task.done()),
    )


def add_readings(
    metrics: Metrics,
    read: Callable[[], Signs],
    intake: Intake,
    watch: Watch,
    writer: Writer,
    leases: Leases,
    inference: Inference,
) -> None:
    """The numbers that the parts keep by themselves."""
    add = metrics.reading
    add("enrichd_lag_seconds", "Age of the oldest change whose work is not safe.", lambda: watch.lag_s)
    add("enrichd_tail_age_seconds", "Time since the change stream answered last.", lambda: read().tail_age_s)
    add("enrichd_oplog_window_seconds", "How far back the server's history goes; -1: not known.", lambda: _window(read))
    add("enrichd_queue_documents", "Documents that wait in memory.", lambda: intake.waiting)
    add("enrichd_working_documents", "Documents that are worked on.", lambda: intake.working)
    add("enrichd_pending_events", "Changes that hold the resume token back.", lambda: watch.pending)
    add("enrichd_stream_breaks_total", "Change streams that broke.", lambda: watch.breaks, "counter")
    add("enrichd_history_gaps_total", "Histories lost.", lambda: watch.gaps, "counter")
    add("enrichd_events_dropped_total", "Changes left to the sweep.", lambda: watch.left_to_sweep, "counter")
    add("enrichd_write_retries_total", "Writes that were repeated.", lambda: writer.retries, "counter")
    add("enrichd_worker_crashes_total", "Batches whose worker ended.", lambda: inference.crashes, "counter")
    add("enrichd_takeovers_total", "Daemons whose buckets were freed.", lambda: leases.takeovers, "counter")
    add("enrichd_buckets_owned", "Buckets of the collection that this daemon works on.", lambda: len(leases.owned))
    add("enrichd_ready", "1 where every health check passes.", lambda: all(check.ok for check in examine(read())))


def _window(read: Callable[[], Signs]) -> float:
    window = read().oplog_window_s
    return -1.0 if window is None else window


async def _wind_down(
    tasks: Sequence[asyncio.Task[None]],
    pipeline: Pipeline,
    watch: Watch,
    leases: Leases,
    tally: Tally,
    timeout_s: float,
) -> None:
    """Stops intake, lets images in flight finish, saves the token and gives the leases back, within `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            await _cancel(tasks)
            await pipeline.drain()
            await tally.count()
            await watch.save()
            await leases.leave()
    except TimeoutError:
        log.warning("images in flight did not finish within %.0f s; they are found again", timeout_s)
        pipeline.abandon()
    except PyMongoError as error:
        log.warning("the database did not take the last position; some images are looked at again: %s", error)


async def _either(event: asyncio.Event, other: asyncio.Event | None) -> None:
    waits = [asyncio.create_task(one.wait()) for one in (event, other) if one is not None]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _supervised(name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """A task that starts its work anew when that breaks off for a reason nobody foresaw; an error of enrichd's own is
    one that the daemon may not go on with, and ends the task."""

    async def run() -> None:
        for attempt in itertools.count(1):
            try:
                await work()
                return
            except EnrichdError:
                raise
            except Exception:
                log.exception("%s broke off and starts anew", name)
                await asyncio.sleep(backoff(attempt, 0.5, 60.0))

    return asyncio.create_task(run(), name=name)


def inference_settings(setup: Setup, cores: int) -> InferenceSettings:
    """What the inference worker needs to load the same enrichers."""
    names = setup.plan.names
    return InferenceSettings(
        names=names,
        settings={name: setup.config.enrichers.settings(name) for name in names},
        cache=Path(setup.config.models.folder),
        entries=setup.config.models.entries,
        device=setup.device,
        threads=cores,
        memory_bytes=setup.config.pipeline.task_memory_mb << 20,
        gpu_memory_mb=setup.config.pipeline.gpu_memory_mb,
        tensorrt=setup.config.pipeline.tensorrt,
    )


async def _remove_orphans(collections: Collections, images: Images, tally: Tally) -> int:
    """Deletes the faces of images that are gone; how many."""
    removed = 0
    chunk: list[Mapping[str, Any]] = []
    async for key in image_keys(collections):
        chunk.append(key)
        if len(chunk) == 500:
            removed += await delete_faces(collections, await missing_images(images, chunk), tally)
            chunk = []
    return removed + await delete_faces(collections, await missing_images(images, chunk), tally)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
