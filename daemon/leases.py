"""Shares a collection among daemons: each owns some hash buckets of the keys for as long as it renews its lease."""

import asyncio
import itertools
import logging
import os
import secrets
import socket
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bson import encode
from pymongo.errors import PyMongoError

from daemon.clock import utc_now
from daemon.retry import backoff
from daemon.store.leases import BUCKETS, SINGLETONS, LeaseStore, Member, Table, Token

log = logging.getLogger(__name__)

#: seconds between renewals of the lease
HEARTBEAT_S = 3.0
#: seconds that a lease lives without renewal; with one heartbeat more, a dead daemon's buckets are taken within 15 s
LIFETIME_S = 10.0
#: seconds that images of a bucket which is given back may take to finish
GIVE_BACK_S = 30.0


def bucket_of(key: Mapping[str, Any]) -> int:
    """The bucket of a documentKey: CRC-32 of its `_id` as BSON, modulo the number of buckets."""
    return zlib.crc32(encode({"_id": key["_id"]})) % BUCKETS


def share(members: Sequence[str], id: str) -> int:
    """How many buckets the member `id` should own, so that no two differ by more than one."""
    rank = sorted(members).index(id)
    return BUCKETS // len(members) + (rank < BUCKETS % len(members))


@dataclass(frozen=True, slots=True)
class Move:
    """What one daemon does next: buckets to take and to give back."""

    take: tuple[int, ...] = ()
    give: tuple[int, ...] = ()


def next_move(table: Table, live: Sequence[str], id: str) -> Move:
    """Towards even shares, by few moves: whoever has too many gives the last ones back, whoever has too few takes free
    ones."""
    mine = table.owned(id)
    wanted = share(live, id)
    if len(mine) > wanted:
        return Move(give=tuple(mine[wanted:]))
    return Move(take=tuple(table.free[: wanted - len(mine)]))


