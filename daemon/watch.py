"""Follows the change stream of the images collection and remembers how far all work is safe."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bson import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from daemon.clock import utc_now
from daemon.intake import Intake, Priority
from daemon.retry import backoff
from daemon.store.collections import Collections, Document
from daemon.store.images import ENRICHMENT
from daemon.store.state import State

log = logging.getLogger(__name__)

#: errors after which a resume token is of no use: ChangeStreamHistoryLost and its like
NOT_RESUMABLE = frozenset({260, 280, 286, 10334, 40576, 40585, 40615})
#: milliseconds that the server may hold a getMore open while nothing happens
AWAIT_MS = 1000
#: seconds between saves of the resume token
SAVE_INTERVAL_S = 1.0
#: deletes handled by one call
DELETES = 500


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
    parts = source.split(".")
    ancestors = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    requested = f"{ENRICHMENT}.requested"

    def named(name: str) -> Document:
        return {
            "$or": [
                {"$in": [name, ancestors]},
                {"$eq": [{"$indexOfCP": [name, f"{source}."]}, 0]},
                {"$eq": [name, requested]},
                {"$eq": [{"$indexOfCP": [name, f"{requested}."]}, 0]},
            ]
        }

    updated = {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}}
    #: the first request on a document without an enrichment arrives as the whole of `enrichment`
    whole = {"$and": [{"$eq": ["$$field.k", ENRICHMENT]}, {"$ne": [{"$type": "$$field.v.requested"}, "missing"]}]}
    removed = {"$ifNull": ["$updateDescription.removedFields", []]}
    return {
        "$or": [
            {
                "$anyElementTrue": [
                    {"$map": {"input": updated, "as": "field", "in": {"$or": [named("$$field.k"), whole]}}}
                ]
            },
            {"$anyElementTrue": [{"$map": {"input": removed, "as": "name", "in": named("$$name")}}]},
        ]
    }


@dataclass(slots=True)
class _Event:
    token: Mapping[str, Any]
    safe: bool = False


class Progress:
    """Which resume token may be saved: the last one before which the work of every event is safe."""

    def __init__(self) -> None:
        self._events: deque[_Event] = deque()
        self._token: Mapping[str, Any] | None = None

    @property
    def pending(self) -> int:
        return len(self._events)

    @property
    def token(self) -> Mapping[str, Any] | None:
        """None as long as nothing is safe."""
        while self._events and self._events[0].safe:
            self._token = self._events.popleft().token
        return self._token

    def begin(self, token: Mapping[str, Any]) -> Callable[[], None]:
        """An event has come; call what is returned when its work is safe."""
        event = _Event(token)
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
    """Feeds the intake from the change stream, for ever. Deletes are handed to `deleted`, and are never dropped."""

    NAME = "images"

    def __init__(
        self,
        collections: Collections,
        state: State,
        intake: Intake,
        source: str,
        deleted: Callable[[list[Mapping[str, Any]]], Awaitable[Any]],
        sweep: Callable[[], None],
    ) -> None:
        """`sweep` wakes the sweep, after its mark was stored."""
        self._collections = collections
        self._state = state
        self._intake = intake
        self._pipeline = stream_pipeline(source)
        self._deleted = deleted
        self._sweep = sweep
        self._progress = Progress()
        self._saved: Mapping[str, Any] | None = None
        self._marked = False
        self._last: Timestamp | None = None  #: operation time of the last event
        self._failures = 0  #: in a row
        self.opened = asyncio.Event()
        self.gaps = 0  #: histories lost

    def sweeping(self) -> None:
        """A sweep begins: what is dropped from now on needs a new mark."""
        self._marked = False

    async def run(self) -> None:
        """Opens the stream, again and again where it breaks. Never returns."""
        while True:
            try:
                await self._follow()
                log.info("the change stream ended (collection dropped or renamed); opening a new one")
                await self._start_over("invalidated")
            except OperationFailure as error:
                if error.code in NOT_RESUMABLE or error.has_error_label("NonResumableChangeStreamError"):
                    self.gaps += 1
                    log.error("history lost since %s: a sweep finds what changed meanwhile (%s)", self._last, error)
                    await self._start_over("history lost")
                else:
                    await self._pause(error)
            except PyMongoError as error:
                await self._pause(error)
            self._progress.reset()

    async def _pause(self, error: PyMongoError) -> None:
        self._failures += 1
        delay = backoff(self._failures, 0.2, 30.0)
        log.warning("the change stream broke, again in %.1f s: %s", delay, error)
        await asyncio.sleep(delay)

    async def _start_over(self, reason: str) -> None:
        """Durably notes that a sweep is needed, then forgets the token."""
        while True:
            try:
                await self._state.mark_sweep(reason, self._last)
                await self._state.save_stream_token(self.NAME, None, utc_now())
                break
            except PyMongoError as error:
                await self._pause(error)
        self._saved = None
        self._sweep()

    async def _follow(self) -> None:
        token = await self._state.stream_token(self.NAME)
        stream = await self._collections.images.watch(
            self._pipeline, resume_after=token, max_await_time_ms=AWAIT_MS, batch_size=1000
        )
        async with stream:
            self._failures = 0
            log.info("following the change stream%s", "" if token is None else " from where it was left")
            saver = asyncio.create_task(self._save_regularly())
            try:
                while stream.alive:
                    self.opened.set()
                    event = await stream.try_next()
                    if event is None:
                        self._progress.idle(stream.resume_token)
                    elif event["operationType"] == "invalidate":
                        return
                    elif "documentKey" in event:
                        await self._take(event)
            finally:
                saver.cancel()
                await self.save()

    async def _take(self, event: Mapping[str, Any]) -> None:
        self._last = event.get("clusterTime")
        done = self._progress.begin(event["_id"])
        key = event["documentKey"]
        if event["operationType"] == "delete":
            await self._deleted([key])
            done()
        elif not self._intake.offer(key, Priority.LIVE, done):
            if not self._marked:
                await self._state.mark_sweep("queue full", self._last)
                self._marked = True
                self._sweep()
            done()

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
            await self._state.save_stream_token(self.NAME, token, utc_now())
            self._saved = token
