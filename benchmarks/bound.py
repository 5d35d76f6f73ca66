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
BATCHES = (1, 4, 8, 16)


class Recorder:
    """A loader whose networks keep what they are given."""

    def __init__(self, loader: ProcessLoader) -> None:
        self._loader = loader
        self.device, self.threads = loader.device, loader.threads
        self.calls: dict[str, list[Inputs]] = defaultdict(list)

    def network(self, name: str) -> Network:
        network, calls = self._loader.network(name), self.calls[name]

        class Recording:
            inputs = network.inputs

            def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
                calls.append({key: np.array(value) for key, value in inputs.items()})
                return network.run(inputs)

        return Recording()

    def path(self, name: str) -> str:
        return self._loader.path(name)


def record(setup: app.Setup, paths: Sequence[Path], batch: int) -> dict[str, list[Inputs]]:
    """What each network is given while all enrichers work on the images of `paths`."""
    recorder = Recorder(ProcessLoader(setup.store, setup.device, 1))
    for enricher in setup.enrichers:
        enricher.load(recorder)
    sides = [enricher.form.max_side for enricher in setup.enrichers]
    side = None if None in sides else max(s for s in sides if s is not None)
    limits = setup.config.images
    for start in range(0, len(paths), batch):
        images = []
        for key, path in enumerate(paths[start : start + batch], start):
            pixels, facts = decode(path, max_side=side, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes)
            images.append(Image(key, pixels, facts.width, facts.height, facts))
        for enricher in setup.enrichers:
            for image, outcome in zip(images, enrich(enricher, images), strict=True):
                if isinstance(outcome, Result):
                    items = [{"box": list(f.box), "score": f.score, **f.attributes} for f in outcome.faces]
                    answer = {**outcome.answer, "items": items} if outcome.faces else outcome.answer
                    image.results = {**image.results, enricher.name: answer}
    return recorder.calls


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
    calls = record(setup, paths, 8)
    networks: dict[str, Any] = {}
    for name, recorded in calls.items():
        if not recorded:
            continue
        best: dict[str, Any] = {}
        for threads, lanes in ((1, cores), (cores, 1)):
            loaded = [ProcessLoader(setup.store, setup.device, threads).network(name) for _ in range(lanes)]
            for network in loaded:
                network.run(recorded[0])
            for batch in (0, *BATCHES):  # 0: as the enricher made them
                took = seconds(loaded, regroup(recorded, batch) if batch else recorded)
                if not best or took < best["seconds"]:
                    best = {"seconds": took, "batch": batch, "threads": threads, "lanes": lanes}
        best["ms_per_image"] = best.pop("seconds") * 1000 / len(paths)
        networks[name] = best
    total = sum(entry["ms_per_image"] for entry in networks.values())
    return {"networks": networks, "images_per_second": 1000 / total if total else None}


def main() -> None:
    arguments = json.loads(Path(sys.argv[1]).read_text())
    setup = app.Setup.of(Config.model_validate(arguments["config"]))
    print(json.dumps(measure(setup, [Path(path) for path in arguments["paths"]], arguments["cores"])))


if __name__ == "__main__":
    main()
