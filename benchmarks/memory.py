"""Whether the memory of the daemon stays flat while it works on many images, none of them like another.

`python -m benchmarks.memory --images 20000 --enrichers properties,objects,tags,similarity --json`
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pymongo import MongoClient

from benchmarks.daemon import DaemonProcess, daemon, pss_mb, server
from benchmarks.photos import photos
from benchmarks.progress import progress

Report = dict[str, Any]

#: seed of the crops
SEED = 11
#: images that are inserted at a time; the next ones are made meanwhile
CHUNK = 250
#: seconds between looks at the memory
LOOK_S = 1.0


def variation(original: Image.Image, number: int, sides: tuple[int, int]) -> Image.Image:
    """A crop of a photo, mirrored or not, its longest side within `sides`: of a size and shape that few others have."""
    rng = np.random.default_rng((SEED, number))
    width, height = (max(32, int(side * rng.uniform(0.4, 1.0))) for side in original.size)
    left, top = int(rng.integers(original.width - width + 1)), int(rng.integers(original.height - height + 1))
    crop = original.crop((left, top, left + width, top + height))
    scale = rng.integers(sides[0], sides[1] + 1) / max(crop.size)
    made = crop.resize((max(16, round(crop.width * scale)), max(16, round(crop.height * scale))))
    return made.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else made


def chunks(folder: Path, count: int, sides: tuple[int, int]) -> Iterator[list[Path]]:
    """Files of `count` variations, a chunk at a time."""
    originals = [Image.open(path).convert("RGB") for path in photos(folder, min(count, 80), None)]

    def write(first: int) -> list[Path]:
        paths = []
        for number in range(first, min(first + CHUNK, count)):
            path = folder / f"{number}.jpg"
            variation(originals[number % len(originals)], number, sides).save(path, quality=85)
            paths.append(path)
        return paths

    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(write, 0)]
        for first in range(0, count, CHUNK):
            ready = coming.pop().result()
            if first + CHUNK < count:
                coming.append(pool.submit(write, first + CHUNK))
            yield ready


@dataclass
class Watcher:
    """Looks at the memory of a daemon, again and again, and remembers how many images were done then."""

    process: DaemonProcess
    server_pid: int
    done: int = 0
    samples: list[tuple[int, float]] = field(default_factory=list)
    server: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            self.samples.append((self.done, self.process.rss_mb()))
            self.server.append(pss_mb(self.server_pid))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def between(self, first: float, last: float) -> float | None:
        """The median while images `first` to `last` were worked on; None where it was not looked at then."""
        found = [mb for done, mb in self.samples if first <= done < last]
        return statistics.median(found) if found else None


def growth(watcher: Watcher, count: int, warm: int) -> float | None:
    """How much more memory the last tenth of the images took than a tenth after the first `warm`; None for too few."""
    tenth = max(CHUNK, count / 10)
    before, after = watcher.between(warm, warm + tenth), watcher.between(count - tenth, count + 1)
    return None if before is None or after is None or count < warm + 2 * tenth else after / before - 1


def measure(arguments: argparse.Namespace, folder: Path) -> Report:
    files = folder / "photos"
    files.mkdir()
    settings: Report = {"mongo.database": "memory", "images.roots": [str(files)], "pipeline.device": "cpu"}
    if arguments.enrichers:
        settings["enrichers.enabled"] = arguments.enrichers.split(",")
    started = time.perf_counter()
    with server(folder) as running:
        images: Any = MongoClient(running.uri)["memory"]["images"]
        assert running.pid is not None
        with daemon(folder, settings | {"mongo.uri": running.uri}) as process:
            idle = process.rss_mb()
            watcher = Watcher(process, running.pid)
            number = 0
            for paths in chunks(files, arguments.images, (arguments.smallest, arguments.largest)):
                images.insert_many([{"_id": number + n, "source": str(path)} for n, path in enumerate(paths)])
                number += len(paths)
                _until_done(images, number - len(paths), number)
                watcher.done = number
                for path in paths:
                    path.unlink()
                mb = watcher.samples[-1][1] if watcher.samples else idle
                progress(f"{number} of {arguments.images} images, {mb:.0f} MB, {time.perf_counter() - started:.0f} s")
                if arguments.seconds and time.perf_counter() - started > arguments.seconds:
                    break
            watcher.stop()
            import shutil

            shutil.copy(folder / "daemon.log", "/tmp/ledger/daemon.log")
            states = {s["_id"]: s["n"] for s in images.aggregate([{"$sortByCount": "$enrichment.state"}, _AS_N])}
    step = max(1, len(watcher.samples) // 40)
    return {
        "images": number,
        "seconds": time.perf_counter() - started,
        "enrichers": arguments.enrichers or "all",
        "states": states,
        "idle_rss_mb": idle,
        "peak_rss_mb": max(mb for _, mb in watcher.samples),
        "growth": growth(watcher, number, arguments.warm),
        "server_rss_mb": [min(watcher.server), max(watcher.server)],
        "samples": [{"images": done, "rss_mb": round(mb)} for done, mb in watcher.samples[::step]],
    }


_AS_N: Report = {"$project": {"n": "$count"}}


def _until_done(images: Any, first: int, last: int) -> None:
    for number in (last - 1, *range(first, last)):  # mostly the last one is the last to finish
        while images.find_one({"_id": number, "enrichment.state": {"$gt": ""}}, {"_id": 1}) is None:
            time.sleep(0.05)


def table(report: Report) -> str:
    """The report for people."""
    lines = [f"{key:<16}{value}" for key, value in report.items() if key != "samples"]
    rows = [f"{sample['images']:>8}  {sample['rss_mb']:>8}" for sample in report["samples"]]
    return "\n".join([*lines, "", "  images        MB", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="how many")
    parser.add_argument("--enrichers", default="properties,objects,tags,similarity", help="names; empty: all")
    parser.add_argument("--warm", type=int, default=2000, help="images after which it may not grow any more")
    parser.add_argument("--smallest", type=int, default=160, help="longest side of the smallest image in pixels")
    parser.add_argument("--largest", type=int, default=640, help="longest side of the largest image in pixels")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long; 0: when all images are done")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="enrichd-bench-") as name:
        report = measure(arguments, Path(name))
    progress("")
    print(json.dumps(report, indent=2) if arguments.json else table(report))


if __name__ == "__main__":
    main()
