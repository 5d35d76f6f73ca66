"""What the daemon costs beside its models: tiny images, an enricher that does nothing.

`python -m benchmarks.bookkeeping --json`
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pymongo import AsyncMongoClient, UpdateOne, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection

from benchmarks.daemon import daemon, server
from daemon import app
from daemon.clock import utc_now
from daemon.config import Config
from daemon.intake import Intake
from daemon.store.collections import Document, open_collections
from daemon.store.state import State
from daemon.sweep import Sweeper
from migrations.steps import migrate

SAFE = WriteConcern(w="majority", j=True)


def tiny_image(number: int) -> bytes:
    """A 16×16 PNG that differs from every other one."""
    import cv2

    pixels = np.full((16, 16, 3), (number & 255, number >> 8 & 255, number >> 16 & 255), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


async def insert(images: AsyncCollection[Document], first: int, count: int) -> None:
    documents = [{"_id": n, "source": tiny_image(n)} for n in range(first, first + count)]
    for start in range(0, count, 1000):
        await images.insert_many(documents[start : start + 1000], ordered=False)


async def until_complete(images: AsyncCollection[Document], count: int) -> None:
    while await images.count_documents({"enrichment.state": "complete"}) < count:
        await asyncio.sleep(0.02)


async def throughput(images: AsyncCollection[Document], first: int, count: int) -> float:
    """Documents a second from the first insert until all are complete."""
    before = await images.count_documents({"enrichment.state": "complete"})
    started = time.perf_counter()
    await insert(images, first, count)
    await until_complete(images, before + count)
    return count / (time.perf_counter() - started)


async def latencies(images: AsyncCollection[Document], first: int, count: int) -> list[float]:
    """Milliseconds from each of `count` single inserts until a change stream says that it is complete."""
    updates: list[Document] = [{"$match": {"operationType": "update"}}, {"$project": {"documentKey": 1}}]
    found = []
    async with await images.watch(updates) as stream:
        for number in range(first, first + count):
            started = time.perf_counter()
            await images.insert_one({"_id": number, "source": tiny_image(number)})
            while (await stream.next())["documentKey"]["_id"] != number:
                pass
            found.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(0.02)
    return found


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


async def sweeps(uri: str, count: int) -> Document:
    """Seconds that both sweeps take over `count` complete documents."""
    client: AsyncMongoClient[Document] = AsyncMongoClient(uri)
    collections = open_collections(client, "sweep", "images")
    config = Config.model_validate({"enrichers": {"enabled": ["noop"]}, "sweep": {"verify_rate": 10_000_000}})
    setup = app.Setup.of(config)
    await migrate(collections)
    images, state = app.open_images(config, collections), State(collections)
    stored = await state.activate(setup.plan, utc_now())
    now = utc_now()
    (step,) = setup.plan.steps
    run = {"state": "done", "fingerprint": step.fingerprint, "at": now}
    quick = collections.images.with_options(write_concern=WriteConcern(w=1))
    for start in range(0, count, 10_000):
        await quick.insert_many(
            [
                {
                    "_id": n,
                    "source": f"{n}.jpg",
                    "enrichments": {"noop": {"run": run}},
                    "enrichment": {"state": "complete", "plan": setup.plan.hash, "source_ref": f"{n}.jpg", "at": now},
                }
                for n in range(start, min(start + 10_000, count))
            ],
            ordered=False,
        )
        print(f"\r{start + 10_000:>9} documents for the sweeps", end="", file=sys.stderr)
    print(file=sys.stderr)

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
    started = time.perf_counter()
    counts = await sweeper.verify()
    verify = time.perf_counter() - started
    assert counts["documents"] == count and counts["lacking"] == 0
    started = time.perf_counter()
    async for _ in collections.images.find({}, batch_size=500):
        pass
    read = time.perf_counter() - started
    await client.close()
    return {"documents": count, "fast_s": fast, "verify_s": verify, "read_once_s": read}


async def measure(arguments: argparse.Namespace, folder: Path) -> Document:
    report: Document = {"documents": arguments.documents}
    with server(folder) as running:
        client: AsyncMongoClient[Document] = AsyncMongoClient(running.uri)
        plain_images = client.get_database("plain", write_concern=SAFE)["images"]
        await client["plain"].create_collection("images")
        await plain_images.create_index("enrichment.state")
        report["plain_documents_per_second"] = await plain(plain_images, arguments.documents)
        settings = {
            "mongo.uri": running.uri,
            "mongo.database": "bookkeeping",
            "enrichers.enabled": ["noop"],
            "pipeline.device": "cpu",
            "pipeline.in_flight": arguments.in_flight,
            "pipeline.queue": 1_000_000,
        }
        images = client["bookkeeping"]["images"]
        with daemon(folder, settings) as process:
            report["start_s"] = process.start_s
            await throughput(images, 0, 500)  # warm
            cpu = process.cpu_s()
            report["documents_per_second"] = await throughput(images, 1000, arguments.documents)
            report["cpu_ms_per_document"] = (process.cpu_s() - cpu) * 1000 / arguments.documents
            report["ratio"] = report["documents_per_second"] / report["plain_documents_per_second"]
            times = await latencies(images, 10_000_000, arguments.latencies)
            report["latency_ms"] = {
                "p50": statistics.median(times),
                "p99": statistics.quantiles(times, n=100)[98],
            }
            report["at_size"] = []
            for size in arguments.sizes:
                there = await images.estimated_document_count()
                if size > there:
                    await throughput(images, 20_000_000 + there, size - there)
                rate = await throughput(images, 40_000_000 + size, 1000)
                times = await latencies(images, 60_000_000 + size, 50)
                row = {"size": size, "documents_per_second": rate, "latency_p50_ms": statistics.median(times)}
                report["at_size"].append(row)
            report["rss_mb"] = process.rss_mb()
        await client.close()
    if arguments.sweep:
        with server(folder / "sweep") as running:
            report["sweep"] = await sweeps(running.uri, arguments.sweep)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=5000, help="documents for the throughput")
    parser.add_argument("--latencies", type=int, default=200, help="single inserts for the latency")
    parser.add_argument("--in-flight", type=int, default=256, help="pipeline.in_flight")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10_000, 100_000], help="documents already there")
    parser.add_argument("--sweep", type=int, default=1_000_000, help="complete documents to sweep; 0 leaves it out")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent / "plugin"))
    with tempfile.TemporaryDirectory(prefix="enrichd-bench-") as name:
        report = asyncio.run(measure(arguments, Path(name)))
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        for key, value in report.items():
            print(f"{key:<32}{value}")


if __name__ == "__main__":
    main()
