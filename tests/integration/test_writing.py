"""Many outcomes in one write: what happens to one of them does not happen to the others."""

import logging

import pytest

from daemon.clock import utc_now
from daemon.plan import Plan, Step, source_ref
from daemon.retry import RetryPolicy
from daemon.store.collections import Collections
from daemon.store.images import TOGETHER, Answer, Images, Outcome, Written
from enrichers.contract import Result

PLAN = Plan((Step("noop", "fingerprint"),))
COUNT = TOGETHER + 2


@pytest.fixture
async def images(collections: Collections) -> Images:
    await collections.images.insert_many([{"_id": n, "source": f"{n}.jpg"} for n in range(COUNT)])
    return Images(collections, "source", {})


async def outcomes(images: Images) -> list[Outcome]:
    """What was found on each document as it stands now."""
    documents = await images.load([{"_id": n} for n in range(COUNT)], PLAN)
    return [
        Outcome(document, source_ref(document.source), {"noop": Answer(Result({"answer": document.key["_id"]}))})
        for document in sorted(documents, key=lambda document: document.key["_id"])
    ]


async def write(images: Images, found: list[Outcome]) -> list[Written]:
    return await images.write(found, PLAN, RetryPolicy(3, 1.0, 1.0), utc_now())


async def test_all_are_written_in_one_transaction(
    images: Images, collections: Collections, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "daemon.store.images"):
        assert await write(images, await outcomes(images)) == [Written.WRITTEN] * COUNT
    assert "one transaction" not in caplog.text, "it must not have been given up"
    async for document in collections.images.find():
        assert document["enrichments"]["noop"]["answer"] == document["_id"]
        assert document["enrichment"]["state"] == "complete"


async def test_one_that_changed_or_went_keeps_nobody_up(images: Images, collections: Collections) -> None:
    found = await outcomes(images)
    await collections.images.update_one({"_id": 3}, {"$set": {"source": "other.jpg"}})
    await collections.images.delete_one({"_id": 4})
    written = await write(images, found)
    assert (written[3], written[4]) == (Written.CHANGED, Written.GONE)
    assert written.count(Written.WRITTEN) == COUNT - 2
    assert await collections.images.count_documents({"enrichment.state": "complete"}) == COUNT - 2
    assert "enrichment" not in (await collections.images.find_one({"_id": 3}) or {})


async def test_one_that_the_server_refuses_keeps_nobody_up(images: Images, collections: Collections) -> None:
    found = await outcomes(images)
    await collections.images.update_one({"_id": 3}, {"$set": {"enrichments": 5}})
    written = await write(images, found)
    assert written[3] is Written.SET_ASIDE
    assert written.count(Written.WRITTEN) == COUNT - 1
    assert await collections.images.count_documents({"enrichment.state": "complete"}) == COUNT - 1


async def test_writing_twice_changes_nothing(images: Images, collections: Collections) -> None:
    found = await outcomes(images)
    await write(images, found)
    before = await collections.images.find().to_list()
    assert await write(images, found) == [Written.CHANGED] * COUNT
    assert await collections.images.find().to_list() == before
