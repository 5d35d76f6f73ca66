"""Images a second through the real daemon, beside what the models alone could do and what a plain script does.

`python -m benchmarks.pipeline --json`
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from benchmarks.daemon import daemon, server
from benchmarks.photos import photos
from benchmarks.progress import progress

Report = dict[str, Any]

#: images that a daemon works on before the clock starts: runtimes take memory for each shape that they meet
WARM = 32
#: seconds between looks at whether an image is finished
POLL_S = 0.05


def run_module(module: str, folder: Path, arguments: Report) -> Any:
    """Runs another benchmark module in a process of its own; its last line is JSON."""
    settings = folder / f"{module}.json"
    settings.write_text(json.dumps(arguments))
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", str(settings)], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout.decode().splitlines()[-1])


def through_the_daemon(uri: str, folder: Path, paths: list[Path], settings: Report) -> Report:
    """Inserts all documents at once into a warm daemon and waits until every one is finished."""
    images: Any = MongoClient(uri)["pipeline"]["images"]
    with daemon(folder, settings) as process:
        _insert(images, "warm", paths[:WARM])
        cpu, peak, stop = process.cpu_s(), [0.0], threading.Event()

        def watch_memory() -> None:
            while not stop.wait(0.5):
                peak[0] = max(peak[0], process.rss_mb())

        watcher = threading.Thread(target=watch_memory)
        watcher.start()
        started = time.perf_counter()
        _insert(images, "image", paths)
        took = time.perf_counter() - started
        cpu = process.cpu_s() - cpu
        stop.set()
        watcher.join()
    states = {s["_id"]: s["n"] for s in images.aggregate([{"$group": {"_id": "$enrichment.state", "n": {"$sum": 1}}}])}
    stages: Report = {}
    for document in images.find({"_id": {"$regex": "^image"}}, {"enrichments": 1}):
        for name, entry in document["enrichments"].items():
            stages[name] = stages.get(name, 0.0) + entry["run"].get("ms", 0.0) / len(paths)
    return {
        "images_per_second": len(paths) / took,
        "cold_start_s": process.start_s,
        "cpu_use": cpu / took,
        "cpu_ms_per_image": cpu * 1000 / len(paths),
        "peak_rss_mb": peak[0],
        "states": states,
        "ms_per_image": stages,
    }


def _insert(images: Any, name: str, paths: list[Path]) -> None:
    """Inserts documents at once and waits until each is finished: asks for one at a time, the last first, as the server
    has the same cores."""
    images.insert_many([{"_id": f"{name}-{n}", "source": str(path)} for n, path in enumerate(paths)])
    for n in reversed(range(len(paths))):
        while "state" not in (images.find_one({"_id": f"{name}-{n}"}, {"enrichment.state": 1}).get("enrichment") or {}):
            progress(f"{len(paths)} images through the daemon")
            time.sleep(POLL_S)


def measure(arguments: argparse.Namespace, folder: Path) -> Report:
    paths = [path.resolve() for path in photos(folder, arguments.count, arguments.images)]
    roots = sorted({str(path.parent) for path in paths})
    cores = arguments.threads or os.cpu_count() or 1
    enabled = arguments.enrichers.split(",") if arguments.enrichers else None
    config: Report = {"images": {"roots": roots}, "pipeline": {"device": arguments.device}}
    if enabled:
        config["enrichers"] = {"enabled": enabled}
    parts: Report = {"config": config, "paths": [str(path) for path in paths], "cores": cores}
    report: Report = {"images": len(paths), "cores": cores, "device": arguments.device}
    with server(folder) as running:
        settings = {
            "mongo.uri": running.uri,
            "mongo.database": "pipeline",
            "images.roots": roots,
            "pipeline.device": arguments.device,
            "pipeline.threads": cores,
            **({"enrichers.enabled": enabled} if enabled else {}),
        }
        report |= through_the_daemon(running.uri, folder, paths, settings)
        if not arguments.no_naive:
            progress(f"{len(paths)} images through the plain script")
            naive = run_module("naive", folder, {**parts, "uri": running.uri})
            report["naive_images_per_second"] = naive["images_per_second"]
            report["naive_ms_per_image"] = naive["ms_per_image"]
            report["speedup"] = report["images_per_second"] / naive["images_per_second"]
    if not arguments.no_bound:
        progress(f"the models alone on {len(paths)} images")
        bound = run_module("bound", folder, parts)
        report["bound"] = bound["networks"]
        report["bound_images_per_second"] = bound["images_per_second"]
        if bound["images_per_second"]:
            report["efficiency"] = report["images_per_second"] / bound["images_per_second"]
    return report


def table(report: Report) -> str:
    """The report for people."""
    lines = []
    for key, value in report.items():
        if isinstance(value, dict):
            lines += ["", key]
            lines += [f"  {name:<26}{_cell(entry)}" for name, entry in value.items()]
        else:
            lines.append(f"{key:<28}{_cell(value)}")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "   ".join(f"{name} {_cell(entry)}" for name, entry in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of .jpg files; default: photos of the packages")
    parser.add_argument("--count", type=int, default=160, help="images to work on")
    parser.add_argument("--enrichers", help="names, separated by commas; default: all")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "auto"])
    parser.add_argument("--threads", type=int, default=0, help="cores to use; 0: all")
    parser.add_argument("--no-naive", action="store_true", help="leave the plain script out")
    parser.add_argument("--no-bound", action="store_true", help="leave the models alone out")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="enrichd-bench-") as name:
        report = measure(arguments, Path(name))
    progress("")
    print(json.dumps(report, indent=2) if arguments.json else table(report))


if __name__ == "__main__":
    main()
