"""When the daemon reclusters by itself."""

import pytest

from daemon.config import Identities
from daemon.exemplars import Exemplars
from daemon.schedule import Schedule
from daemon.store.collections import Collections
from daemon.store.faces import count_waiting
from tests.people import face, image, insert

pytestmark = pytest.mark.integration


async def test_first_faces_wait_for_quiet_not_for_the_interval(collections: Collections) -> None:
    idle = False
    schedule = Schedule(collections, Identities(), Exemplars(), lambda: True, lambda: idle)
    await insert(collections, *(image(shot, face(0, shot)) for shot in range(3)))
    await schedule.first()
    assert (await collections.identities.count_documents({}), await count_waiting(collections)) == (0, 3)
    idle = True
    await schedule.first()
    assert (await collections.identities.count_documents({}), await count_waiting(collections)) == (1, 0)
    await insert(collections, *(image(10 + shot, face(1, shot)) for shot in range(3)))
    await schedule.first()  # somebody is known by now: the interval's turn
    assert (await collections.identities.count_documents({}), await count_waiting(collections)) == (1, 3)


async def test_another_daemon_does_it(collections: Collections) -> None:
    schedule = Schedule(collections, Identities(), Exemplars(), lambda: False, lambda: True)
    await insert(collections, *(image(shot, face(0, shot)) for shot in range(3)))
    await schedule.first()
    assert await collections.identities.count_documents({}) == 0
