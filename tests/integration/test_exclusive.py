"""Work that one process at a time does, whoever does it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon.config import Identities
from daemon.exclusive import exclusive
from daemon.identities import recluster
from daemon.store.collections import Collections
from daemon.store.leases import LeaseStore
from tests.people import face, image, insert

pytestmark = pytest.mark.integration


async def test_one_waits_for_the_other(collections: Collections) -> None:
    store, seen = LeaseStore(collections), list[str]()

    async def work(name: str) -> None:
        async with exclusive(store, "work"):
            seen.append(f"{name} begins")
            await asyncio.sleep(0.3)
            seen.append(f"{name} ends")

    await asyncio.gather(work("a"), work("b"))
    first, second = seen[0][0], seen[2][0]
    assert seen == [f"{first} begins", f"{first} ends", f"{second} begins", f"{second} ends"]
    assert {first, second} == {"a", "b"}


async def test_different_work_goes_on(collections: Collections) -> None:
    store = LeaseStore(collections)
    async with exclusive(store, "work"), asyncio.timeout(5), exclusive(store, "other work"):
        pass


async def test_a_turn_expires_with_its_process(collections: Collections) -> None:
    store = LeaseStore(collections)
    assert await store.seize("work", "dead", 0.2)
    assert not await store.seize("work", "alive", 10)
    await asyncio.sleep(0.3)
    assert await store.seize("work", "alive", 10)
    await store.leave("work", "dead")  # what is another's by now is not given up
    assert not await store.seize("work", "third", 10)


async def test_two_reclusters_at_once_make_nobody_twice(collections: Collections) -> None:
    shots = [image(who * 10 + shot, face(who, shot)) for who in range(3) for shot in range(4)]
    await insert(collections, *shots)
    with ThreadPoolExecutor(2) as pool:
        await asyncio.gather(*(recluster(collections, Identities(), executor=pool) for _ in range(2)))
    assert await collections.identities.count_documents({}) == 3
