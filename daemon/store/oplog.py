"""How far back the server's history goes, which is how long a daemon may be away without a gap."""

import asyncio
import logging

from pymongo.errors import PyMongoError

from daemon.store.collections import Collections

log = logging.getLogger(__name__)

#: seconds between looks
INTERVAL_S = 60.0


class OplogWindow:
    """Asks for the oldest and the newest entry of the oplog now and then. A user who may not read the database `local`,
    a mongos, which has no oplog, and the embedded server leave it unknown."""

    def __init__(self, collections: Collections) -> None:
        self._client = collections.database.client
        self._oplog = self._client["local"]["oplog.rs"]
        self.seconds: float | None = None  #: between the oldest and the newest entry

    async def run(self) -> None:
        """Never returns."""
        while True:
            try:
                self.seconds = await self.read()
            except PyMongoError as error:
                self.seconds = None
                log.debug("the oplog window is not known: %s", error)
            await asyncio.sleep(INTERVAL_S)

    async def read(self) -> float | None:
        if "secantusVersion" in await self._client.admin.command("buildInfo"):
            return None  # the embedded server would read and hold its whole history to find one entry: 3 GB of pictures
        oldest = await self._oplog.find_one({}, {"ts": 1}, sort=[("$natural", 1)])
        newest = await self._oplog.find_one({}, {"ts": 1}, sort=[("$natural", -1)])
        if not oldest or not newest:
            return None
        return float(newest["ts"].time - oldest["ts"].time)
