"""What the daemon does by the clock and at a change of a name: recluster, and follow the identities."""

import asyncio
import logging
from collections.abc import Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from daemon.config import Identities
from daemon.exemplars import Exemplars
from daemon.identities import recluster, watch_identities
from daemon.store.collections import Collections
from enrichers.errors import EnrichdError

log = logging.getLogger(__name__)


class Schedule:
    """The periodic recluster, one at a time, beside the task that follows the identities."""

    def __init__(
        self, collections: Collections, settings: Identities, exemplars: Exemplars, turn: Callable[[], bool]
    ) -> None:
        """`exemplars`: the known people, from whom those are taken that are deleted; `turn`: whether it is this daemon
        that reclusters for all."""
        self._collections = collections
        self._exemplars = exemplars
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
            await watch_identities(self._collections, self._exemplars)
        finally:
            scheduler.shutdown(wait=False)

    async def _recluster(self) -> None:
        if not self._turn():
            return
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
