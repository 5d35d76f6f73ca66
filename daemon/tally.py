"""Counts of identities that got or lost faces, brought up to date a moment later, many changes at once."""

import asyncio
import logging
import time
from collections.abc import Iterable

from bson import ObjectId
from pymongo.errors import PyMongoError

from daemon.store import identities as store
from daemon.store.collections import Collections

log = logging.getLogger(__name__)

#: seconds from a change to the count, so that what comes together is counted once
WAIT_S = 1.0
#: pauses are so many times as long as the counting took: it never takes more than a tenth of the time
PAUSE = 9.0


class Tally:
    """The identities whose faces are to be counted. What a crash loses, the next recluster finds."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self._waiting: set[ObjectId] = set()
        self._changed = asyncio.Event()

    def note(self, identities: Iterable[ObjectId | None]) -> None:
        """These got or lost faces; call it after the write."""
        self._waiting.update(identity for identity in identities if identity is not None)
        if self._waiting:
            self._changed.set()

    async def count(self) -> None:
        """Counts what was noted."""
        identities, self._waiting = self._waiting, set()
        self._changed.clear()
        try:
            await store.count_faces(self._collections, sorted(identities))
        except PyMongoError:
            self.note(identities)
            raise

    async def run(self) -> None:
        """Counts what is noted, until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(WAIT_S)
            started = time.monotonic()
            try:
                await self.count()
            except PyMongoError as error:
                log.warning("counting the faces of identities failed, again soon: %s", error)
            await asyncio.sleep(PAUSE * (time.monotonic() - started))
