"""What each choice of views of a face costs and is worth: milliseconds a face on one core, Labeled Faces in the Wild.

`python -m benchmarks.face_embeddings --json`; the accuracy needs the evaluation data (ENRICHD_EVAL_DATA).
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daemon.demo_photos import originals
from daemon.evaluate.faces import figures, most_central, read_pairs
from daemon.evaluate.frame import as_image
from enrichers.catalogue import Catalogue
from enrichers.contract import Face, Vector
from enrichers.decode import decode
from enrichers.detection import Detections
from enrichers.embedding import VIEWS, Embedder, Preparation
from enrichers.face_detectors import open_detector
from enrichers.face_finder import FaceFinder
from enrichers.faces import Faces
from enrichers.image import Pixels
from enrichers.loading import ProcessLoader
from enrichers.weights import ModelStore, default_cache

#: faces that the time is measured on, and how often: the fastest round counts, what else ran disturbed the others
TIMED, ROUNDS = 64, 5
#: largest photo that is decoded
LIMITS = {"max_pixels": 100_000_000, "max_bytes": 100_000_000}
#: photos that are held together
PHOTOS = 16

#: a picture and its one face
Found = tuple[Pixels, Detections]


class Bench:
    """The catalogue's detector and embedding model, on one core."""

    def __init__(self, model: str) -> None:
        cache = Path(os.environ.get("ENRICHD_MODELS_CACHE") or default_cache())
        catalogue = Catalogue.load(cache=cache)
        loader = ProcessLoader(ModelStore(cache, catalogue), "cpu", 1)
        settings = Faces.defaults
        self._finder = FaceFinder(open_detector(settings["detector"], catalogue, loader), settings)
        self._network = loader.network(model)
        self._preparation = Preparation.parse(model, catalogue.entry(model).options)
        self._model = model

    def found(self, paths: Sequence[Path]) -> Iterator[Found | None]:
        """The most central face of each photo, None where there is none."""
        for start in range(0, len(paths), PHOTOS):
            images = [
                as_image(0, *decode(path, max_side=self._finder.max_side, **LIMITS)) for path in paths[start:][:PHOTOS]
            ]
            for picture, faces in zip(*self._finder.find(images), strict=True):
                height, width = picture.shape[:2]
                boxes = [tuple(map(float, box)) for box in faces.boxes]
                every = [Face(box, (), 1.0, {}, {}, b"") for box in boxes]  # type: ignore[arg-type]
                best = most_central(every, width, height)
                yield None if best is None else (picture, faces.chosen(np.array([every.index(best)])))

    def embedder(self, views: str) -> Embedder:
        return Embedder(self._model, self._network, self._preparation, VIEWS[views])

    def vectors(self, views: str, found: Sequence[Found | None]) -> list[Vector | None]:
        embedder = self.embedder(views)
        return [
            None if one is None else vector
            for one in found
            for vector in (embedder.embed(embedder.chips(*one)) if one else [None])
        ]

    def milliseconds(self, views: str, found: Sequence[Found]) -> float:
        """Of a face whose landmarks are known: its chips are cut and embedded, in batches across pictures."""
        embedder = self.embedder(views)
        faces = [found[n % len(found)] for n in range(TIMED)]
        took = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            embedder.embed([chip for one in faces for chip in embedder.chips(*one)])
            took.append(time.perf_counter() - begin)
        return 1000 * min(took) / TIMED


def measured(model: str) -> dict[str, dict[str, Any]]:
    bench = Bench(model)
    data = os.environ.get("ENRICHD_EVAL_DATA")
    if data:
        people = Path(data) / "lfw" / "people"
        pairs = read_pairs(people.parent / "pairs.txt", people)
        paths = sorted({path for pair in pairs for path in (pair.first, pair.second)})
    else:
        pairs, paths = [], [originals()[name][0] for name in ("astronaut", "grace_hopper")]
    found = [*bench.found(paths)]
    result: dict[str, dict[str, Any]] = {}
    for views in VIEWS:
        result[views] = {"views": len(VIEWS[views])}
        result[views]["ms_a_face"] = round(bench.milliseconds(views, [one for one in found if one][:TIMED]), 2)
        if pairs:
            told, _ = figures(pairs, dict(zip(paths, bench.vectors(views, found), strict=True)))
            result[views] |= {key: round(told[key], 4) for key in ("accuracy", "std", "tar_at_far_0_001")}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=Faces.defaults["embedding"], help="embedding model of the catalogue")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = measured(options.model)
    if options.json:
        print(json.dumps(result))
        return
    for name, row in result.items():
        print(f"{name:>10}  " + "  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
