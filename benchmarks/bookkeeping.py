"""What the daemon costs beside its models: tiny images, an enricher that does nothing.

`python -m benchmarks.bookkeeping --json`; `--sweep 1000000` takes ten minutes more.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymongo import AsyncMongoClient, UpdateOne, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection

from benchmarks.daemon import PLUGIN, cpu_s, daemon, server
from benchmarks.progress import progress
from daemon import app
from daemon.clock import utc_now
from daemon.config import Config
from daemon.embedded import EmbeddedServer
from daemon.intake import Intake
from daemon.plan import Plan
from daemon.store.collections import Document, open_collections
from daemon.store.state import State
from daemon.sweep import Sweeper
from migrations.m0001_collections import IMAGE_INDEXES
from migrations.steps import migrate

SAFE = WriteConcern(w="majority", j=True)
#: documents in one question whether they are complete: the server compares each with all that are asked for
LOOK = 40
#: the daemon's
DATABASE = "bookkeeping"
#: images that the daemon works on at a time
IN_FLIGHT = 256


def tiny_image(number: int) -> bytes:
    """A 16×16 PNG that differs from every other one."""
    import cv2

    pixels = np.full((16, 16, 3), (number & 255, number >> 8 & 255, number >> 16 & 255), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


async def insert(images: AsyncCollection[Document], first: int, count: int) -> None:
    documents = [{"_id": n, "source": tiny_image(n)} for n in range(first, first + count)]
    for start in range(0, count, 1000):
        await images.insert_many(documents[start : start + 1000], ordered=False)


async def are_complete(images: AsyncCollection[Document], first: int, last: int) -> bool:
    """Whether the documents `first` to before `last` are complete; asked by `_id`, which costs the server least."""
    cursor = images.find({"_id": {"$in": list(range(first, last))}}, {"enrichment.state": 1})
    states = [document.get("enrichment", {}).get("state") async for document in cursor]
    return states == ["complete"] * (last - first)


async def throughput(images: AsyncCollection[Document], first: int, count: int) -> float:
    """Documents a second from the first insert until all are complete."""
    started, last = time.perf_counter(), first + count
    await insert(images, first, count)
    for start in range(last - 1, max(first, last - IN_FLIGHT) - LOOK, -LOOK):  # nothing older can be under way
        while not await are_complete(images, max(first, start), min(start + LOOK, last)):
            await asyncio.sleep(0.02)
    took = time.perf_counter() - started
    for start in range(first, last, LOOK):
        assert await are_complete(images, start, min(start + LOOK, last))
    return count / took


async def latencies(images: AsyncCollection[Document], first: int, count: int) -> Document:
    """Milliseconds from each of `count` single inserts until a change stream says that it is complete, and what of them
    the enricher did not take."""
    updates: list[Document] = [{"$match": {"operationType": "update"}}, {"$project": {"documentKey": 1}}]
    found, beyond = [], []
    async with await images.watch(updates) as stream:
        for number in range(first, first + count):
            started = time.perf_counter()
            await images.insert_one({"_id": number, "source": tiny_image(number)})
            while (await stream.next())["documentKey"]["_id"] != number:
                pass
            found.append((time.perf_counter() - started) * 1000)
            document = await images.find_one({"_id": number})
            assert document is not None
            beyond.append(found[-1] - sum(answer["run"]["ms"] for answer in document["enrichments"].values()))
            await asyncio.sleep(0.02)
    return {
        "p50": statistics.median(found),
        "p99": statistics.quantiles(found, n=100)[98],
        "overhead_p50": statistics.median(beyond),
        "overhead_p99": statistics.quantiles(beyond, n=100)[98],
    }


async def plain(images: AsyncCollection[Document], count: int) -> float:
    """The plainest loop that does the same bookkeeping: watch, gather what is there, write it back in bulk."""

    async def loop() -> None:
        done = 0
        async with await images.watch([{"$match": {"operationType": "insert"}}]) as stream:
            opened.set()
            while done < count:
                change: Any = await stream.next()
                batch: list[UpdateOne] = []
                while change is not None and len(batch) < 200:
                    batch.append(
                        UpdateOne({"_id": change["documentKey"]["_id"]}, {"$set": {"enrichment.state": "complete"}})
                    )
                    change = await stream.try_next() if len(batch) < 200 else None
                await images.bulk_write(batch, ordered=False)
                done += len(batch)

    opened = asyncio.Event()
    task = asyncio.create_task(loop())
    await opened.wait()
    started = time.perf_counter()
    await insert(images, 0, count)
    await task
    return count / (time.perf_counter() - started)


async def fill(images: AsyncCollection[Document], plan: Plan, first: int, count: int) -> None:
    """Inserts documents that are complete under `plan`."""
    quick, now = images.with_options(write_concern=WriteConcern(w=1)), utc_now()
    (step,) = plan.steps
    run = {"state": "done", "fingerprint": step.fingerprint, "at": now}
    for start in range(first, first + count, 10_000):
        await quick.insert_many(
            [
                {
                    "_id": n,
                    "source": f"{n}.jpg",
                    "enrichments": {"noop": {"run": run}},
                    "enrichment": {"state": "complete", "plan": plan.hash, "source_ref": f"{n}.jpg", "at": now},
                }
                for n in range(start, min(start + 10_000, first + count))
            ],
            ordered=False,
        )
        progress(f"{min(start + 10_000, first + count) - first} of {count} complete documents inserted")


async def sweeps(uri: str, count: int) -> Document:
    """Seconds that both sweeps take over `count` complete documents."""
    client: AsyncMongoClient[Document] = AsyncMongoClient(uri)
    collections = open_collections(client, "sweep", "images")
    config = Config.model_validate({"enrichers": {"enabled": ["noop"]}, "sweep": {"verify_rate": 10_000_000}})
    setup = app.Setup.of(config)
    await migrate(collections)
    images, state = app.open_images(config, collections), State(collections)
    stored = await state.activate(setup.plan, utc_now())
    await fill(collections.images, setup.plan, 0, count)

    async def nobody() -> int:
        return 0

    sweeper = Sweeper(
        config.sweep,
        images,
        state,
        Intake(10_000),
        stored,
        owns=lambda key: True,
        verifies=lambda: True,
        opened=asyncio.Event(),
        begun=lambda: None,
        faceless=nobody,
    )
    started = time.perf_counter()
    assert await sweeper.fast() == 0
    fast = time.perf_counter() - started
    progress(f"the fast sweep took {fast:.3f} s")
    started = time.perf_counter()
    counts = await sweeper.verify()
    verify = time.perf_counter() - started
    assert counts["documents"] == count and counts["lacking"] == 0
    progress(f"the verifying sweep took {verify:.1f} s")
    started = time.perf_counter()
    async for _ in collections.images.find({}, batch_size=500):
        pass
    read = time.perf_counter() - started
    await client.close()
    return {"documents": count, "fast_s": fast, "verify_s": verify, "read_once_s": read}


async def at_sizes(images: AsyncCollection[Document], plan: Plan, sizes: Sequence[int], count: int) -> list[Document]:
    """What documents cost in collections that hold `sizes` complete ones already."""
    rows, there = [], 0
    for size in sizes:
        await fill(images, plan, 100_000_000 + there, size - there)
        there = size
        await throughput(images, 200_000_000 + size, 1)  # what was inserted before it has been looked at
        rate = await throughput(images, 40_000_000 + size, count)
        times = await latencies(images, 60_000_000 + size, 50)
        progress(f"{size} documents there: {rate:.0f} documents/s")
        rows.append({"size": size, "documents_per_second": rate, "latency_p50_ms": times["p50"]})
    return rows


async def beside_each_other(
    running: EmbeddedServer, client: AsyncMongoClient[Document], folder: Path, number: int, count: int
) -> Document:
    """What the plain loop, with one index and with those that the daemon's collection has, and then the daemon do with
    `count` documents, in the round `number`."""
    database = client.get_database("plain", write_concern=SAFE)
    images = database[f"indexed{number}"]
    await images.create_indexes(IMAGE_INDEXES)
    indexed = await plain(images, count)
    images = database[f"images{number}"]
    await images.create_index("enrichment.state")
    before = cpu_s(running.pid)
    found: Document = {"plain_documents_per_second": await plain(images, count)}
    found["plain_server_cpu_ms_per_document"] = (cpu_s(running.pid) - before) * 1000 / count
    images, first = client[DATABASE]["images"], number * 1_000_000
    with daemon(folder, settings(running), plugins=PLUGIN) as process:
        found["start_s"] = process.start_s
        await throughput(images, first + 500_000, 200)  # warm
        cpu, before = process.cpu_s(), cpu_s(running.pid)
        found["documents_per_second"] = await throughput(images, first, count)
        found["cpu_ms_per_document"] = (process.cpu_s() - cpu) * 1000 / count
        found["server_cpu_ms_per_document"] = (cpu_s(running.pid) - before) * 1000 / count
    found["ratio"] = found["documents_per_second"] / found["plain_documents_per_second"]
    found["indexed_plain_documents_per_second"] = indexed
    found["indexed_ratio"] = found["documents_per_second"] / indexed
    progress(f"{found['documents_per_second']:.0f} documents/s, {found['ratio']:.2f} of the plain loop")
    return found


def settings(running: EmbeddedServer) -> Document:
    """The daemon's, dotted."""
    return {
        "mongo.uri": running.uri,
        "mongo.database": DATABASE,
        "enrichers.enabled": ["noop"],
        "pipeline.device": "cpu",
        "pipeline.in_flight": IN_FLIGHT,
        "pipeline.queue": 1_000_000,
    }


