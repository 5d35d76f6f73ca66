"""Embedding models beside dlib's: MobileFaceNet where it is at hand, and every other form on a tiny graph."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

from enrichers.catalogue import Catalogue
from enrichers.contract import Result, Vector
from enrichers.detection import Detections
from enrichers.embedding import VIEWS, Embedder, Preparation
from enrichers.faces import Faces
from enrichers.image import Facts, Image, Pixels
from enrichers.loading import ProcessLoader
from enrichers.weights import ModelStore, default_cache
from tests.conftest import pulled

#: how the well-known models want their faces
FACENET = {"size": 160, "align": "box", "margin": 0.1, "layout": "nhwc", "prewhiten": True}
ARCFACE = {"size": 112, "mean": [127.5, 127.5, 127.5], "deviation": [127.5, 127.5, 127.5]}
MOBILEFACENET = {"size": 112, "mean": [123.675, 116.28, 103.53], "deviation": [58.395, 57.12, 57.375]}


def vectors(entry: dict[str, Any], cache: Path, *pictures: Pixels, **settings: Any) -> list[Vector]:
    """The first face's vector of each picture by the embedding model `entry`, found by the catalogue's detector."""
    catalogue = Catalogue.load({"mine": {"task": "embedding", "provider": "file", **entry}})
    store = ModelStore(cache, catalogue)
    pulled(store, "centerface")
    enricher = Faces({**Faces.defaults, "embedding": "mine", "age": "", "gender": "", "emotion": "", **settings})
    enricher.catalogue = catalogue
    assert "mine" in {w.name for w in enricher.weights()}
    enricher.load(ProcessLoader(store, "cpu", 1))
    images = [Image(0, p, p.shape[1], p.shape[0], Facts("PNG", 1, "0" * 64, p.shape[1], p.shape[0])) for p in pictures]
    found = enricher.enrich(images)
    return [result.faces[0].embeddings["mine"] for result in found if isinstance(result, Result)]


@pytest.fixture
def cache(model_store: ModelStore) -> Path:
    return model_store.cache


def astronaut() -> Pixels:
    return np.ascontiguousarray(data.astronaut()[..., :3])


def likeness(a: Vector, b: Vector) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_mobilefacenet_tells_people_apart(eval_models: Path, eval_data: Path, cache: Path) -> None:
    entry = {
        "runtime": "onnx",
        "path": str(eval_models / "MobileFaceNet.onnx"),
        "derive": "enrichers.onnx_batch:build",
        "options": {**MOBILEFACENET, "inputs": {"chips": "input0"}, "outputs": {"embeddings": "output0"}},
    }
    people = eval_data / "lfw" / "people"
    photos = [people / name / f"{name}_{n:04d}.jpg" for name in ("George_Robertson", "Laura_Bush") for n in (2, 1)]
    pictures = [np.ascontiguousarray(cv2.imread(str(photo))[..., ::-1]) for photo in photos if photo.exists()]
    if len(pictures) != 4:
        pytest.skip("the photos of this test are not among the evaluation data")
    a, b, c, d = vectors(entry, cache, *pictures, views="plain")
    assert a.shape == (128,)
    assert (
        min(likeness(a, b), likeness(c, d)) > 0.28 > max(likeness(a, c), likeness(a, d), likeness(b, c), likeness(b, d))
    )


def tiny_onnx(path: Path, layout: str, size: int) -> None:
    """A graph of the named layout whose vector is the mean colour over the upper and lower half."""
    from onnx import TensorProto, helper, numpy_helper, save

    shape = ["n", 3, size, size] if layout == "nchw" else ["n", size, size, 3]
    nodes = [helper.make_node("Transpose", ["pixels"], ["t"], perm=[0, 3, 1, 2])] if layout == "nhwc" else []
    pooled = helper.make_node(
        "AveragePool", ["t" if nodes else "pixels"], ["p"], kernel_shape=[size // 2, size], strides=[size // 2, size]
    )
    nodes += [pooled, helper.make_node("Reshape", ["p", "s"], ["vector"])]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 6])],
            [numpy_helper.from_array(np.array([-1, 6], np.int64), "s")],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
    )
    model.ir_version = 8
    save(model, str(path))


NAMES = {"inputs": {"chips": "pixels"}, "outputs": {"embeddings": "vector"}}


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        (ARCFACE, -1, 1),
        (MOBILEFACENET, -2.2, 2.7),
        (FACENET, -3, 3),
    ],
)
def test_onnx_models_get_their_own_normalisation(
    tmp_path: Path, cache: Path, options: dict[str, Any], low: float, high: float
) -> None:
    tiny_onnx(tmp_path / "tiny.onnx", options.get("layout", "nchw"), options["size"])
    entry = {"runtime": "onnx", "path": str(tmp_path / "tiny.onnx"), "options": {**options, **NAMES}}
    first, dark = vectors(entry, cache, astronaut(), (astronaut() * 0.6).astype(np.uint8), views="plain")
    assert low < first.min() < first.max() < high
    if options.get("prewhiten"):
        assert dark == pytest.approx(first, abs=0.1)  # blind to exposure
        assert first.mean() == pytest.approx(0, abs=1e-3)
    else:
        assert (dark < first).all()


def test_facenet_as_a_frozen_tensorflow_graph(tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    v1 = tensorflow.compat.v1
    with v1.Graph().as_default() as graph:
        pixels = v1.placeholder(tensorflow.float32, [None, 160, 160, 3], name="input")
        v1.identity(tensorflow.reduce_mean(pixels, axis=1)[:, :, 0], name="embeddings")
    (tmp_path / "facenet.pb").write_bytes(graph.as_graph_def().SerializeToString())
    options = {**FACENET, "inputs": {"chips": "input:0"}, "outputs": {"embeddings": "embeddings:0"}}
    entry = {"task": "embedding", "runtime": "tensorflow", "provider": "file", "path": str(tmp_path / "facenet.pb")}
    catalogue = Catalogue.load({"facenet_pb": {**entry, "options": options}})
    network = ProcessLoader(ModelStore(tmp_path, catalogue), "cpu", 1).network("facenet_pb")
    face = Detections(
        np.array([[170, 65, 90, 120]], np.float32), np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32)
    )
    vectors = {}
    for views in ("plain", "mirror"):
        embedder = Embedder("facenet_pb", network, Preparation.parse("facenet_pb", options), VIEWS[views])
        (vectors[views],) = embedder.embed(embedder.chips(astronaut(), face))
    assert vectors["plain"].shape == (160,)
    assert vectors["plain"].std() > 0.1
    assert vectors["mirror"] == pytest.approx((vectors["plain"] + vectors["plain"][::-1]) / 2, abs=1e-4)


def test_the_catalogues_embedding_models_are_described() -> None:
    entries = [entry for entry in Catalogue.load() if entry.task == "embedding"]
    assert {"dlib", "facenet", "facenet512", "arcface", "sface"} <= {entry.name for entry in entries}
    for entry in entries:
        assert Preparation.parse(entry.name, entry.options).size > 0


def test_a_graph_with_one_input_and_output_needs_no_names(tmp_path: Path, cache: Path) -> None:
    tiny_onnx(tmp_path / "tiny.onnx", "nhwc", 160)
    entry = {"runtime": "onnx", "path": str(tmp_path / "tiny.onnx"), "options": FACENET}
    (vector,) = vectors(entry, cache, astronaut())
    assert vector.shape == (6,)


def test_another_embedding_has_its_own_name_and_fingerprint(tmp_path: Path) -> None:
    tiny_onnx(tmp_path / "tiny.onnx", "nchw", 112)
    entry = {"task": "embedding", "runtime": "onnx", "provider": "file", "path": str(tmp_path / "tiny.onnx")}
    default, other = Faces(dict(Faces.defaults)), Faces({**Faces.defaults, "embedding": "mine"})
    other.catalogue = Catalogue.load({"mine": {**entry, "options": {**ARCFACE, **NAMES}}}, default_cache())
    assert other.model == "centerface+mine"
    assert other.fingerprint({}) != default.fingerprint({})
