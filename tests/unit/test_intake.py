"""The intake: order, doubles, bounds, and looking again."""

import asyncio

import pytest

from daemon.intake import Intake, Priority


def key(number: int) -> dict[str, int]:
    return {"_id": number}


async def test_live_goes_before_retries_before_backfill() -> None:
    intake = Intake(10)
    for number, priority in enumerate([Priority.BACKFILL, Priority.RETRY, Priority.LIVE]):
        assert intake.offer(key(number), priority)
    assert [entry.key["_id"] for entry in await intake.take(10)] == [2, 1, 0]


async def test_a_key_waits_once_at_its_best_priority() -> None:
    intake = Intake(10)
    done: list[str] = []
    intake.offer(key(1), Priority.BACKFILL, lambda: done.append("sweep"))
    intake.offer(key(2), Priority.BACKFILL)
    intake.offer(key(1), Priority.LIVE, lambda: done.append("event"))
    entries = await intake.take(10)
    assert [entry.key["_id"] for entry in entries] == [1, 2]
    intake.finish(entries[0])
    assert done == ["sweep", "event"]


async def test_full_refuses_and_put_waits_for_room() -> None:
    intake = Intake(1)
    assert intake.offer(key(1), Priority.LIVE)
    assert not intake.offer(key(2), Priority.LIVE)
    assert intake.offer(key(1), Priority.LIVE)  # a double needs no room
    waiting = asyncio.create_task(intake.put(key(2), Priority.BACKFILL))
    await asyncio.sleep(0)
    assert not waiting.done()
    await intake.take(1)
    await asyncio.wait_for(waiting, 1)


async def test_what_changes_while_it_is_worked_on_is_looked_at_again() -> None:
    intake = Intake(10)
    intake.offer(key(1), Priority.LIVE)
    (entry,) = await intake.take(10)
    done: list[int] = []
    intake.offer(key(1), Priority.LIVE, lambda: done.append(1))
    assert intake.working == 1
    intake.finish(entry)
    assert not done, "the later event is not answered by the earlier look"
    (again,) = await intake.take(10)
    intake.finish(again)
    assert done == [1]
    assert intake.idle


async def test_finish_again_keeps_who_waits_for_it() -> None:
    intake = Intake(10)
    done: list[int] = []
    intake.offer(key(1), Priority.LIVE, lambda: done.append(1))
    (entry,) = await intake.take(1)
    intake.finish(entry, again=True)
    assert not done
    (entry,) = await intake.take(1)
    intake.finish(entry)
    assert done == [1]


async def test_drained_returns_when_the_last_is_finished() -> None:
    intake = Intake(10)
    intake.offer(key(1), Priority.LIVE)
    (entry,) = await intake.take(1)
    drained = asyncio.create_task(intake.drained())
    await asyncio.sleep(0.01)
    assert not drained.done()
    intake.finish(entry)
    await asyncio.wait_for(drained, 1)


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_take_gives_at_most_what_is_asked(most: int) -> None:
    intake = Intake(10)
    for number in range(3):
        intake.offer(key(number), Priority.LIVE)
    assert len(await intake.take(most)) == min(3, most)
