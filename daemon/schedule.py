"""What the daemon does by the clock and at a change of a name: recluster, and follow the identities."""

import asyncio
import logging
from collections.abc import Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from pymongo.errors import PyMongoError

from daemon.config import Identities
from daemon.exemplars import Exemplars
from daemon.identities import recluster, watch_identities
from daemon.store.collections import Collections
from daemon.store.faces import count_waiting
from daemon.store.identities import any_identity
from enrichers.errors import EnrichdError

log = logging.getLogger(__name__)

#: seconds between looks at whether the first faces are there and no more images wait
FIRST_LOOK_S = 10.0


class Schedule:
    """The periodic recluster, one at a time, beside the task that follows the identities."""

    def __init__(
        self,
        collections: Collections,
        settings: Identities,
        exemplars: Exemplars,
        turn: Callable[[], bool],
        idle: Callable[[], bool],
    ) -> None:
        """`exemplars`: the known people, from whom those are taken that are deleted; `turn`: whether it is this daemon
        that reclusters for all; `idle`: whether no image waits or is worked on."""
        self._collections = collections
        self._exemplars = exemplars
        self._turn = turn
        self._idle = idle
        self._one = asyncio.Lock()
        self._seen = 0  #: faces that waited at the last look for first ones
        self._settings = settings

    async def run(self) -> None:
        """Never returns; cancel it to stop."""
        scheduler = AsyncIOScheduler(timezone="UTC")
        scheduler.add_job(
            self._recluster,
            "interval",
            minutes=self._settings.recluster_interval_m,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
        scheduler.add_job(self.first, "interval", seconds=FIRST_LOOK_S, max_instances=1, coalesce=True)
        scheduler.start()
        try:
            await watch_identities(self._collections, self._exemplars)
        finally:
            scheduler.shutdown(wait=False)

    async def first(self) -> None:
        """Reclusters ahead of time where faces wait and nobody is known yet, once the work is quiet: the people of
        a first album are there soon. The same faces are not tried twice."""
        if not (self._turn() and self._idle()) or self._one.locked():
            return
        try:
            if await any_identity(self._collections):
                return
            waiting = await count_waiting(self._collections)
        except PyMongoError as error:
            log.warning("whether faces wait for a first recluster could not be asked: %s", error)
            return
        if waiting and waiting != self._seen:
            self._seen = waiting
            await self._recluster()

    async def _recluster(self) -> None:
        if self._turn():
            async with self._one:
                await self._regroup()

    async def _regroup(self) -> None:
        try:
            report = await recluster(self._collections, self._settings)
            counts = (report.faces, report.identities, report.alone, report.changes, report.seconds)
            log.info("recluster: %d faces, %d identities, %d faces alone, %s, %.1f s", *counts)
        except asyncio.CancelledError:
            raise
        except EnrichdError as error:
            log.error("no recluster: %s", error)
        except Exception:
            log.exception("the recluster failed; the next one tries again")
