"""The daemon's main job against a real server: every kind of source, every kind of trouble, no work done twice."""

import asyncio
from typing import Any

import pytest
from bson import ObjectId
from gridfs.asynchronous import AsyncGridFSBucket

from tests.integration.conftest import Harness, png
from tests.plugin import standins

pytestmark = pytest.mark.integration


async def test_an_inserted_document_becomes_complete(harness: Harness) -> None:
    async with harness.daemon():
        await harness.collections.images.insert_one({"_id": 1, "source": harness.paint("a.png"), "album": "mine"})
        document = await harness.state(1)
    assert document["album"] == "mine"
    assert document["enrichments"]["standin"]["mean"] == [120.0, 60.0, 30.0]
    assert document["enrichments"]["follower"]["brightness"] == 70.0
    run = document["enrichments"]["standin"]["run"]
    assert run["state"] == "done" and run["device"] == "cpu" and len(run["fingerprint"]) == 16 and run["ms"] >= 0
    assert document["enrichment"]["source_ref"] == "a.png"


@pytest.mark.parametrize("kind", ["binary", "gridfs", "gridfs_uri", "file_uri", "path", "data", "absolute"])
async def test_every_kind_of_source(harness: Harness, kind: str) -> None:
    bucket = AsyncGridFSBucket(harness.collections.database)
    stored = await bucket.upload_from_stream("x.png", png())
    path = harness.photos / harness.paint("with space.png")
    source: Any = {
        "binary": png(),
        "gridfs": stored,
        "gridfs_uri": f"gridfs://fs/{stored}",
        "file_uri": path.as_uri(),
        "path": {"path": "with space.png"},
        "data": {"data": png()},
        "absolute": str(path),
    }[kind]
    async with harness.daemon():
        await harness.collections.images.insert_one({"_id": 1, "source": source})
        document = await harness.state(1, "complete", "unreadable")
    assert document["enrichment"]["state"] == "complete", document["enrichment"]
    assert document["source"] == source, "the user's field is as it was"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("missing.png", "SourceMissing"),
        ("../secret.png", "SourceForbidden"),
        ("/etc/passwd", "SourceForbidden"),
        ("http://127.0.0.1/a.png", "SourceForbidden"),  # switched off
        ("ftp://example.org/a.png", "SourceUnknown"),
        (12, "SourceUnknown"),
        ({"nothing": 1}, "SourceUnknown"),
        (ObjectId("0" * 24), "SourceMissing"),
        (b"", "UnknownFormat"),
        (b"just some text", "UnsupportedFormat"),
        (b"%PDF-1.7\n", "UnsupportedFormat"),
        (png()[:60], "CorruptImage"),
    ],
)
async def test_bad_sources_are_explained_and_left_alone(harness: Harness, source: Any, error: str) -> None:
    async with harness.daemon():
        await harness.collections.images.insert_many(
            [{"_id": 1, "source": source, "mine": [1, 2]}, {"_id": 2, "source": harness.paint("good.png")}]
        )
        document = await harness.state(1, "unreadable")
        await harness.state(2)
    assert document["enrichment"]["error"]["type"] == error
    assert len(document["enrichment"]["error"]["message"]) > 10
    assert "next_attempt_at" not in document["enrichment"], "nothing is retried that cannot succeed"
    assert document["mine"] == [1, 2] and document["source"] == source
    assert document["enrichments"]["standin"]["run"]["state"] == "skipped"


async def test_a_document_without_a_source_is_left_alone_until_it_has_one(harness: Harness) -> None:
    async with harness.daemon():
        await harness.collections.images.insert_one({"_id": 1, "title": "later"})
        await asyncio.sleep(1)
        assert await harness.collections.images.find_one({"_id": 1}) == {"_id": 1, "title": "later"}
        await harness.collections.images.update_one({"_id": 1}, {"$set": {"source": harness.paint("a.png")}})
        await harness.state(1)


