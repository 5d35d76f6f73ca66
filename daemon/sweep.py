"""Finds what the change stream missed: a fast sweep by index, and a verifying one that reads every document."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from bson import encode
from pymongo.errors import PyMongoError

from daemon.clock import utc_now
from daemon.config import Sweep as Settings
from daemon.intake import Intake, Priority
from daemon.plan import decide
from daemon.retry import backoff
from daemon.store.images import Images
from daemon.store.state import State, StoredPlan

log = logging.getLogger(__name__)

#: keys in one query
CHUNK = 500


class Sweeper:
    """Runs both sweeps, for ever: the fast one at its interval and whenever it is woken."""

    def __init__(
        self,
        settings: Settings,
        images: Images,
        state: State,
        intake: Intake,
        stored: StoredPlan,
        begun: Callable[[], None],
        faceless: Callable[[], Awaitable[int]],
    ) -> None:
        """`begun` is called before a sweep reads anything; `faceless` removes faces whose image is gone."""
        self._settings = settings
        self._images = images
        self._state = state
        self._intake = intake
        self._stored = stored
        self._begun = begun
        self._faceless = faceless
        self._wake = asyncio.Event()
        self.swept = asyncio.Event()  #: set once the first fast sweep has ended

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Never returns."""
        failures = 0
        while True:
            self._wake.clear()
            try:
                await self.fast()
                failures = 0
                self.swept.set()
                if await self._verify_due():
                    await self.verify()
            except PyMongoError as error:
                failures += 1
                delay = backoff(failures, 0.5, 30.0)
                log.warning("a sweep broke off, again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                continue
            try:
                async with asyncio.timeout(self._settings.fast_interval_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def fast(self) -> int:
        """Offers every document that was never completed, was completed under an older plan, or has a retry due.
        Returns how many."""
        self._begun()
        marks = await self._state.sweep_marks()
        found = 0
        async for key in self._images.due(utc_now()):
            await self._intake.put(key, Priority.RETRY)
            found += 1
        for hash in (None, *self._stored.older):
            async for key in self._images.stale(hash):
                await self._intake.put(key, Priority.BACKFILL)
                found += 1
        if marks:
            await self._state.clear_sweep(marks)
        if found:
            log.info("the fast sweep found %d documents to look at", found)
        return found

    async def _verify_due(self) -> bool:
        last = await self._state.last_verified()
        return last is None or utc_now() - last >= timedelta(hours=self._settings.verify_interval_h)

    async def verify(self) -> Mapping[str, int]:
        """Reads every document, offers those that lack anything, and removes faces whose image is gone."""
        documents = lacking = 0
        loop = asyncio.get_running_loop()
        started = loop.time()
        async for document in self._images.all(self._stored.plan):
            documents += 1
            if not decide(document, self._stored.plan, utc_now()).nothing:
                lacking += 1
                await self._intake.put(document.key, Priority.BACKFILL)
            ahead = documents / self._settings.verify_rate - (loop.time() - started)
            if ahead > 0.1:
                await asyncio.sleep(ahead)
        counts = {"documents": documents, "lacking": lacking, "faces_removed": await self._faceless()}
        await self._state.save_verified(utc_now(), counts)
        log.info("the verifying sweep read %(documents)d documents, %(lacking)d lacked something", counts)
        return counts


async def missing_images(images: Images, keys: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of the documentKeys that have no document."""
    missing: list[Mapping[str, Any]] = []
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        there = await images.exist([key["_id"] for key in chunk])
        missing += [key for key in chunk if encode({"_id": key["_id"]}) not in there]
    return missing
