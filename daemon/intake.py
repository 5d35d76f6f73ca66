"""The ids to look at, in memory: bounded, without doubles, live events before retries before backfill."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from bson import encode

Key = Mapping[str, Any]
Done = Callable[[], None]


class Priority(IntEnum):
    """Who goes first."""

    LIVE = 0
    RETRY = 1
    BACKFILL = 2


@dataclass(slots=True)
class Entry:
    """One document that waits or is worked on; `done` are called when what was known when it was taken is safe."""

    key: Key
    token: bytes  #: the key's BSON, which identifies it
    priority: Priority
    done: list[Done] = field(default_factory=list)


def key_token(key: Key) -> bytes:
    """What identifies a documentKey in memory."""
    return encode(key)


class Intake:
    """Entries wait in one queue a priority. A key that is offered while it is worked on is looked at again afterwards,
    since what changed may have come after it was read."""

    def __init__(self, limit: int) -> None:
        """`limit`: how many keys may wait."""
        self._limit = limit
        self._waiting: tuple[OrderedDict[bytes, Entry], ...] = tuple(OrderedDict() for _ in Priority)
        self._working: dict[bytes, Entry] = {}
        self._again: dict[bytes, Entry] = {}
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._waiting) + len(self._again)

    @property
    def working(self) -> int:
        return len(self._working)

    @property
    def idle(self) -> bool:
        return not self.waiting and not self._working

    def offer(self, key: Key, priority: Priority, done: Done | None = None) -> bool:
        """Takes the key unless the queue is full; False then, and `done` is not kept."""
        token = key_token(key)
        entry = self._find(token)
        if entry is None:
            if self.waiting >= self._limit:
                return False
            entry = Entry(key, token, priority)
            if token in self._working:
                self._again[token] = entry
            else:
                self._waiting[priority][token] = entry
        elif priority < entry.priority and token not in self._again:
            del self._waiting[entry.priority][token]
            entry.priority = priority
            self._waiting[priority][token] = entry
        if done is not None:
            entry.done.append(done)
        self._notify()
        return True

    def attach(self, key: Key, done: Done) -> bool:
        """Has `done` called with the work on this key that is under way; False where there is none."""
        entry = self._working.get(key_token(key))
        if entry is not None:
            entry.done.append(done)
        return entry is not None

    def drop(self, dropped: Callable[[Key], bool]) -> int:
        """Forgets the waiting keys for which `dropped` holds, as if they were done; how many."""
        count = 0
        for queue in (*self._waiting, self._again):
            for token in [token for token, entry in queue.items() if dropped(entry.key)]:
                for done in queue.pop(token).done:
                    done()
                count += 1
        self._notify()
        return count

    def works_on(self, chosen: Callable[[Key], bool]) -> bool:
        """Whether a key for which `chosen` holds is being worked on."""
        return any(chosen(entry.key) for entry in self._working.values())

    async def put(self, key: Key, priority: Priority, done: Done | None = None) -> None:
        """Waits for room, then takes the key."""
        while not self.offer(key, priority, done):
            await self._change()

    async def take(self, most: int) -> list[Entry]:
        """Between one and `most` entries, as soon as there are any; each must be given to `finish`."""
        while not any(self._waiting):
            await self._change()
        taken: list[Entry] = []
        for queue in self._waiting:
            while queue and len(taken) < most:
                token, entry = queue.popitem(last=False)
                self._working[token] = entry
                taken.append(entry)
        self._notify()
        return taken

    def finish(self, entry: Entry, *, again: bool = False) -> None:
        """The entry's work is safe in the database; `again`: it must be looked at once more all the same."""
        self._working.pop(entry.token, None)
        follow_up = self._again.pop(entry.token, None)
        if again:
            follow_up = follow_up or Entry(entry.key, entry.token, entry.priority)
            follow_up.done.extend(entry.done)
        else:
            for done in entry.done:
                done()
        if follow_up is not None:
            self._waiting[follow_up.priority][follow_up.token] = follow_up
        self._notify()

    async def drained(self) -> None:
        """Returns when nothing waits and nothing is worked on."""
        while not self.idle:
            await self._change()

    def _find(self, token: bytes) -> Entry | None:
        for queue in (*self._waiting, self._again):
            if token in queue:
                return queue[token]
        return None

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
