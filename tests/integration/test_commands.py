"""The commands about documents and health, run as a user runs them against a daemon with light enrichers."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon.embedded import EmbeddedServer
from tests.integration.conftest import PLUGIN, Harness

pytestmark = pytest.mark.integration

YELLOW, CYAN = (255, 255, 0), (0, 255, 255)  # pictures that the stand-in fails on: for good, and for now


@dataclass
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Awaitable[Answer]]


@pytest.fixture
def enrichd(harness: Harness, server: EmbeddedServer, database: str, tmp_path: Path) -> Command:
    """Runs a command on the test's database with the harness's settings."""
    (tmp_path / "enrichd.toml").write_text(
        f'[mongo]\nuri = "{server.uri}"\ndatabase = "{database}"\n'
        f'[images]\nroots = ["{harness.photos}"]\n'
        f'[enrichers]\nenabled = ["standin", "follower"]\nstandin = {{ log = "{harness.log}" }}\n'
        '[pipeline]\ndevice = "cpu"\n'
    )

    async def run(*arguments: str) -> Answer:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("enrichd")),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PLUGIN), "COLUMNS": "200"},
        )
        out, err = await process.communicate()
        return Answer(process.returncode or 0, out.decode(), err.decode())

    return run


async def test_adding_twice_changes_nothing(harness: Harness, enrichd: Command) -> None:
    for number in range(3):
        harness.paint(f"{number}.png", (number, 0, 9))
    (harness.photos / "notes.txt").write_text("no image")
    first = await enrichd("add", str(harness.photos), "--json")
    assert first.json == {"added": 3, "known": 0, "skipped": 1}
    harness.paint("3.png")
    again = await enrichd("add", str(harness.photos), str(harness.photos / "0.png"), "--json")
    assert again.json == {"added": 1, "known": 3, "skipped": 1}
    sources = [d["source"] async for d in harness.collections.images.find().sort("source")]
    assert sources == ["0.png", "1.png", "2.png", "3.png"]


async def test_adding_waits_for_the_answers(harness: Harness, enrichd: Command) -> None:
    harness.paint("a.png")
    async with harness.daemon():
        answer = await enrichd("add", str(harness.photos), "--wait", "--timeout", "30", "--json")
        assert answer.code == 0, answer.err
        assert answer.json["states"] == {"complete": 1, "partial": 0, "failed": 0, "unreadable": 0}
        (harness.photos / "b.png").write_text("no image")
        answer = await enrichd("add", str(harness.photos / "b.png"), "--wait", "--timeout", "30")
        assert answer.code == 1
        assert "1 unreadable" in answer.out


async def test_waiting_without_a_daemon_ends_at_the_timeout(harness: Harness, enrichd: Command) -> None:
    id = (await harness.collections.images.insert_one({"source": harness.paint("a.png")})).inserted_id
    for which, timeout in ((str(id), "0.5"), ("--all", "5.5")):
        answer = await enrichd("wait", which, "--timeout", timeout)
        assert answer.code == 1
        assert all(answer.err.splitlines()), "no empty lines"
        assert ("0 of 1 document finished" in answer.err) == (timeout == "5.5")  # a line every five seconds
        assert "1 of 1 document not finished" in answer.err
        assert "No daemon runs" in answer.err
    assert (await enrichd("wait", "0" * 24)).err.startswith("enrichd: There is no image document")
    assert (await enrichd("wait")).code == 2  # neither ids nor --all


async def test_status_counts_states(harness: Harness, enrichd: Command) -> None:
    async with harness.daemon():
        await harness.collections.images.insert_many(
            [
                {"_id": 1, "source": harness.paint("a.png")},
                {"_id": 2, "source": harness.paint("b.png", YELLOW)},
                {"_id": 3, "source": "gone.png"},
                {"_id": 4},  # no source: none of enrichd's business
            ]
        )
        assert (await enrichd("wait", "--all", "--timeout", "30")).code == 1
        status = (await enrichd("status", "--json")).json
        assert [daemon["pid"] for daemon in status["daemons"]] == [os.getpid()]
        assert "1, since 20" in (await enrichd("status")).out
        assert "No daemon" not in (await enrichd("wait", "--all")).err
    assert (status["new"], status["stale"], status["without_source"]) == (0, 0, 1)
    assert status["documents"] == 3
    assert status["states"] == {"complete": 1, "partial": 0, "failed": 1, "unreadable": 1}
    assert (status["unfinished"], status["plan"], status["enrichers"]) == (0, 1, ["standin", "follower"])
    face = {"image": {"_id": 1}, "box": [0, 0, 1, 1], "embeddings": {}, "identity": None, "clustered_at": None}
    await harness.collections.faces.insert_one(face)
    assert "none; 1 face waits" in (await enrichd("identities", "list")).out
    assert (await enrichd("status", "--json")).json["faces_waiting"] == 1
    await harness.collections.images.insert_one({"_id": 5, "source": "later.png"})
    await enrichd("reprocess", "--query", '{"_id": 1}')
    after = (await enrichd("status")).out
    assert "1 complete, 1 failed, 1 unreadable" in after
    assert "2: 1 new, 1 stale or asked for again" in after
    assert "none; `enrichd run` starts one" in after


async def test_failures_tell_reasons_and_retry_asks_again(harness: Harness, enrichd: Command) -> None:
    async with harness.daemon(retry={"attempts": 1}):
        await harness.collections.images.insert_many(
            [
                {"_id": "yellow", "source": harness.paint("yellow.png", YELLOW)},
                {"_id": "gone", "source": "gone.png"},
                {"_id": "good", "source": harness.paint("good.png")},
            ]
        )
        await harness.state("yellow", "failed")
        await harness.state("gone", "unreadable")
        await harness.state("good")
        failures = (await enrichd("failures", "--json")).json
        reasons = {(f["_id"], f["enricher"]): (f["type"], f["state"]) for f in failures}
        assert reasons["yellow", "standin"] == ("Yellow", "failed")
        assert reasons["gone", None] == ("SourceMissing", "unreadable")
        assert "good" not in {f["_id"] for f in failures}
        lines = (await enrichd("failures")).out.splitlines()
        assert len(lines) == 1 + len(failures)  # the head, and a line for each
        assert any("this picture is yellow" in line for line in lines)
        harness.paint("gone.png")
        harness.paint("yellow.png", (9, 9, 9))
        answer = await enrichd("retry", "gone", "--wait", "--timeout", "30", "--json")
        assert (answer.code, answer.json["requested"]) == (0, 1)
        assert (await harness.state("yellow", "failed"))["enrichment"]["state"] == "failed"  # was not asked for
        answer = await enrichd("retry", "--wait", "--timeout", "30", "--json")
        assert (answer.code, answer.json["requested"]) == (0, 1)
        assert answer.json["states"]["complete"] == 3
        assert (await enrichd("failures")).out == "no failures\n"


async def test_one_retry_is_one_attempt(harness: Harness, enrichd: Command) -> None:
    async with harness.daemon():
        await harness.collections.images.insert_one({"_id": "gone", "source": "gone.png"})
        assert (await harness.state("gone", "unreadable"))["enrichment"]["attempts"] == 1
        for attempts in (2, 3):
            await enrichd("retry", "--wait", "--timeout", "30")
            await asyncio.sleep(1)  # two fast sweeps, which find nothing more to do
            assert (await harness.state("gone", "unreadable"))["enrichment"]["attempts"] == attempts


async def test_reprocess_runs_what_was_asked_for(harness: Harness, enrichd: Command) -> None:
    async with harness.daemon():
        await harness.collections.images.insert_many(
            [
                {"_id": n, "source": harness.paint(f"{n}.png", (n, n, n)), "album": "odd" if n % 2 else "even"}
                for n in range(4)
            ]
        )
        await enrichd("wait", "--all", "--timeout", "30")
        assert sum(harness.calls().values()) == 4
        query = ("--query", '{"album": "odd"}')
        dry = await enrichd("reprocess", *query, "--dry-run", "--json")
        assert dry.json == {"documents": 2, "enrichers": ["standin", "follower"], "requested": False}
        assert sum(harness.calls().values()) == 4
        assert (await enrichd("reprocess", "--query", '{"album": "x"}')).out == "The query matches no document.\n"
        one = await enrichd("reprocess", "--query", '{"_id": 1}', "--dry-run")
        assert one.out == "standin, follower would run again on 1 document\n"
        done = await enrichd("reprocess", *query, "-e", "standin", "--wait", "--timeout", "30", "--json")
        assert (done.code, done.json["documents"]) == (0, 2)
        assert sum(harness.calls().values()) == 6
        assert "no enricher standing" in (await enrichd("reprocess", "-e", "standing")).err
        assert "not valid JSON" in (await enrichd("reprocess", "-q", "{album: 1}")).err


async def test_reprocess_finds_files_that_were_overwritten(harness: Harness, enrichd: Command) -> None:
    async with harness.daemon():
        names = [harness.paint(f"{n}.png", (n, n, n)) for n in range(3)]
        await harness.collections.images.insert_many([{"_id": n, "source": name} for n, name in enumerate(names)])
        await enrichd("wait", "--all", "--timeout", "30")
        harness.paint("1.png", (77, 77, 77))
        changed = await enrichd("reprocess", "--changed", "--wait", "--timeout", "30", "--json")
        assert (changed.code, changed.json["documents"]) == (0, 1)
        document = await harness.state(1)
        assert document["enrichments"]["standin"]["mean"] == [77.0] * 3
        assert (await enrichd("reprocess", "--changed", "--json")).json["documents"] == 0


async def test_activating_tells_what_becomes_stale(harness: Harness, enrichd: Command) -> None:
    async with harness.daemon():
        await harness.collections.images.insert_many(
            [{"_id": 1, "source": harness.paint("a.png")}, {"_id": 2, "source": "gone.png"}]
        )
        await harness.state(1)
        await harness.state(2, "unreadable")
    other = ("--set", "enrichers.standin.salt=x")
    dry = await enrichd("activate", "--dry-run", "--json", *other)
    assert dry.json == {
        "added": [],
        "removed": [],
        "changed": ["standin", "follower"],
        "stale": 1,
        "activated": False,
        "plan": 1,
    }
    refused = await enrichd("run", *other)
    assert (refused.code, len(refused.err.strip().splitlines())) == (1, 1)
    assert "enrichd activate" in refused.err
    assert "1 document becomes stale (1 complete)" in (await enrichd("activate", "--dry-run", *other)).out
    unasked = await enrichd("activate", *other)
    assert (unasked.code, "--yes" in unasked.err) == (1, True)
    done = await enrichd("activate", "--yes", "--json", *other)
    assert (done.json["activated"], done.json["plan"]) == (True, 2)
    assert (await enrichd("activate", "--json", *other)).json["changed"] == []


async def test_migrations_are_listed_and_run_once(enrichd: Command) -> None:
    before = await enrichd("migrate", "status", "--json")
    assert before.code == 1
    assert not any(step["done"] for step in before.json)
    assert [step["version"] for step in (await enrichd("migrate", "up", "--json")).json] == [
        s["version"] for s in before.json
    ]
    assert (await enrichd("migrate", "status")).code == 0
    assert (await enrichd("migrate", "up")).out == "nothing to do\n"


async def test_the_doctor_finds_nothing_where_nothing_is_wrong(harness: Harness, enrichd: Command) -> None:
    answer = await enrichd("doctor", "--json")
    assert answer.code == 0, answer.out
    checks = {check["check"]: check for check in answer.json["checks"]}
    assert {"server", "replica set", "privileges", "weights", "device", "shared memory", "roots"} <= checks.keys()
    assert (checks["daemon"]["state"], checks["daemon"]["message"]) == ("warning", "none runs")
    assert all((check["remedy"] is None) == (check["state"] == "ok") for check in checks.values())
    assert "warn daemon" in (await enrichd("doctor")).out
    assert await harness.collections.state.count_documents({}) == 0  # trying leaves nothing behind


@pytest.mark.parametrize(
    ("flags", "check", "remedy"),
    [
        (["--set", "mongo.uri=mongodb://127.0.0.1:1/", "--set", "mongo.timeout_s=1"], "server", "mongo.uri"),
        (["--set", "pipeline.in_flight_mb=99999999"], "shared memory", "--shm-size"),
        (["--root", "/nowhere"], "roots", "images.roots"),
        (["--set", "enrichers.enabled=standin,objektz"], "enrichers", "enrichd config"),
    ],
)
async def test_the_doctor_says_what_to_do(enrichd: Command, flags: list[str], check: str, remedy: str) -> None:
    answer = await enrichd("doctor", "--json", *flags)
    assert answer.code == 1
    failed = {entry["check"]: entry["remedy"] for entry in answer.json["checks"] if entry["state"] == "failed"}
    assert list(failed) == [check]
    assert remedy in failed[check]
    assert "FAIL" in (await enrichd("doctor", *flags)).out


async def test_verify_finds_what_is_wrong(harness: Harness, enrichd: Command) -> None:
    images, faces, identities = harness.collections.images, harness.collections.faces, harness.collections.identities
    async with harness.daemon():
        await images.insert_many(
            [
                {"_id": 1, "source": harness.paint("a.png")},
                {"_id": 2, "source": harness.paint("b.png")},
                {"_id": 3, "source": "gone.png"},
            ]
        )
        await enrichd("wait", "--all", "--timeout", "30")
    sound = await enrichd("verify", "--json")
    checked = {"documents": 3, "faces": 0, "identities": 0}
    assert (sound.code, sound.json) == (0, {"checked": checked, "violations": []})  # the unreadable one is explained
    text = (await enrichd("verify")).out
    assert text == "3 documents, 0 faces and 0 identities checked: nothing lost, stale, duplicated or orphaned\n"
    await images.update_one({"_id": 1}, {"$set": {"enrichments.standin.run.fingerprint": "0" * 16}})
    await images.insert_one({"_id": 4, "source": "new.png"})
    face = {"image": {"_id": 99}, "box": [0, 0, 1, 1], "embeddings": {}, "identity": None, "detached": False}
    await faces.insert_one({"_id": "orphan", **face})
    await identities.insert_one(
        {"_id": "empty", "state": "active", "created_at": None, "face_count": 2, "image_count": 1}
    )
    broken = await enrichd("verify", "--json")
    assert broken.code == 1
    assert broken.json["checked"] == {"documents": 4, "faces": 1, "identities": 1}
    assert "4 documents, 1 face and 1 identity checked: 5 violations\n" in (await enrichd("verify")).out
    found = {(violation["kind"], str(violation["_id"])) for violation in broken.json["violations"]}
    assert found == {
        ("stale", "1"),
        ("lost", "4"),
        ("orphaned face", "orphan"),
        ("wrong count", "empty"),
        ("empty identity", "empty"),
    }