async def test_complete_documents_cost_no_call_when_the_daemon_restarts(harness: Harness) -> None:
    names = [harness.paint(f"{n}.png", (n, n, n)) for n in range(20)]
    async with harness.daemon():
        await harness.collections.images.insert_many([{"_id": n, "source": name} for n, name in enumerate(names)])
        for n in range(20):
            await harness.state(n)
    before = harness.calls()
    assert len(before) == 20 and set(before.values()) == {1}
    async with harness.daemon() as pipeline:
        await harness.collections.images.insert_one({"_id": 99, "source": harness.paint("new.png", (1, 2, 3))})
        await harness.state(99)
        assert pipeline.processed["written"] == 1
    assert sum(harness.calls().values()) == 21


async def test_what_was_inserted_while_no_daemon_ran_is_found(harness: Harness) -> None:
    async with harness.daemon():
        pass
    await harness.collections.images.insert_one({"_id": 1, "source": harness.paint("a.png")})
    async with harness.daemon():
        await harness.state(1)


async def test_a_changed_source_is_read_again(harness: Harness) -> None:
    async with harness.daemon():
        await harness.collections.images.insert_one({"_id": 1, "source": harness.paint("a.png", (10, 10, 10))})
        await harness.state(1)
        await harness.collections.images.update_one(
            {"_id": 1}, {"$set": {"source": harness.paint("b.png", (50, 50, 50))}}
        )
        document = await harness.settled(lambda d: d["enrichment"]["source_ref"] == "b.png", 1)
        assert document["enrichments"]["standin"]["mean"] == [50.0] * 3
        await harness.collections.images.replace_one({"_id": 1}, {"source": "a.png"})
        document = await harness.state(1)
        assert document["enrichments"]["standin"]["mean"] == [10.0] * 3


async def test_requests_are_answered_and_own_writes_trigger_nothing(harness: Harness) -> None:
    async with harness.daemon() as pipeline:
        await harness.collections.images.insert_one({"_id": 1, "source": harness.paint("a.png")})
        first = await harness.state(1)
        await harness.collections.images.update_one({"_id": 1}, {"$set": {"enrichment.requested.follower": "again"}})
        document = await harness.settled(lambda d: d["enrichments"]["follower"]["run"].get("request") == "again", 1)
        assert document["enrichments"]["standin"] == first["enrichments"]["standin"], "only what was asked for"
        await harness.collections.images.update_one({"_id": 1}, {"$set": {"album": "none of our business"}})
        await asyncio.sleep(1)
        assert pipeline.processed["written"] == 2


async def test_one_enricher_that_fails_does_not_stop_the_others(harness: Harness) -> None:
    enabled = {"enrichers": {"enabled": ["standin", "follower", "properties"], "standin": {"log": str(harness.log)}}}
    async with harness.daemon(**enabled):
        await harness.collections.images.insert_many(
            [
                {"_id": 1, "source": harness.paint("yellow.png", standins.FAILS)},
                {"_id": 2, "source": harness.paint("red.png", standins.RAISES)},
            ]
        )
        await harness.state(2, "partial")  # a batch that raises is tried again in halves, which would add calls
        await harness.collections.images.insert_one({"_id": 3, "source": harness.paint("cyan.png", standins.FLAKY)})
        yellow, red = await harness.state(1, "partial"), await harness.state(2, "partial")
        cyan = await harness.settled(
            lambda d: d.get("enrichments", {}).get("standin", {}).get("run", {}).get("attempts") == 3, 3
        )
    assert yellow["enrichments"]["standin"]["run"]["error"] == {"type": "Yellow", "message": "this picture is yellow"}
    assert yellow["enrichments"]["follower"]["run"]["error"]["type"] == "RequirementFailed"
    assert yellow["enrichments"]["properties"]["width"] == 32
    assert red["enrichments"]["standin"]["run"]["error"]["type"] == "EnricherFailed"
    assert "next_attempt_at" not in cyan["enrichments"]["standin"]["run"], "three attempts are all"
    assert harness.calls()[f"standin {cyan['enrichments']['standin']['run']['image_sha256']}"] == 3


