"""How fast the models alone could be: only the runtime calls, on the very tensors that the enrichers prepared.

`python -m benchmarks.bound SETTINGS.json` is started by benchmarks.pipeline in a process of its own.
"""

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon import app
from daemon.config import Config
from daemon.inference import enrich
from enrichers.contract import Network, Result
from enrichers.decode import decode
from enrichers.image import Image
from enrichers.loading import ProcessLoader

Inputs = dict[str, NDArray[Any]]

#: batch sizes that are tried for each network
BATCHES = (1, 2, 8)
#: images that the enrichers are given at a time
IMAGES = 8
#: images on whose calls batch sizes and placements are tried; the best is then measured on those of all
TRIED = 32


class Recorder:
    """A loader whose networks keep what they are given."""

    def __init__(self, loader: ProcessLoader) -> None:
        self._loader = loader
        self.device, self.threads = loader.device, loader.threads
        self.calls: dict[str, list[Inputs]] = defaultdict(list)

    def network(self, name: str) -> Network:
        network, recorder = self._loader.network(name), self

        class Recording:
            inputs = network.inputs

            def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
                recorder.calls[name].append({key: np.array(value) for key, value in inputs.items()})
                return network.run(inputs)

        return Recording()

    def path(self, name: str) -> str:
        return self._loader.path(name)


def record(setup: app.Setup, paths: Sequence[Path], batch: int) -> dict[str, list[list[Inputs]]]:
    """What each network is given while all enrichers work on the images of `paths`: a list for each batch of images."""
    recorder = Recorder(ProcessLoader(setup.store, setup.device, 1))
    for enricher in setup.enrichers:
        enricher.load(recorder)
    sides = [enricher.form.max_side for enricher in setup.enrichers]
    side = None if None in sides else max(s for s in sides if s is not None)
    limits = setup.config.images
    recorded: dict[str, list[list[Inputs]]] = defaultdict(list)
    for start in range(0, len(paths), batch):
        images = []
        for key, path in enumerate(paths[start : start + batch], start):
            pixels, facts = decode(path, max_side=side, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes)
            images.append(Image(key, pixels, facts.width, facts.height, facts))
        for enricher in setup.enrichers:
            for image, outcome in zip(images, enrich(enricher, images), strict=True):
                if isinstance(outcome, Result):
                    image.results = {**image.results, enricher.name: outcome.required()}
        for name, calls in recorder.calls.items():
            recorded[name].append(list(calls))
            calls.clear()
    return recorded


def regroup(calls: Sequence[Inputs], batch: int) -> list[Inputs]:
    """The same rows in batches of up to `batch`, rows of equal shape together."""
    groups: dict[Any, list[Inputs]] = defaultdict(list)
    for call in calls:
        rows = next(iter(call.values())).shape[0]
        if any(value.shape[:1] != (rows,) for value in call.values()):
            groups[id(call)].append(call)
            continue
        shape = tuple((key, value.shape[1:], value.dtype.str) for key, value in sorted(call.items()))
        groups[shape] += [{key: value[n : n + 1] for key, value in call.items()} for n in range(rows)]
    return [
        {key: np.concatenate([row[key] for row in rows[start : start + batch]]) for key in rows[0]}
        for rows in groups.values()
        for start in range(0, len(rows), batch)
    ]


def seconds(networks: Sequence[Network], calls: Sequence[Inputs]) -> float:
    """Seconds that the networks, each in a thread of its own, take for all calls together, the better of two rounds;
    infinite where they cannot be called so: rows that point at other rows cannot be regrouped."""
    lanes = len(networks)
    failures: list[Exception] = []

    def work(network: Network, mine: Sequence[Inputs]) -> None:
        try:
            for call in mine:
                network.run(call)
        except Exception as error:  # the runtimes' exceptions share no base but this
            failures.append(error)

    best = float("inf")
    for _ in range(2):
        threads = [threading.Thread(target=work, args=(networks[n], calls[n::lanes])) for n in range(lanes)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = min(best, time.perf_counter() - started)
    return float("inf") if failures else best


def measure(setup: app.Setup, paths: Sequence[Path], cores: int) -> dict[str, Any]:
    """Milliseconds an image of every network at its best batch size and placement, and their sum's images a second."""
    networks: dict[str, Any] = {}
    for name, recorded in record(setup, paths, IMAGES).items():
        calls = [call for batch in recorded for call in batch]
        few = [call for batch in recorded[: TRIED // IMAGES] for call in batch]
        tried: list[dict[str, Any]] = []
        for threads, lanes in ((1, cores), (cores, 1)):
            loaded = [ProcessLoader(setup.store, setup.device, threads).network(name) for _ in range(lanes)]
            for batch in (0, *BATCHES):  # 0: as the enricher made them
                took = seconds(loaded, regroup(few, batch) if batch else few)
                tried.append({"seconds": took, "batch": batch, "threads": threads, "lanes": lanes})
        if any(entry["seconds"] == float("inf") for entry in tried):
            tried = [entry for entry in tried if not entry["batch"]]
        best = min(tried, key=lambda entry: entry["seconds"])
        loaded = [ProcessLoader(setup.store, setup.device, best["threads"]).network(name) for _ in range(best["lanes"])]
        took = seconds(loaded, regroup(calls, best["batch"]) if best["batch"] else calls)
        networks[name] = {**best, "seconds": took, "ms_per_image": took * 1000 / len(paths)}
    total = sum(entry["ms_per_image"] for entry in networks.values())
    return {"networks": networks, "images_per_second": 1000 / total if total else None}


def main() -> None:
    arguments = json.loads(Path(sys.argv[1]).read_text())
    setup = app.Setup.of(Config.model_validate(arguments["config"]))
    print(json.dumps(measure(setup, [Path(path) for path in arguments["paths"]], arguments["cores"])))


if __name__ == "__main__":
    main()
