"""Each runtime runs a small graph of its form, in batches of any size, and names what it cannot load."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enrichers.errors import DeviceUnavailable, ModelCorrupt, SettingInvalid
from enrichers.loading import ProcessLoader
from enrichers.runtimes import Plan, open_graph
from enrichers.weights import ModelStore
from tests.conftest import pulled

#: what every graph of this file computes from (n, 2, 2, 3) float32: the mean of each image, times 3
FACTOR = 3.0


def onnx_graph(folder: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "factor"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 2, 2, 3])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("factor", TensorProto.FLOAT, [], [FACTOR])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    path = folder / "tiny.onnx"
    onnx.save(model, str(path))
    return path


def frozen_graph(folder: Path) -> Path:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, [None, 2, 2, 3], name="image")
        tf.multiply(tf.reduce_mean(image, [1, 2, 3]), FACTOR, name="score")
    path = folder / "tiny.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def saved_model(folder: Path) -> Path:
    import tensorflow as tf

    class Tiny(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.factor = tf.Variable(FACTOR)

        @tf.function(input_signature=[tf.TensorSpec([None, 2, 2, 3], tf.float32, name="image")])
        def __call__(self, image: Any) -> dict[str, Any]:
            return {"score": tf.reduce_mean(image, [1, 2, 3]) * self.factor}

    model = Tiny()
    path = folder / "tiny"
    tf.saved_model.save(model, str(path), signatures=model.__call__)
    return path


def lite_graph(folder: Path) -> Path:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([1, 2, 2, 3], tf.float32, name="image")])
    def tiny(image: Any) -> dict[str, Any]:
        return {"score": tf.reduce_mean(image, [1, 2, 3]) * FACTOR}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([tiny.get_concrete_function()])
    path = folder / "tiny.tflite"
    path.write_bytes(converter.convert())
    return path


FORMS = {
    "onnx": (onnx_graph, "onnx", {}),
    "frozen": (frozen_graph, "tensorflow", {"inputs": {"image": "image"}, "outputs": {"score": "score:0"}}),
    "saved": (saved_model, "tensorflow", {}),
    "lite": (lite_graph, "litert", {}),  # the file's batch of 1 is resized
}


@pytest.mark.parametrize("form", FORMS)
def test_a_graph_of_each_form_runs_in_batches_of_any_size(form: str, tmp_path: Path) -> None:
    build, runtime, names = FORMS[form]
    path = build(tmp_path)
    network = open_graph(runtime, path, Plan(threads=1, **names))
    for size in (1, 3, 2):
        images = np.random.default_rng(size).random((size, 2, 2, 3), np.float32)
        scores = next(iter(network.run({network.inputs[0]: images}).values()))
        np.testing.assert_allclose(scores, images.mean((1, 2, 3)) * FACTOR, rtol=1e-5)


@pytest.mark.parametrize("form", ["onnx", "frozen", "saved", "lite"])
def test_a_file_that_is_no_such_graph_is_corrupt(form: str, tmp_path: Path) -> None:
    _, runtime, names = FORMS[form]
    path = tmp_path / "broken"
    if form == "saved":
        path.mkdir()
        path = path / ""
    else:
        path.write_bytes(b"\xff\x00 no graph at all")
    with pytest.raises(ModelCorrupt):
        open_graph(runtime, path, Plan(**names))


def test_a_frozen_graph_lacks_a_tensor_that_the_catalogue_names(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="nowhere"):
        open_graph("tensorflow", frozen_graph(tmp_path), Plan(inputs={"image": "nowhere"}, outputs={"score": "score"}))


def test_a_switch_of_a_frozen_graph_is_fed_by_the_catalogue(tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, [None, 2, 2, 3], name="image")
        training = tf.compat.v1.placeholder(tf.bool, [], name="phase_train")
        tf.where(training, tf.zeros_like(image), image, name="score")
    path = tmp_path / "switch.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    names = {"inputs": {"image": "image"}, "outputs": {"score": "score"}}
    network = open_graph("tensorflow", path, Plan(**names, options={"constants": {"phase_train": False}}))
    image = np.ones((1, 2, 2, 3), np.float32)
    np.testing.assert_array_equal(network.run({"image": image})["score"], image)


@pytest.mark.parametrize("form", ["onnx", "saved", "lite"])
def test_a_graphs_only_tensors_need_no_names(form: str, tmp_path: Path) -> None:
    build, runtime, _ = FORMS[form]
    names: dict[str, dict[str, str]] = {"inputs": {"photo": "*"}}
    if form != "lite":
        names["outputs"] = {"answer": "*"}
    network = open_graph(runtime, build(tmp_path), Plan(**names))
    assert network.inputs == ("photo",)
    answer = network.run({"photo": np.ones((2, 2, 2, 3), np.float32)})
    np.testing.assert_allclose(next(iter(answer.values())), FACTOR)


@pytest.mark.parametrize("form", ["onnx", "saved", "lite"])
def test_a_name_that_a_graph_has_not_is_said(form: str, tmp_path: Path) -> None:
    build, runtime, _ = FORMS[form]
    with pytest.raises(ModelCorrupt, match="nowhere"):
        open_graph(runtime, build(tmp_path), Plan(inputs={"photo": "nowhere"}))


def test_a_frozen_graph_needs_its_tensors_named(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match=r"options\.inputs"):
        open_graph("tensorflow", frozen_graph(tmp_path), Plan())


def test_an_inner_tensor_of_a_lite_graph_can_be_asked_for(tmp_path: Path) -> None:
    path = lite_graph(tmp_path)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    inner = [
        d["name"] for d in interpreter.get_tensor_details() if "Mean" in d["name"] and "reduction" not in d["name"]
    ]
    plan = Plan(outputs={"mean": inner[0]}, options={"intermediate": True})
    network = open_graph("litert", path, plan)
    images = np.random.default_rng(0).random((4, 2, 2, 3), np.float32)
    mean = network.run({network.inputs[0]: images})["mean"]
    np.testing.assert_allclose(mean.ravel(), images.mean((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("form", ["onnx", "frozen"])
def test_cuda_without_a_gpu_is_an_error_and_no_cpu_run(form: str, tmp_path: Path) -> None:
    from enrichers.loading import _gpus

    if _gpus():
        pytest.skip("there is a GPU")
    build, runtime, names = FORMS[form]
    with pytest.raises(DeviceUnavailable):
        open_graph(runtime, build(tmp_path), Plan(device="cuda", **names))


def test_a_runtime_that_makes_no_networks_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match="none"):
        open_graph("none", tmp_path / "x", Plan())


def dlib_model(store: ModelStore, name: str, **options: Any) -> Any:
    pytest.importorskip("dlib", reason="dlib is not installed, the extra `dlib` brings it")
    pulled(store, name)
    return open_graph("dlib", store.verify(name), Plan(options={**store.catalogue.entry(name).options, **options}))


def test_dlibs_embedding_takes_batches_and_gives_what_the_onnx_graph_gives(model_store: ModelStore) -> None:
    network = dlib_model(model_store, "dlib", kind="embedding")
    chips = np.random.default_rng(0).integers(0, 255, (2, 150, 150, 3), np.uint8)
    vectors = network.run({"chips": chips})["embeddings"]
    assert (vectors.shape, vectors.dtype) == ((2, 128), np.float32)
    other = ProcessLoader(model_store, "cpu", 1).network("dlib").run({"chips": chips})["embeddings"]
    np.testing.assert_allclose(vectors, other, atol=1e-4)


def test_dlibs_landmarks_lie_in_each_rows_box(model_store: ModelStore) -> None:
    network = dlib_model(model_store, "dlib_shape_5")
    images = np.random.default_rng(0).integers(0, 255, (2, 90, 120, 3), np.uint8)
    boxes = np.array([[10, 10, 50, 50], [60, 30, 50, 50]], np.float32)
    points = network.run({"images": images, "boxes": boxes})["points"]
    assert points.shape == (2, 5, 2)
    middles = points.mean(axis=1)
    assert (np.abs(middles - (boxes[:, :2] + 25)) < 25).all()


def test_dlibs_detectors_give_no_faces_of_an_empty_batch_row(model_store: ModelStore) -> None:
    network = dlib_model(model_store, "dlib_mmod")
    found = network.run({"images": np.zeros((2, 100, 100, 3), np.uint8)})
    assert found["boxes"].shape[0] == found["scores"].shape[0] == 2
    assert not np.isfinite(found["scores"]).any()


def test_a_file_that_is_no_model_of_dlibs_kind_is_corrupt(tmp_path: Path) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed, the extra `dlib` brings it")
    (tmp_path / "x.dat").write_bytes(b"no model")
    with pytest.raises(ModelCorrupt):
        open_graph("dlib", tmp_path / "x.dat", Plan(options={"kind": "landmarks"}))
    with pytest.raises(SettingInvalid, match="landmarks"):
        open_graph("dlib", tmp_path / "x.dat", Plan(options={"kind": "landmark"}))


def test_dlib_without_cuda_is_no_gpu() -> None:
    dlib = pytest.importorskip("dlib", reason="dlib is not installed, the extra `dlib` brings it")
    if dlib.DLIB_USE_CUDA:
        pytest.skip("this dlib has CUDA")
    with pytest.raises(DeviceUnavailable, match="CUDA"):
        open_graph("dlib", Path("x"), Plan(device="cuda", options={"kind": "cnn"}))


def test_rows_are_taken_so_many_at_a_time_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = open_graph("onnx", onnx_graph(tmp_path), Plan(threads=1, options={"cpu_rows": 2}))
    sizes: list[int] = []
    called = network._called
    monkeypatch.setattr(network, "_called", lambda feeds: sizes.append(len(feeds["image"])) or called(feeds))
    images = np.random.default_rng(0).random((5, 2, 2, 3), np.float32)
    assert network.run({"image": images})["score"] == pytest.approx(images.mean(axis=(1, 2, 3)) * FACTOR)
    assert sizes == [2, 2, 1]
