"""The script that a user would write instead: one image after another, each model on its own, one update an image.

`python -m benchmarks.naive SETTINGS.json` is started by benchmarks.pipeline in a process of its own.
"""

import io
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pymongo import MongoClient

from daemon import app
from daemon.config import Config
from enrichers.centerface import CenterFace
from enrichers.contract import Enricher, Result
from enrichers.decode import decode
from enrichers.image import Image as Decoded
from enrichers.loading import ProcessLoader


def whole_graph(path: Path) -> Callable[[Any], Any]:
    """The published detection graph as its tutorials run it: a photo of any size in, boxes out."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)
    outputs = ["detection_boxes:0", "detection_scores:0", "detection_classes:0", "num_detections:0"]
    return lambda pixels: session.run(outputs, {"image_tensor:0": pixels[None]})


class Naive:
    """face_recognition-style faces with dlib, RapidOCR as its README calls it, TensorFlow fed whole photos of changing
    sizes; whatever else is enabled runs unbatched."""

    def __init__(self, setup: app.Setup, cores: int) -> None:
        import dlib
        from rapidocr import RapidOCR

        store = setup.store
        loader = ProcessLoader(store, "cpu", cores)
        self._steps: dict[str, Callable[[Any], Any]] = {}
        names = {enricher.name: enricher for enricher in setup.enrichers}
        if "objects" in names:
            self._steps["objects"] = whole_graph(store.verify("ssd_mobilenet_v2_coco"))
        if "faces" in names:
            detector = CenterFace(loader.network("centerface"))
            shape = dlib.shape_predictor(str(store.verify("dlib_shape_5")))
            embed = dlib.face_recognition_model_v1(str(store.verify("dlib")))
            self._steps["faces"] = lambda pixels: self._faces(detector, shape, embed, pixels)
        if "text" in names:
            reader = RapidOCR(params={"Global.log_level": "critical"})
            self._steps["text"] = lambda pixels: reader(pixels[:, :, ::-1])
        self._others = [e for name, e in names.items() if name not in ("objects", "faces", "text")]
        for enricher in self._others:
            enricher.load(loader)

    @staticmethod
    def _faces(detector: Any, shape: Any, embed: Any, pixels: Any) -> list[Any]:
        import dlib

        height, width = pixels.shape[:2]
        (found,) = detector.detect([pixels], max(height, width), 0.5)
        vectors = []
        for x, y, w, h in found.boxes:
            box = dlib.rectangle(int(x), int(y), int(x + w), int(y + h))
            vectors.append(list(embed.compute_face_descriptor(pixels, shape(pixels, box))))
        return vectors

    def __call__(self, path: Path, spent: dict[str, float]) -> dict[str, Any]:
        started = time.perf_counter()
        data = path.read_bytes()
        pixels = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        spent["decode"] += time.perf_counter() - started
        answer: dict[str, Any] = {}
        for name, step in self._steps.items():
            started = time.perf_counter()
            answer[name] = str(step(pixels))[:1000]
            spent[name] += time.perf_counter() - started
        _, facts = decode(data, max_side=64, max_pixels=10**9, max_bytes=10**9)
        image = Decoded(0, pixels, facts.width, facts.height, facts)
        for enricher in self._others:
            started = time.perf_counter()
            answer[enricher.name] = self._other(enricher, image)
            spent[enricher.name] += time.perf_counter() - started
        return answer

    @staticmethod
    def _other(enricher: Enricher, image: Decoded) -> str:
        try:
            (outcome,) = enricher.enrich([image])
        except Exception as error:  # it requires an answer that this script has in another form
            return f"left out: {error}"
        return str(outcome.answer)[:1000] if isinstance(outcome, Result) else outcome.message


def main() -> None:
    arguments = json.loads(Path(sys.argv[1]).read_text())
    setup = app.Setup.of(Config.model_validate(arguments["config"]))
    script = Naive(setup, arguments["cores"])
    images: Any = MongoClient(arguments["uri"])["naive"]["images"]
    paths = [Path(path) for path in arguments["paths"]]
    images.insert_many([{"_id": n, "source": str(path)} for n, path in enumerate(paths)])
    spent: dict[str, float] = defaultdict(float)
    script(paths[0], defaultdict(float))  # warm
    started = time.perf_counter()
    for document in images.find():
        answer = script(Path(document["source"]), spent)
        images.update_one({"_id": document["_id"]}, {"$set": {"enrichments": answer}})
    total = time.perf_counter() - started
    stages = {name: value * 1000 / len(paths) for name, value in spent.items()}
    print(json.dumps({"images_per_second": len(paths) / total, "ms_per_image": stages}))


if __name__ == "__main__":
    main()