@pytest.mark.parametrize("colour", [standins.CRASHES, standins.HANGS])
async def test_an_image_that_ends_its_worker_is_set_aside_and_its_companions_finish(
    harness: Harness, colour: tuple[int, int, int]
) -> None:
    async with harness.daemon(pipeline={**harness.config().pipeline.model_dump(), "task_timeout_s": 2}):
        documents = [{"_id": n, "source": harness.paint(f"{n}.png", (n, 0, 0))} for n in range(1, 12)]
        documents.append({"_id": 0, "source": harness.paint("bad.png", colour)})
        await harness.collections.images.insert_many(documents)
        bad = await harness.state(0, "failed", "partial")
        for n in range(1, 12):
            await harness.state(n)
    assert bad["enrichments"]["standin"]["run"]["error"]["type"] == "WorkerCrashed"
    assert "next_attempt_at" not in bad["enrichments"]["standin"]["run"]


async def test_an_answer_that_is_too_large_is_an_error_not_a_stall(harness: Harness) -> None:
    enabled = {"enrichers": {"enabled": ["standin"], "standin": {"size": 2_000_000}}}
    async with harness.daemon(**enabled):
        await harness.collections.images.insert_one({"_id": 1, "source": harness.paint("a.png")})
        document = await harness.state(1, "failed")
    assert document["enrichments"]["standin"]["run"]["error"]["type"] == "AnswerTooLarge"


@pytest.mark.parametrize(
    "extra",
    [{"filler": "x" * (16 * 1024 * 1024 - 400)}, {"enrichments": 5}, {"enrichment": "mine"}],
)
async def test_a_document_that_cannot_hold_answers_is_set_aside_once(harness: Harness, extra: dict[str, Any]) -> None:
    async with harness.daemon():
        await harness.collections.images.insert_many(
            [
                {"_id": 1, "source": harness.paint("a.png"), **extra},
                {"_id": 2, "source": harness.paint("b.png", (1, 1, 1))},
            ]
        )
        await harness.state(2)
        async with asyncio.timeout(20):
            while True:
                failure = await harness.collections.failures.find_one({"_id": 1})
                document = await harness.collections.images.find_one({"_id": 1}, {"filler": 0})
                assert document is not None
                enrichment = document.get("enrichment")
                if failure or (isinstance(enrichment, dict) and enrichment.get("error")):
                    break
                await asyncio.sleep(0.05)
        error = failure["error"] if failure else enrichment["error"]
        assert error["type"] == "DocumentRefused"
        await asyncio.sleep(0.6)  # its insert has it looked at anew where the sweep found it first
        calls = harness.calls()
        await asyncio.sleep(1.2)  # two fast sweeps
        assert harness.calls() == calls


async def test_a_burst_larger_than_the_queue_is_finished_by_the_sweep(harness: Harness) -> None:
    names = [harness.paint(f"{n}.png", (n % 250, n // 250, 9)) for n in range(300)]
    async with harness.daemon(pipeline={**harness.config().pipeline.model_dump(), "queue": 20}):
        await harness.collections.images.insert_many([{"_id": n, "source": name} for n, name in enumerate(names)])
        async with asyncio.timeout(60):
            while await harness.collections.images.count_documents({"enrichment.state": "complete"}) < 300:
                await asyncio.sleep(0.1)
    assert set(harness.calls().values()) == {1}


async def test_a_new_plan_is_refused_until_it_is_activated(harness: Harness) -> None:
    from daemon.activation import PlanDiffers

    async with harness.daemon():
        await harness.collections.images.insert_one({"_id": 1, "source": harness.paint("a.png")})
        await harness.state(1)
    with pytest.raises(PlanDiffers, match="standin"):
        async with harness.daemon(enrichers={"enabled": ["standin", "follower"], "standin": {"salt": "other"}}):
            pass
