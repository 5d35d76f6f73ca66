"""What the daemon does by the clock and at a change of a name: recluster, and follow the identities."""

import asyncio
import logging
from collections.abc import Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from daemon.config import Identities
from daemon.identities import recluster, watch_names
from daemon.store.collections import Collections

log = logging.getLogger(__name__)


class Schedule:
    """The periodic recluster, one at a time, beside the task that follows people's names."""

    def __init__(self, collections: Collections, settings: Identities, turn: Callable[[], bool]) -> None:
        """`turn`: whether it is this daemon that reclusters for all."""
        self._collections = collections
        self._turn = turn
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
        scheduler.start()
        try:
            await watch_names(self._collections)
        finally:
            scheduler.shutdown(wait=False)

    async def _recluster(self) -> None:
        if not self._turn():
            return
        try:
            report = await recluster(self._collections, self._settings)
            log.info("recluster: %s", report)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("the recluster failed; the next one tries again")
