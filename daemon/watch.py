"""Follows the change stream of the images collection and remembers how far all work is safe."""

import asyncio
import contextlib
import itertools
import logging
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bson import Timestamp
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from daemon.intake import Intake, Priority
from daemon.leases import Leases, bucket_of
from daemon.retry import backoff
from daemon.store.collections import Collections, Document
from daemon.store.images import ENRICHMENT
from daemon.store.state import State

log = logging.getLogger(__name__)

#: errors after which a resume token is of no use: ChangeStreamHistoryLost and its like
NOT_RESUMABLE = frozenset({260, 280, 286, 10334, 40576, 40585, 40615})
#: milliseconds that the server may hold a getMore open while nothing happens
AWAIT_MS = 1000
#: seconds before a stream is asked again that had nothing: the embedded server answers so at every write of anybody,
#: and each such answer costs it as much as a write
PAUSE_S = 0.02
#: seconds between saves of the resume token
SAVE_INTERVAL_S = 1.0


def stream_pipeline(source: str) -> list[Document]:
    """What the server sends: inserts, replaces and deletes, and those updates that touch the source field, an ancestor
    or a descendant of it, or `enrichment.requested`. enrichd's own writes match none of these."""
    return [
        {
            "$match": {
                "$or": [
                    {"operationType": {"$in": ["insert", "replace", "delete", "drop", "rename", "invalidate"]}},
                    {"operationType": "update", "$expr": _touches(source)},
                ]
            }
        },
        {"$project": {"_id": 1, "operationType": 1, "documentKey": 1, "ns": 1, "clusterTime": 1}},
    ]


def _touches(source: str) -> Document:
    *ancestors, _ = itertools.accumulate(source.split("."), "{}.{}".format)
    requested = f"{ENRICHMENT}.requested"
    whole = "|".join(f"{re.escape(name)}$" for name in ancestors)
    below = "|".join(f"{re.escape(name)}(\\.|$)" for name in (source, requested))

    def named(name: str) -> Document:
        return {"$regexMatch": {"input": name, "regex": f"^({whole}|{below})" if whole else f"^({below})"}}

    updated = {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}}
    #: the first request on a document without an enrichment arrives as the whole of `enrichment`, as the first result
    #: does; a missing field sorts before null, and some servers take it for null
    first = {"$and": [{"$eq": ["$$field.k", ENRICHMENT]}, {"$gt": ["$$field.v.requested", None]}]}
    removed = {"$ifNull": ["$updateDescription.removedFields", []]}
    return {
        "$or": [
            {
                "$anyElementTrue": [
                    {"$map": {"input": updated, "as": "field", "in": {"$or": [named("$$field.k"), first]}}}
                ]
            },
            {"$anyElementTrue": [{"$map": {"input": removed, "as": "name", "in": named("$$name")}}]},
        ]
    }


@dataclass(slots=True)
class _Event:
    token: Mapping[str, Any]
    at: float  #: seconds since 1970 when it happened
    safe: bool = False


def is_resumable(error: OperationFailure) -> bool:
    """Whether a stream that failed so can go on from its resume token."""
    return error.code not in NOT_RESUMABLE and not error.has_error_label("NonResumableChangeStreamError")


def token_seconds(token: Mapping[str, Any] | None) -> int | None:
    """The time that a resume token of MongoDB stands for, in seconds since 1970 by the server's clock: it is a hex
    string of type 0x82 (timestamp) followed by seconds and increment, four bytes each, big-endian. None where the
    token is of another kind, as the embedded server's are."""
    data = (token or {}).get("_data")
    if not isinstance(data, str) or not data.startswith("82") or len(data) < 18:
        return None
    return int(data[2:10], 16)


class Progress:
    """Which resume token may be saved: the last one before which the work of every event is safe."""

    def __init__(self) -> None:
        self._events: deque[_Event] = deque()
        self._token: Mapping[str, Any] | None = None

    @property
    def pending(self) -> int:
        """How many events hold the token back, or come after one that does."""
        self._advance()
        return len(self._events)

    @property
    def token(self) -> Mapping[str, Any] | None:
        """None as long as nothing is safe."""
        self._advance()
        return self._token

    def _advance(self) -> None:
        while self._events and self._events[0].safe:
            self._token = self._events.popleft().token

    @property
    def oldest(self) -> float | None:
        """When the oldest event happened whose work is not safe, in seconds since 1970."""
        self._advance()
        return self._events[0].at if self._events else None

    def begin(self, token: Mapping[str, Any], at: float = 0.0) -> Callable[[], None]:
        """An event has come that happened `at`; call what is returned when its work is safe."""
        event = _Event(token, at)
        self._events.append(event)

        def done() -> None:
            event.safe = True

        return done

    def idle(self, token: Mapping[str, Any] | None) -> None:
        """Nothing came up to `token` (the server's post-batch token): it counts when no event is open."""
        if token is not None and self.token is not token and not self._events:
            self._token = token

    def reset(self) -> None:
        """The stream starts anew: events of the old one no longer hold the token back."""
        self._events.clear()
        self._token = None