def machine() -> str | None:
    """What identifies the machine and the process namespace in which this process's id means something; None where
    that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def is_gone(member: Member, here: str | None) -> bool:
    """Whether a member is known to have ended although its lease still lives: its process was on this machine."""
    if here is None or member.machine != here:
        return False
    if member.pid == os.getpid():
        return True
    try:
        os.kill(member.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


async def live_daemons(store: LeaseStore) -> list[Member]:
    """The daemons whose lease lives, without those of this machine that are known to have ended."""
    here = machine()
    return [member for member in await store.members() if member.live and not is_gone(member, here)]


class Leases:
    """This daemon's membership. `owns` is the seam: what this daemon does not own it leaves to others."""

    def __init__(
        self,
        store: LeaseStore,
        plan: str,
        *,
        position: Callable[[], Token | None],
        busy: Callable[[Callable[[Mapping[str, Any]], bool]], bool],
        gained: Callable[[Sequence[int]], Awaitable[None]],
        check: Callable[[], Awaitable[None]],
    ) -> None:
        """`position`: the resume token behind which all work is safe; `busy`: whether a key is being worked on for
        which the given function holds; `gained`: what to do with buckets that were taken; `check`: raises where this
        daemon must not go on."""
        self._store = store
        self._plan = plan
        self._position = position
        self._busy = busy
        self._gained = gained
        self._check = check
        self._machine = machine()
        self._url: str | None = None  #: of the health endpoint
        self._id = ""
        self._owned: frozenset[int] = frozenset()
        self._leaving: frozenset[int] = frozenset()
        self._singletons: frozenset[str] = frozenset()
        self._giving: asyncio.Task[None] | None = None
        self._owed: dict[int, Token] = {}  #: own buckets whose changes are still to be read again, from there
        self.renewed_at = 0.0  #: when the lease was renewed last, by the event loop's clock
        self.takeovers = 0  #: dead members whose buckets this daemon freed

    @property
    def id(self) -> str:
        return self._id

    @property
    def owned(self) -> frozenset[int]:
        return self._owned

    def owns(self, key: Mapping[str, Any]) -> bool:
        """Whether this daemon takes on work on this documentKey now."""
        bucket = bucket_of(key)
        return bucket in self._owned and bucket not in self._leaving

    def holds(self, singleton: str) -> bool:
        return singleton in self._singletons

    async def join(self) -> Token | None:
        """Registers and takes a first share; the token from which the change stream is to be opened, None for now.
        Where several positions come together, `settle_start` reads the older ones again."""
        await self._register(None)
        await self._round()
        tokens = list({repr(token): token for token in self._owed.values()}.values())
        if len(tokens) == 1:
            await self._store.save_token(self._id, tokens[0])
            await self.settle(self._owed)
            return tokens[0]
        return None

    async def run(self) -> None:
        """Renews the lease and moves towards an even share; ends only with the error of `check`."""
        failures = 0
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            await asyncio.sleep(max(0.1, begun + HEARTBEAT_S - loop.time()))
            begun = loop.time()
            try:
                renewed = await self._store.renew(self._id, LIFETIME_S)
                await self._check()
                if not renewed:
                    log.warning("this daemon's lease ran out and was taken over; joining anew")
                    self._owned = self._leaving = frozenset()
                    self._singletons = frozenset()
                    self._owed = {}
                    await self._register(self._position())
                await self._round()
                failures = 0
            except PyMongoError as error:
                failures += 1
                log.warning("the lease could not be renewed: %s", error)
                await asyncio.sleep(backoff(failures, 0.2, HEARTBEAT_S))

    async def leave(self) -> None:
        """Gives everything back, for whoever comes next."""
        if self._giving is not None:
            self._giving.cancel()
        if not self._id:
            return
        members = [member for member in await self._store.members() if member.id == self._id]
        for member in members:
            await self._store.clear_away(member)

    async def publish(self, url: str) -> None:
        """Tells the other daemons and the administrator's commands where this one answers."""
        self._url = url
        await self._store.publish(self._id, url)

    async def save_position(self, token: Token | None) -> None:
        await self._store.save_token(self._id, token)

    async def settle(self, buckets: Iterable[int]) -> None:
        """What was owed to these buckets has been read again, and the work is safe."""
        chosen = list(buckets)
        await self._store.settle(self._id, chosen)
        for bucket in chosen:
            self._owed.pop(bucket, None)

    def owed(self) -> dict[int, Token]:
        """Own buckets whose changes must be read again, with the token to start from."""
        return dict(self._owed)

    async def _register(self, token: Token | None) -> None:
        self._id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        host, pid = socket.gethostname(), os.getpid()
        own = Member(self._id, True, token, host, self._machine, pid, self._plan, since=utc_now())
        await self._store.register(own, LIFETIME_S)
        if self._url is not None:
            await self._store.publish(self._id, self._url)
        log.info("joined as %s", self._id)

    async def _round(self) -> None:
        self.renewed_at = asyncio.get_running_loop().time()
        members = await self._store.members()
        for member in members:
            if member.id != self._id and (not member.live or is_gone(member, self._machine)):
                log.warning("the daemon %s is gone; its buckets are free", member.id)
                await self._store.clear_away(member)
                self.takeovers += 1
        table = await self._store.table()
        known = {member.id for member in members}
        live = [m.id for m in members if m.live and not (m.id != self._id and is_gone(m, self._machine))]
        for stray in {b.owner for b in table.buckets if b.owner is not None} - known:
            await self._store.clear_away(Member(stray, False, None, "", None, 0, ""))
        if self._giving is None or self._giving.done():
            move = next_move(table, live or [self._id], self._id)
            if move.give:
                self._giving = asyncio.create_task(self._give(move.give))
            await self._store.take(self._id, move.take)
        table = await self._store.table()
        self._singletons = frozenset([n for n in SINGLETONS if await self._is_mine(n, table)])
        await self._accept(table)

    async def _is_mine(self, name: str, table: Table) -> bool:
        owner = table.singletons.get(name)
        return owner == self._id or (owner is None and await self._store.take_singleton(self._id, name))

    async def _accept(self, table: Table) -> None:
        owned = frozenset(table.owned(self._id))
        new = sorted(owned - self._owned)
        self._owned = owned
        self._leaving &= owned
        for bucket in new:
            token = table.buckets[bucket].token
            if token is not None:
                self._owed[bucket] = token
        if new:
            log.info("%d of %d buckets are this daemon's", len(owned), BUCKETS)
            await self._gained(new)

    async def _give(self, buckets: Sequence[int]) -> None:
        """Gives buckets back once no image of theirs is being worked on, so that none is worked on twice."""
        position = self._position()  # before anything of theirs is left out
        self._leaving |= frozenset(buckets)
        chosen = frozenset(buckets)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GIVE_BACK_S
        for _ in itertools.count():
            if not self._busy(lambda key: bucket_of(key) in chosen) or loop.time() > deadline:
                break
            await asyncio.sleep(0.1)
        tokens = {bucket: self._owed.get(bucket, position) for bucket in buckets}
        try:
            await self._store.release(self._id, tokens)
        except PyMongoError as error:
            log.warning("%d buckets could not be given back: %s", len(buckets), error)
            self._leaving -= chosen
            return
        self._owned -= chosen
        self._leaving -= chosen
        for bucket in buckets:
            self._owed.pop(bucket, None)
        log.info("%d buckets were given back; %d are this daemon's", len(buckets), len(self._owned))
