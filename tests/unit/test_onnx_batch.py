"""Graphs for one picture, made to take batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enrichers.errors import ModelCorrupt
from enrichers.onnx_batch import build


def save(path: Path, nodes: list[Any], constants: dict[str, Any]) -> None:
    from onnx import TensorProto, helper, numpy_helper
    from onnx import save as save_model

    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])]
    inputs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        for name, value in constants.items()
        if value.dtype == np.float32
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6])]
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, initial), opset_imports=[helper.make_opsetid("", 13)]
    )
    model.ir_version = 8
    save_model(model, str(path))


@pytest.mark.parametrize("shape", [[1, 6], [1, -1], [-1, 6]])
def test_a_batch_gives_each_picture_its_own(tmp_path: Path, shape: list[int]) -> None:
    import onnxruntime
    from onnx import helper

    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[4, 4]),
        helper.make_node("Reshape", ["c", "s"], ["y"]),
    ]
    constants = {"w": rng.normal(0, 1, (6, 3, 4, 4)).astype(np.float32), "s": np.array(shape, np.int64)}
    save(tmp_path / "one.onnx", nodes, constants)
    build(tmp_path / "one.onnx", tmp_path / "many.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "many.onnx"), providers=["CPUExecutionProvider"])
    batch = rng.normal(0, 1, (5, 3, 4, 4)).astype(np.float32)
    expected = np.einsum("nchw,ochw->no", batch, constants["w"])
    assert session.run(None, {"x": batch})[0] == pytest.approx(expected, abs=1e-4)


def test_a_graph_that_mixes_its_pictures_is_refused(tmp_path: Path) -> None:
    from onnx import helper

    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),  # over the batch
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["c"], kernel_shape=[4, 4]),
        helper.make_node("Conv", ["x", "w"], ["e"], kernel_shape=[4, 4]),
        helper.make_node("Add", ["c", "e"], ["a"]),
        helper.make_node("Reshape", ["a", "s"], ["y"]),
    ]
    constants = {"w": np.ones((6, 3, 4, 4), np.float32), "s": np.array([1, 6], np.int64)}
    save(tmp_path / "one.onnx", nodes, constants)
    with pytest.raises(ModelCorrupt, match="influence each other"):
        build(tmp_path / "one.onnx", tmp_path / "many.onnx")


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelCorrupt):
        build(tmp_path / "one.onnx", tmp_path / "many.onnx")