class Watch:
    """Feeds the intake from the change stream, for ever, with what belongs to this daemon. Deletes are handed to
    `deleted`, and are never dropped."""

    def __init__(
        self,
        collections: Collections,
        state: State,
        intake: Intake,
        leases: Leases,
        source: str,
        *,
        deleted: Callable[[list[Mapping[str, Any]]], Awaitable[Any]],
        dropped: Callable[[list[Mapping[str, Any]]], Awaitable[Any]],
        sweep: Callable[[], None],
    ) -> None:
        """`dropped` notes on documents that a sweep must find them; `sweep` wakes the sweep, its mark stored before."""
        self._collections = collections
        self._state = state
        self._intake = intake
        self._leases = leases
        self._pipeline = stream_pipeline(source)
        self._deleted = deleted
        self._dropped = dropped
        self._sweep = sweep
        self._progress = Progress()
        self._saved: Mapping[str, Any] | None = None
        self._marked = False
        self._last: Timestamp | None = None  #: operation time of the last event
        self._failures = 0  #: in a row
        self._replays: set[asyncio.Task[None]] = set()
        self._fresh = False  #: a stream was opened anew, so that a sweep must follow
        self.opened = asyncio.Event()  #: set while a stream is open
        self.heard_at = 0.0  #: when the server answered last, by the event loop's clock
        self.gaps = 0  #: histories lost
        self.breaks = 0  #: streams that broke
        self.left_to_sweep = 0  #: events left to the sweep

    def sweeping(self) -> None:
        """A sweep begins: what is dropped from now on needs a new mark."""
        self._marked = False

    @property
    def position(self) -> Mapping[str, Any] | None:
        """The resume token behind which all work is safe."""
        return self._progress.token or self._saved

    @property
    def last(self) -> Timestamp | None:
        """Operation time of the last event."""
        return self._last

    @property
    def pending(self) -> int:
        """Events whose work is not safe yet."""
        return self._progress.pending

    @property
    def lag_s(self) -> float:
        """The age in seconds of the oldest event whose work is not safe; 0 where there is none."""
        oldest = self._progress.oldest
        return 0.0 if oldest is None else max(0.0, time.time() - oldest)

    async def run(self, token: Mapping[str, Any] | None) -> None:
        """Opens the stream at `token` (None: now), and again and again where it breaks. Never returns."""
        self._saved = token
        try:
            while True:
                try:
                    await self._follow()
                    log.info("the change stream ended (collection dropped or renamed); opening a new one")
                    await self._start_over("invalidated")
                except OperationFailure as error:
                    if is_resumable(error):
                        await self._pause(error)
                    else:
                        self.gaps += 1
                        log.error("history lost since %s: a sweep finds what changed meanwhile (%s)", self._last, error)
                        await self._start_over("history lost")
                except PyMongoError as error:
                    await self._pause(error)
                self._progress.reset()
        finally:
            self.opened.clear()
            for task in self._replays:
                task.cancel()
            await asyncio.gather(*self._replays, return_exceptions=True)

    def replay(self, owed: Mapping[int, Mapping[str, Any]]) -> None:
        """Starts to read again what happened to these buckets since the token of each."""
        groups: dict[str, tuple[Mapping[str, Any], set[int]]] = {}
        for bucket, token in owed.items():
            groups.setdefault(repr(token), (token, set()))[1].add(bucket)
        for token, buckets in groups.values():
            task = asyncio.create_task(self._replay(token, frozenset(buckets)))
            self._replays.add(task)
            task.add_done_callback(self._replays.discard)

    async def _pause(self, error: PyMongoError) -> None:
        self._failures += 1
        self.breaks += 1
        delay = backoff(self._failures, 0.2, 30.0)
        log.warning("the change stream broke, again in %.1f s: %s", delay, error)
        await asyncio.sleep(delay)

    async def _start_over(self, reason: str) -> None:
        """Durably notes that a sweep is needed, then forgets the token; the sweep starts when a new stream is open."""
        self.opened.clear()
        while True:
            try:
                await self._state.mark_sweep(reason, self._last, verify=True)
                await self._leases.save_position(None)
                break
            except PyMongoError as error:
                await self._pause(error)
        self._saved = None
        self._fresh = True

    async def _open(self, token: Mapping[str, Any] | None) -> AsyncChangeStream[Document]:
        return await self._collections.images.watch(
            self._pipeline, resume_after=token, max_await_time_ms=AWAIT_MS, batch_size=1000
        )

    async def _follow(self) -> None:
        token = self._saved
        async with await self._open(token) as stream:
            if token is None:  # from here on nothing is missed, also not by whoever comes after this daemon
                self._progress.idle(stream.resume_token)
                await self.save()
            self._failures = 0
            log.info("following the change stream%s", "" if token is None else " from where it was left")
            saver = asyncio.create_task(self._save_regularly())
            try:
                while stream.alive:
                    self._heard()
                    event = await stream.try_next()
                    if event is None:
                        self._progress.idle(stream.resume_token)
                        await asyncio.sleep(PAUSE_S)
                    elif event["operationType"] == "invalidate":
                        return
                    elif "documentKey" in event:
                        await self._take(event, self._progress)
            finally:
                saver.cancel()
                with contextlib.suppress(PyMongoError):  # the token only stays where it was
                    await self.save()

    def _heard(self) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        self.opened.set()
        if self._fresh:
            self._fresh = False
            self._sweep()

    async def _take(self, event: Mapping[str, Any], progress: Progress) -> None:
        self._last = event.get("clusterTime")
        done = progress.begin(event["_id"], self._last.time if self._last is not None else time.time())
        key = event["documentKey"]
        if not self._leases.owns(key):
            done()
        elif event["operationType"] == "delete":
            await self._deleted([key])
            if not self._intake.attach(key, done):  # work under way may still write the faces of what is gone
                done()
        elif not self._intake.offer(key, Priority.LIVE, done):
            self.left_to_sweep += 1
            if event["operationType"] == "update":  # its plan says that it is complete: this alone tells the sweep
                await self._dropped([key])
            if not self._marked:
                await self._state.mark_sweep("queue full", self._last)
                self._marked = True
                self._sweep()
            done()

    async def _replay(self, token: Mapping[str, Any], buckets: frozenset[int]) -> None:
        progress = Progress()
        for attempt in itertools.count(1):
            try:
                await self._read_again(token, buckets, progress)
                break
            except OperationFailure as error:
                if not is_resumable(error):
                    self.gaps += 1
                    log.error("history of %d buckets lost: a sweep finds what changed (%s)", len(buckets), error)
                    await self._persistently(self._state.mark_sweep, "history lost", None, verify=True)
                    self._sweep()
                    break
                await asyncio.sleep(backoff(attempt, 0.2, 30.0))
            except PyMongoError as error:
                log.warning("reading the changes of %d buckets again broke off: %s", len(buckets), error)
                await asyncio.sleep(backoff(attempt, 0.2, 30.0))
        for _ in itertools.count():
            if not progress.pending:
                break
            await asyncio.sleep(0.1)
        await self._persistently(self._leases.settle, buckets)

    async def _read_again(self, token: Mapping[str, Any], buckets: frozenset[int], progress: Progress) -> None:
        """Up to what happens now; then the stream that is followed has everything."""
        until = time.time()
        events = 0
        async with await self._open(token) as stream:
            while stream.alive:
                event = await stream.try_next()
                if event is None:
                    reached = token_seconds(stream.resume_token)
                    if reached is None or reached >= until - 1:
                        break
                elif event["operationType"] == "invalidate":
                    await self._state.mark_sweep("invalidated", self._last, verify=True)
                    self._sweep()
                    break
                elif "documentKey" in event and bucket_of(event["documentKey"]) in buckets:
                    events += 1
                    await self._take(event, progress)
        log.info("read %d changes of %d buckets again", events, len(buckets))

    async def _persistently(self, operation: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> None:
        for attempt in itertools.count(1):
            try:
                await operation(*args, **named)
                return
            except PyMongoError as error:
                log.warning("the database did not answer: %s", error)
                await asyncio.sleep(backoff(attempt, 0.2, 30.0))

    async def _save_regularly(self) -> None:
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            try:
                await self.save()
            except PyMongoError as error:
                log.warning("the resume token could not be saved: %s", error)

    async def save(self) -> None:
        """Saves the resume token if it moved."""
        token = self._progress.token
        if token is not None and token != self._saved:
            await self._leases.save_position(token)
            self._saved = token
