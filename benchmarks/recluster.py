"""How long it takes to cluster many faces, how well that goes, and how other methods do on the same faces.

`python -m benchmarks.recluster --faces 100000 --json`; the same methods on real faces: `enrichd evaluate identities
PEOPLE --peers`.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.faces_generator import Made, make
from benchmarks.progress import progress
from daemon.calibration import Calibrations
from daemon.clustering import Constraints, Faces, cluster, grow
from daemon.peers import PEERS, Best, alone
from daemon.scores import agreement

Ints = NDArray[np.int64]

#: share of the faces that are new in the second measurement
NEW = 0.01
#: address space that another method may take, in bytes
PEER_MEMORY = 12 << 30
#: embedding model whose calibration is used; the made-up faces lie as far apart as its do
MODEL = "dlib"


def faces_of(made: Made) -> Faces:
    """Each made-up face on a photo of its own."""
    return Faces(made.vectors, made.quality, np.arange(len(made.vectors)))


def measured(count: int, seed: int) -> dict[str, Any]:
    """A full recluster of `count` faces, and one after 1 % of them are new; run in a process of its own, so that its
    peak memory is that of the clustering."""
    made = make(count, seed)
    base = peak_mb()
    faces, calibration = faces_of(made), Calibrations.load().of(MODEL)
    started = time.perf_counter(), time.process_time()
    labels = cluster(faces, calibration, Constraints())
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    peak = peak_mb()
    figures: dict[str, Any] = {
        "faces": count,
        "people": len(np.unique(made.people)),
        "clusters": len(np.unique(labels)),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mb": round(peak),
        "peak_mb_before": round(base),
        **{key: round(value, 4) for key, value in asdict(agreement(made.people, labels)).items()},
    }
    new = np.random.default_rng(seed).random(count) < NEW
    started = time.perf_counter(), time.process_time()
    labels = grow(faces, np.where(new, -1, labels), new, calibration, Constraints())
    figures["incremental_seconds"] = round(time.perf_counter() - started[0], 2)
    figures["incremental_cpu_seconds"] = round(time.process_time() - started[1], 2)
    figures["incremental_share"] = round(figures["incremental_seconds"] / seconds, 4)
    figures["incremental_bcubed_f"] = round(agreement(made.people, labels).bcubed_f, 4)
    return figures


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e6 if sys.platform == "darwin" else size / 1e3


def peers(count: int, seed: int, seconds: float) -> dict[str, Any]:
    """The other methods on the same faces, each in a process of its own and at the best of the settings that it gets
    through in `seconds`."""
    found = {}
    for number, method in enumerate(PEERS):
        progress(f"{method}, up to {seconds:g} s: {number + 1} of {len(PEERS)} other methods")
        found[method] = peer(method, count, seed, seconds)
    return found


def peer(method: str, count: int, seed: int, seconds: float) -> dict[str, Any]:
    """One method: its best setting, and where it was stopped early, why."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=sweep, args=(method, count, seed, sender), daemon=True)
    process.start()
    sender.close()
    found: list[tuple[Best, float]] = []
    stopped: str | None = f"stopped after {seconds:g} s"
    deadline: float | None = None
    while receiver.poll(None if deadline is None else max(0.0, deadline - time.monotonic())):
        try:
            message = receiver.recv()
        except EOFError:
            process.join()
            stopped = f"its process ended with {process.exitcode}" if process.exitcode else None
            break
        if message is None:  # the faces are made, the method starts
            deadline = time.monotonic() + seconds
        elif isinstance(message, str):
            stopped = message
            break
        else:
            found.append(message)
    process.kill()
    process.join()
    figures: dict[str, Any] = {"settings": len(found)}
    if found:
        winner, took = max(found, key=lambda entry: entry[0].agreement.bcubed_f)
        agreed = winner.agreement
        figures |= {"bcubed_f": round(agreed.bcubed_f, 4), "pairwise_f": round(agreed.pairwise_f, 4)}
        figures |= {"setting": winner.setting, "seconds": round(took, 1)}
    return figures | ({"stopped": stopped} if stopped else {})


def sweep(method: str, count: int, seed: int, sender: Connection) -> None:
    """Tells the result of each setting as soon as it is there, with the seconds since the one before."""
    resource.setrlimit(resource.RLIMIT_AS, (PEER_MEMORY, PEER_MEMORY))
    made = make(count, seed)
    sender.send(None)
    try:
        started = time.perf_counter()
        for setting, labels in PEERS[method](made.vectors):
            took = time.perf_counter() - started
            sender.send((Best(method, setting, agreement(made.people, alone(labels))), took))
            started = time.perf_counter()
    except MemoryError:
        sender.send(f"needs more than {PEER_MEMORY >> 30} GiB of memory")
    except ImportError as error:
        sender.send(str(error))


def distances(vectors: NDArray[np.float32], people: Ints) -> dict[str, list[float]]:
    """Percentiles of cosine distance within and between people, to hold the generator against real faces."""
    rows = np.random.default_rng(0).permutation(len(vectors))[:2000]
    distance = (1.0 - vectors[rows] @ vectors[rows].T)[np.triu_indices(len(rows), 1)]
    same = (people[rows][:, None] == people[rows])[np.triu_indices(len(rows), 1)]
    return {
        "within": np.percentile(distance[same], [5, 25, 50, 75, 95]).round(4).tolist(),
        "between": np.percentile(distance[~same], [0.01, 0.1, 1, 25, 50, 75]).round(4).tolist(),
    }


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Runs `work` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=100_000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--peers", type=float, metavar="SECONDS", default=120.0, help="time for each other method; 0: leave them out"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    progress(f"clustering {options.faces} faces")
    figures = apart(measured, options.faces, options.seed)
    figures["cores"] = os.cpu_count()
    figures["load"] = os.getloadavg()[0]
    like = make(0, options.seed, np.concatenate([np.full(50, 14), np.ones(250, int)]))
    figures["distances_like_lfw"] = distances(like.vectors, like.people)
    if options.peers:
        figures["peers"] = peers(options.faces, options.seed, options.peers)
    progress("")
    if options.json:
        print(json.dumps(figures))
        return
    others = figures.pop("peers", {})
    for name, value in figures.items():
        print(f"{name:>24}  {value}")
    for method, entry in others.items():
        print(f"{method:>24}  " + ", ".join(f"{name} {value}" for name, value in entry.items()))


if __name__ == "__main__":
    main()