async def measure(arguments: argparse.Namespace, folder: Path) -> Document:
    report: Document = {"documents": arguments.documents, "rounds": arguments.rounds}
    with server(folder) as running:
        client: AsyncMongoClient[Document] = AsyncMongoClient(running.uri)
        count = arguments.documents // arguments.rounds
        rounds = [await beside_each_other(running, client, folder, n, count) for n in range(arguments.rounds)]
        report |= {key: statistics.median(entry[key] for entry in rounds) for key in rounds[0]}
        images = client[DATABASE]["images"]
        with daemon(folder, settings(running), plugins=PLUGIN) as process:
            report["latency_ms"] = await latencies(images, 10_000_000, arguments.latencies)
            plan = app.Setup.of(Config.model_validate({"enrichers": {"enabled": ["noop"]}})).plan
            report["at_size"] = await at_sizes(images, plan, arguments.sizes, min(1000, count))
            report["rss_mb"] = process.rss_mb()
        await client.close()
    if arguments.sweep:
        with server(folder / "sweep") as running:
            report["sweep"] = await sweeps(running.uri, arguments.sweep)
    return report


def table(report: Document) -> str:
    """The report for people."""
    latency = report["latency_ms"]
    lines = [
        f"through the daemon        {report['documents_per_second']:8.0f} documents/s",
        f"the plain loop            {report['plain_documents_per_second']:8.0f} documents/s",
        f"ratio                     {report['ratio']:8.2f}",
        f"the loop, same indexes    {report['indexed_plain_documents_per_second']:8.0f} documents/s",
        f"ratio                     {report['indexed_ratio']:8.2f}",
        f"processor time            {report['cpu_ms_per_document']:8.2f} ms a document, daemon and workers",
        f"                          {report['server_cpu_ms_per_document']:8.2f} ms a document, server; "
        f"{report['plain_server_cpu_ms_per_document']:.2f} ms for the plain loop",
        f"insert to complete        {latency['p50']:8.1f} ms p50   {latency['p99']:8.1f} ms p99",
        f"  beyond the enricher     {latency['overhead_p50']:8.1f} ms p50   {latency['overhead_p99']:8.1f} ms p99",
        f"memory                    {report['rss_mb']:8.0f} MB, daemon and workers",
    ]
    lines += [
        f"{row['size']:>9} there already   {row['documents_per_second']:8.0f} documents/s   "
        f"{row['latency_p50_ms']:8.1f} ms p50"
        for row in report["at_size"]
    ]
    if "sweep" in report:
        sweep = report["sweep"]
        lines.append(
            f"sweeps over {sweep['documents']:<9}     {sweep['fast_s']:8.3f} s fast   "
            f"{sweep['verify_s']:8.1f} s verifying   ({sweep['read_once_s']:.1f} s to read them once)"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=6000, help="documents for the throughput")
    parser.add_argument("--rounds", type=int, default=3, help="plain loop and daemon by turns; the median counts")
    parser.add_argument("--latencies", type=int, default=200, help="single inserts for the latency")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10_000, 100_000], help="documents already there")
    parser.add_argument("--sweep", type=int, default=100_000, help="complete documents to sweep; 0 leaves it out")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    sys.path.insert(0, str(PLUGIN))
    with tempfile.TemporaryDirectory(prefix="enrichd-bench-") as name:
        report = asyncio.run(measure(arguments, Path(name)))
    progress("")
    print(json.dumps(report, indent=2) if arguments.json else table(report))


if __name__ == "__main__":
    main()
