"""Work that only one process at a time may do on a database, whether a daemon or a command does it."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pymongo.errors import PyMongoError

from daemon.store.leases import LeaseStore

log = logging.getLogger(__name__)

#: seconds after which the work of a process that ended without a word may be taken up by another
LIFETIME_S = 30.0
#: seconds between renewals
RENEW_S = 8.0
#: seconds between attempts while another process is at it
WAIT_S = 0.2


@asynccontextmanager
async def exclusive(store: LeaseStore, name: str) -> AsyncIterator[None]:
    """Waits until no other process is at the work `name`, and keeps others from it until the block is left."""
    holder = secrets.token_hex(8)
    while not await store.seize(name, holder, LIFETIME_S):  # noqa: ASYNC110  another process sets no event
        await asyncio.sleep(WAIT_S)
    renewing = asyncio.create_task(_renew(store, name, holder))
    try:
        yield
    finally:
        renewing.cancel()
        with contextlib.suppress(PyMongoError):  # it expires by itself
            await store.leave(name, holder)


async def _renew(store: LeaseStore, name: str, holder: str) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        try:
            await store.seize(name, holder, LIFETIME_S)
        except PyMongoError as error:
            log.warning("the turn at %s could not be renewed: %s", name, error)
