"""Takes documents from the intake through plan, fetch, decode and enrichers to the write."""

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pymongo.errors import PyMongoError

from daemon.batch import Batcher
from daemon.clock import utc_now
from daemon.decoding import Decoded, Decoders
from daemon.exemplars import Exemplars
from daemon.faces import ImageFaces, delete_faces, write_faces
from daemon.fetch import Fetcher
from daemon.inference import Answers, ImageRef, Inference, Timed, Unit, lanes_of, units_of
from daemon.intake import Entry, Intake, Key, Priority, key_token
from daemon.metrics import Metrics
from daemon.plan import Decision, ImageDocument, Plan, decide
from daemon.retry import RetryPolicy, backoff
from daemon.store.collections import Collections
from daemon.store.images import Answer, Images, Outcome, Written
from daemon.tally import Tally
from enrichers.contract import Enricher, Failure, Result
from enrichers.errors import EnrichdError

log = logging.getLogger(__name__)

#: documents in one bulk write
CHUNK = 200
#: documents in one read: a server compares each with all the keys that were asked for
READ = 40


class Writer:
    """Writes outcomes, many at a time: what arrives while one bulk write runs goes with the next. A write that fails
    because the database is away is repeated until it succeeds; it is idempotent."""

    def __init__(
        self,
        collections: Collections,
        images: Images,
        plan: Plan,
        retry: RetryPolicy,
        exemplars: Exemplars,
        tally: Tally,
    ) -> None:
        self._collections = collections
        self._exemplars = exemplars
        self._tally = tally
        self._images = images
        self._plan = plan
        self._retry = retry
        self._queue: list[tuple[Outcome, asyncio.Future[Written]]] = []
        self._task: asyncio.Task[None] | None = None
        self.retries = 0  #: writes that were repeated

    async def write(self, outcome: Outcome) -> Written:
        """What became of the outcome, once it is safe in the database."""
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._queue.append((outcome, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush())
        return await future

    async def _flush(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:CHUNK], self._queue[CHUNK:]
            try:
                written = await self._persist([outcome for outcome, _ in batch])
            except Exception as error:
                if len(batch) > 1:  # one outcome that cannot be written must not take the others with it
                    for single in batch:
                        await self._write_one(*single)
                else:
                    _fail(batch[0][1], error)
                continue
            for (_, future), what in zip(batch, written, strict=True):
                if not future.done():
                    future.set_result(what)

    async def discard_faces(self, outcome: Outcome) -> None:
        """Deletes the faces that were stored for an image whose document cannot list them."""
        if _faceless(outcome, Written.SET_ASIDE):
            await _persistently(delete_faces, self._collections, [outcome.document.key], self._tally)

    async def _write_one(self, outcome: Outcome, future: "asyncio.Future[Written]") -> None:
        try:
            written = await self._persist([outcome])
        except Exception as error:
            _fail(future, error)
        else:
            if not future.done():
                future.set_result(written[0])

    async def _persist(self, outcomes: Sequence[Outcome]) -> list[Written]:
        now = utc_now()
        for attempt in itertools.count(1):
            try:
                await self._write_faces(outcomes, now)
                written = await self._images.write(outcomes, self._plan, self._retry, now)
                gone = [o.document.key for o, what in zip(outcomes, written, strict=True) if _faceless(o, what)]
                if gone:
                    await delete_faces(self._collections, gone, self._tally)
                return written
            except PyMongoError as error:
                self.retries += 1
                delay = backoff(attempt, 0.2, 30.0)
                log.warning("writing %d results failed, again in %.1f s: %s", len(outcomes), delay, error)
                await asyncio.sleep(delay)
        raise AssertionError

    async def _write_faces(self, outcomes: Sequence[Outcome], now: datetime) -> None:
        found: list[tuple[Outcome, ImageFaces]] = []
        for outcome in outcomes:
            answer = outcome.answers.get("faces")
            if answer is not None and isinstance(answer.outcome, Result):
                faces = answer.outcome.faces
            elif _shows_nothing(outcome):
                faces = ()
            else:
                continue
            found.append((outcome, ImageFaces(dict(outcome.document.key), outcome.image_sha256 or "", faces)))
        if found:
            images = [image for _, image in found]
            items = await write_faces(self._collections, images, now, self._exemplars, self._tally)
            for (outcome, _), entries in zip(found, items, strict=True):
                outcome.face_items = entries


def _fail(future: "asyncio.Future[Written]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _faceless(outcome: Outcome, written: Written) -> bool:
    """Whether faces that were just stored have no image that lists them: it is gone or cannot hold its answers."""
    refused = written is Written.SET_ASIDE and "faces" not in outcome.document.enrichments
    return written is Written.GONE or refused


def _shows_nothing(outcome: Outcome) -> bool:
    """Whether the faces of an earlier image no longer belong here: the source changed to one that is no image."""
    unreadable = outcome.unreadable
    before = outcome.document.enrichment.get("source_ref")
    return unreadable is not None and not unreadable.transient and before not in (None, outcome.source_ref)


class Pipeline:
    """Works on up to `in_flight` images at a time; every entry taken from the intake is finished exactly once."""

    def __init__(
        self,
        plan: Plan,
        enrichers: Sequence[Enricher],
        images: Images,
        writer: Writer,
        fetcher: Fetcher,
        decoders: Decoders,
        inference: Inference,
        intake: Intake,
        *,
        in_flight: int,
        wait_s: float,
        device: str,
        set_aside: set[bytes],
        owns: Callable[[Key], bool] = lambda key: True,
        metrics: Metrics | None = None,
    ) -> None:
        """`owns`: whether this daemon may take a documentKey on; others are left to other daemons."""
        self._owns = owns
        self._metrics = metrics or Metrics()
        self._unmatched: dict[bytes, tuple[Any, str]] = {}  #: documents that were not as they were read, as read
        self._plan = plan
        self._images = images
        self._writer = writer
        self._fetcher = fetcher
        self._decoders = decoders
        self._intake = intake
        self._in_flight = in_flight
        self._device = device
        self._set_aside = set_aside
        self._forms = {enricher.name: enricher.form for enricher in enrichers}
        self._requires = {step.name: step.requires for step in plan.steps}
        self._units = units_of(enrichers)
        lanes = lanes_of(self._units, inference.cores, device)
        self._batchers = {unit.name: _batcher(unit, inference, wait_s, lanes, self._metrics) for unit in self._units}
        self._keys = itertools.count()
        self._room = asyncio.Semaphore(in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self.processed: Counter[str] = Counter()  #: images by what became of them

    async def run(self) -> None:
        """Never returns; cancel it to stop taking documents on, then await `drain`."""
        while True:
            await self._room.acquire()
            most = 1
            while most < READ and not self._room.locked():
                await self._room.acquire()
                most += 1
            try:
                entries = await self._intake.take(most)
            except asyncio.CancelledError:
                for _ in range(most):
                    self._room.release()
                raise
            for _ in range(most - len(entries)):
                self._room.release()
            self._spawn(self._look(entries))

    async def drain(self) -> None:
        """Waits until every image that was taken on is finished."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def abandon(self) -> None:
        """Gives up what is in flight; nothing of it is written any more."""
        for task in self._tasks:
            task.cancel()

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _finish(self, entry: Entry, *, again: bool = False) -> None:
        self._room.release()
        self._intake.finish(entry, again=again)

    async def _look(self, entries: Sequence[Entry]) -> None:
        mine = [entry for entry in entries if self._owns(entry.key)]
        for entry in entries:
            if entry not in mine:
                self._finish(entry)
        try:
            documents = await self._load(mine)
        except Exception:  # one that cannot be read, which must not hold up the others
            if len(mine) > 1:
                for entry in mine:
                    self._spawn(self._look([entry]))
            else:
                log.exception("%s cannot be read", dict(mine[0].key))
                self._set_aside.add(mine[0].token)
                self._finish(mine[0])
            return
        now = utc_now()
        unmarked: list[tuple[Entry, ImageDocument]] = []
        for entry in mine:
            document = documents.get(entry.token)
            skip = entry.priority is not Priority.LIVE and entry.token in self._set_aside
            if document is None or document.source is None or skip:
                self._finish(entry)
                continue
            decision = decide(document, self._plan, now)
            if not decision.nothing:
                self._spawn(self._process(entry, document, decision))
            elif document.enrichment.get("plan") != self._plan.hash:
                unmarked.append((entry, document))
            else:
                self._finish(entry)
        if unmarked:
            try:
                await _persistently(self._images.touch_plan, [document for _, document in unmarked], self._plan)
            except Exception:
                log.exception("%d documents that lack nothing could not be marked as such", len(unmarked))
            for entry, _ in unmarked:
                self._finish(entry)

    async def _load(self, entries: Sequence[Entry]) -> dict[bytes, ImageDocument]:
        by_id = {_id_token(entry.key): entry.token for entry in entries}
        documents = await _persistently(self._images.load, [entry.key for entry in entries], self._plan)
        return {by_id[_id_token(document.key)]: document for document in documents}

    async def _process(self, entry: Entry, document: ImageDocument, decision: Decision) -> None:
        assert decision.source_ref is not None
        outcome = Outcome(document, decision.source_ref)
        again = False
        try:
            await self._enrich(outcome, tuple(decision.missing))
            with self._timed("write"):
                written = await self._writer.write(outcome)
            self.processed[written] += 1
            self._count(outcome, written)
            if written is Written.CHANGED:
                again = await self._look_again(entry, outcome)
            else:
                self._unmatched.pop(entry.token, None)
            if written is Written.SET_ASIDE:
                self._set_aside.add(entry.token)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("%s could not be processed; a sweep will find it again", dict(document.key))
            await _persistently(self._images.forget_plan, [document.key])
        finally:
            self._finish(entry, again=again)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._metrics.stage.observe(time.perf_counter() - started, stage)

    def _count(self, outcome: Outcome, written: Written) -> None:
        self._metrics.images.add(written)
        if outcome.unreadable is not None:
            self._metrics.errors.add("decode", outcome.unreadable.type)
        for name, answer in outcome.answers.items():
            failed = isinstance(answer.outcome, Failure)
            self._metrics.outcomes.add(name, "failed" if failed else "done")
            if isinstance(answer.outcome, Failure):
                self._metrics.errors.add(name, answer.outcome.type)

    async def _look_again(self, entry: Entry, outcome: Outcome) -> bool:
        """After the document was not as it was read: whether to look at it again. Faces that were stored for what it
        was before are found anew for what it is now. One that is as it was read, and yet not found, is set aside."""
        document = outcome.document
        read = (document.enrichment.get("at"), outcome.source_ref)
        if self._unmatched.get(entry.token) == read:
            log.error("%s cannot be matched by what was read of it", dict(document.key))
            await _persistently(self._images.set_aside_unmatched, outcome, utc_now())
            await self._writer.discard_faces(outcome)
            self._set_aside.add(entry.token)
            del self._unmatched[entry.token]
            return False
        self._unmatched[entry.token] = read
        if outcome.face_items is not None:
            await _persistently(self._images.forget_run, document.key, "faces")
        return True

    async def _enrich(self, outcome: Outcome, missing: tuple[str, ...]) -> None:
        units = [unit for unit in self._units if any(name in missing for name in unit.enrichers)]
        for unit in units:
            self._batchers[unit.name].expect()
        decoded: Decoded | Failure | None = None
        try:
            with self._timed("decode"):
                decoded = await self._decode(outcome.document.source, missing)
        finally:
            if not isinstance(decoded, Decoded):
                for unit in units:
                    self._batchers[unit.name].forgo()
        if isinstance(decoded, Failure):
            outcome.unreadable = decoded
            return
        try:
            outcome.image_sha256 = decoded.facts.sha256
            with self._timed("enrich"):
                await self._run_units(outcome, units, missing, decoded)
        finally:
            decoded.release()

    async def _decode(self, source: Any, missing: tuple[str, ...]) -> Decoded | Failure:
        sides = [self._forms[name].max_side for name in missing]
        max_side = None if None in sides else max(side for side in sides if side is not None)
        try:
            return await self._decoders.decode(await self._fetcher.fetch(source), max_side)
        except (EnrichdError, OSError) as error:
            return Failure.of(error)

    async def _run_units(
        self, outcome: Outcome, units: Sequence[Unit], missing: tuple[str, ...], decoded: Decoded
    ) -> None:
        running: dict[str, asyncio.Future[None]] = {}
        for unit in units:
            waits = [future for name, future in running.items() if unit.requires & set(self._unit(name).enrichers)]
            task = asyncio.ensure_future(self._run_unit(outcome, unit, missing, decoded, waits))
            running[unit.name] = task
        await asyncio.gather(*running.values())

    def _unit(self, name: str) -> Unit:
        return next(unit for unit in self._units if unit.name == name)

    async def _run_unit(
        self,
        outcome: Outcome,
        unit: Unit,
        missing: tuple[str, ...],
        decoded: Decoded,
        waits: Sequence["asyncio.Future[None]"],
    ) -> None:
        batcher = self._batchers[unit.name]
        try:
            for future in waits:
                await asyncio.shield(future)
        except BaseException:
            batcher.forgo()
            raise
        results, unmet = self._results(outcome, unit)
        wanted = []
        for name in (name for name in unit.enrichers if name in missing):
            lacks = next((required for required in self._requires[name] if required in unmet), None)
            if lacks is None:
                wanted.append(name)
            else:
                failure = Failure("RequirementFailed", f"The enricher {lacks}, whose answer this needs, failed.")
                outcome.answers[name] = Answer(failure, 0.0, self._device)
        if not wanted:
            batcher.forgo()
            return
        facts = decoded.facts
        ref = ImageRef(next(self._keys), decoded.pixels, facts.width, facts.height, facts, tuple(wanted), results)
        try:
            answers: Answers = await batcher.submit(ref)
        except (EnrichdError, OSError) as error:  # no worker could be started, say
            answers = {name: Timed(Failure.of(error), 0.0) for name in wanted}
        for name, timed in answers.items():
            outcome.answers[name] = Answer(timed.outcome, timed.ms, self._device)

    def _results(self, outcome: Outcome, unit: Unit) -> tuple[dict[str, Mapping[str, Any]], set[str]]:
        """The answers that a unit requires, from this look or from the document, and those that are not to be had."""
        results: dict[str, Mapping[str, Any]] = {}
        unmet: set[str] = set()
        for name in unit.requires:
            answer = outcome.answers.get(name)
            stored = outcome.document.enrichments.get(name)
            if answer is not None:
                if isinstance(answer.outcome, Result):
                    results[name] = answer.outcome.required()
                else:
                    unmet.add(name)
            elif isinstance(stored, Mapping) and (stored.get("run") or {}).get("state") == "done":
                results[name] = stored
            else:
                unmet.add(name)
        return results, unmet


def _batcher(unit: Unit, inference: Inference, wait_s: float, lanes: int, metrics: Metrics) -> Batcher:
    async def run(images: Sequence[ImageRef]) -> list[Answers]:
        metrics.batch.observe(len(images), unit.name)
        return await inference.run(unit.name, images)

    return Batcher(run, unit.max_batch, wait_s, lanes if unit.concurrent else 1)


def _id_token(key: Mapping[str, Any]) -> bytes:
    return key_token({"_id": key["_id"]})


async def _persistently(operation: Any, *args: Any) -> Any:
    """Repeats a database operation that is safe to repeat until the database answers."""
    for attempt in itertools.count(1):
        try:
            return await operation(*args)
        except PyMongoError as error:
            delay = backoff(attempt, 0.2, 30.0)
            log.warning("the database did not answer, again in %.1f s: %s", delay, error)
            await asyncio.sleep(delay)
    return None
