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
from migrations.m0001_collections import IMAGE_INDEXES

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
        *,
        owns: Callable[[Mapping[str, Any]], bool],
        verifies: Callable[[], bool],
        opened: asyncio.Event,
        begun: Callable[[], None],
        faceless: Callable[[], Awaitable[int]],
    ) -> None:
        """`owns`: whether a documentKey is this daemon's; `verifies`: whether it sweeps every document for all daemons;
        `opened`: set while the stream is open, before which no sweep starts, so that nothing falls in between;
        `begun` is called before a sweep reads anything; `faceless` removes faces whose image is gone."""
        self._settings = settings
        self._images = images
        self._state = state
        self._intake = intake
        self._stored = stored
        self._owns = owns
        self._verifies = verifies
        self._opened = opened
        self._begun = begun
        self._faceless = faceless
        self._wake = asyncio.Event()
        self.swept = asyncio.Event()  #: set once the first fast sweep has ended
        self.progress_at = 0.0  #: when a sweep last read a document or ended, by the event loop's clock
        self.sweeping = False

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Never returns."""
        failures = 0
        while True:
            self.sweeping = False
            await self._opened.wait()
            self._wake.clear()
            self.sweeping = True
            self._advance()
            try:
                await self._images.ensure_indexes(IMAGE_INDEXES)
                await self.fast()
                failures = 0
                self.swept.set()
                if self._verifies() and await self._verify_due():
                    await self.verify()
            except PyMongoError as error:
                failures += 1
                delay = backoff(failures, 0.5, 30.0)
                log.warning("a sweep broke off, again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                continue
            self.sweeping = False
            self._advance()
            try:
                async with asyncio.timeout(self._settings.fast_interval_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _advance(self) -> None:
        self.progress_at = asyncio.get_running_loop().time()

    async def _offer(self, key: Mapping[str, Any], priority: Priority) -> bool:
        """False where the key is another daemon's."""
        self._advance()
        if not self._owns(key):
            return False
        await self._intake.put(key, priority)
        self._advance()
        return True

    async def fast(self) -> int:
        """Offers every document of this daemon's that was never completed, was completed under an older plan, or has a
        retry due. Returns how many."""
        self._begun()
        mark = await self._state.sweep_mark()
        found = 0
        async for key in self._images.due(utc_now()):
            found += await self._offer(key, Priority.RETRY)
        for hash in (None, *self._stored.older):
            async for key in self._images.stale(hash):
                found += await self._offer(key, Priority.BACKFILL)
        if mark.needed and not mark.verify:
            await self._state.clear_sweep(mark)
        if found:
            log.info("the fast sweep found %d documents to look at", found)
        return found

    async def _verify_due(self) -> bool:
        if (await self._state.sweep_mark()).verify:
            return True
        last = await self._state.last_verified()
        return last is None or abs(utc_now() - last) >= timedelta(hours=self._settings.verify_interval_h)

    async def verify(self) -> Mapping[str, int]:
        """Reads every document, durably notes on those that lack anything that they do, so that the daemon whose they
        are finds them, and removes faces whose image is gone."""
        self._begun()
        mark = await self._state.sweep_mark()
        documents = lacking = 0
        noted: list[Mapping[str, Any]] = []
        loop = asyncio.get_running_loop()
        started = loop.time()
        async for document in self._images.all(self._stored.plan):
            documents += 1
            self._advance()
            if not decide(document, self._stored.plan, utc_now()).nothing:
                lacking += 1
                if document.enrichment.get("plan") == self._stored.plan.hash:
                    noted.append(document.key)
            if len(noted) == CHUNK:
                await self._images.forget_plan(noted)
                noted = []
            ahead = documents / self._settings.verify_rate - (loop.time() - started)
            if ahead > 0.1:
                await asyncio.sleep(ahead)
        await self._images.forget_plan(noted)
        counts = {"documents": documents, "lacking": lacking, "faces_removed": await self._faceless()}
        await self._state.save_verified(utc_now(), counts)
        await self._state.clear_sweep(mark)
        log.info("the verifying sweep read %(documents)d documents, %(lacking)d lacked something", counts)
        if lacking:
            self.wake()
        return counts


async def missing_images(images: Images, keys: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of the documentKeys that have no document."""
    missing: list[Mapping[str, Any]] = []
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        there = await images.exist([key["_id"] for key in chunk])
        missing += [key for key in chunk if encode({"_id": key["_id"]}) not in there]
    return missing
