"""CenterFace's maps → faces, and its graph made to take any size."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from enrichers.centerface import NAMES, CenterFace, build, decode
from enrichers.errors import ModelCorrupt


def maps(rows: int = 8, columns: int = 10) -> dict[str, NDArray[np.float32]]:
    return {
        "heatmap": np.zeros((rows, columns), np.float32),
        "scale": np.zeros((2, rows, columns), np.float32),
        "offset": np.zeros((2, rows, columns), np.float32),
        "landmarks": np.zeros((10, rows, columns), np.float32),
    }


def put(m: dict[str, NDArray[np.float32]], row: int, column: int, score: float, height: float, width: float) -> None:
    m["heatmap"][row, column] = score
    m["scale"][:, row, column] = np.log([height / 4, width / 4])
    m["landmarks"][:, row, column] = [0.4, 0.3, 0.4, 0.7, 0.6, 0.5, 0.8, 0.35, 0.8, 0.65]


def test_decode_reads_vertical_before_horizontal() -> None:
    m = maps()
    put(m, row=3, column=6, score=0.9, height=24, width=16)
    m["offset"][:, 3, 6] = [0.25, -0.25]
    found = decode(**m, min_score=0.5)
    left, top = (6 - 0.25 + 0.5) * 4 - 8, (3 + 0.25 + 0.5) * 4 - 12
    assert found.boxes[0] == pytest.approx([left, top, 16, 24])
    assert found.scores[0] == pytest.approx(0.9)
    assert found.landmarks[0, 0] == pytest.approx([left + 0.3 * 16, top + 0.4 * 24])
    assert found.landmarks[0, 4] == pytest.approx([left + 0.65 * 16, top + 0.8 * 24])


def test_decode_suppresses_neighbouring_cells_of_one_face_and_low_scores() -> None:
    m = maps()
    put(m, 3, 2, 0.7, 20, 20)
    put(m, 3, 3, 0.9, 20, 20)
    put(m, 3, 9, 0.6, 8, 8)
    put(m, 7, 9, 0.4, 8, 8)  # below the score asked for
    found = decode(**m, min_score=0.5)
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])


def test_decode_of_an_empty_map_is_empty() -> None:
    assert len(decode(**maps(), min_score=0.5)) == 0


class OneFaceEach:
    """A network that sees one face of 16 × 16 pixels in the upper left corner of each canvas; remembers its calls."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        image = inputs["image"]
        assert image.dtype == np.float32
        self.shapes.append(image.shape)
        n, _, height, width = image.shape
        m = maps(height // 4, width // 4)
        put(m, 1, 1, 0.9, 16, 16)
        return {
            "heatmap": np.repeat(m["heatmap"][None, None], n, axis=0),
            **{k: np.repeat(m[k][None], n, axis=0) for k in ("scale", "offset", "landmarks")},
        }


def test_detect_gives_pixels_of_each_picture_whatever_it_was_shrunk_by() -> None:
    network = OneFaceEach()
    pictures = [np.zeros((h, w, 3), np.uint8) for h, w in [(480, 640), (960, 1280), (480, 640), (100, 200)]]
    found = CenterFace(network).detect(pictures, 640, 0.5)
    assert [len(f) for f in found] == [1, 1, 1, 1]
    assert found[0].boxes[0] == pytest.approx([-2, -2, 16, 16])
    assert found[1].boxes[0] == pytest.approx([-4, -4, 32, 32])  # was shrunk to half
    assert found[3].boxes[0] == pytest.approx([-2, -2, 16, 16])  # was not enlarged
    assert sorted(network.shapes) == [(1, 3, 128, 224), (3, 3, 480, 640)]


def test_build_refuses_another_graph(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [other])
    save(helper.make_model(graph), str(tmp_path / "other.onnx"))
    with pytest.raises(ModelCorrupt, match="CenterFace"):
        build(tmp_path / "other.onnx", tmp_path / "out.onnx")


def test_build_makes_a_fixed_graph_dynamic(tmp_path: Path) -> None:
    """A graph with CenterFace's names, fixed shapes, and a weight among its inputs, as in the published file."""
    import onnxruntime
    from onnx import TensorProto, helper, save

    channels = {"537": 1, "538": 2, "539": 2, "540": 10}
    nodes, weights = [], []
    for name, count in channels.items():
        weight = helper.make_tensor(f"w{name}", TensorProto.FLOAT, [count, 3, 4, 4], [1.0] * (count * 48))
        weights.append(weight)
        nodes.append(helper.make_node("Conv", ["input.1", f"w{name}"], [name], strides=[4, 4], kernel_shape=[4, 4]))
    inputs = [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [10, 3, 32, 32])]
    inputs += [helper.make_tensor_value_info(w.name, TensorProto.FLOAT, list(w.dims)) for w in weights]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [10, c, 8, 8]) for n, c in channels.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    save(model, str(tmp_path / "fixed.onnx"))
    build(tmp_path / "fixed.onnx", tmp_path / "dynamic.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "dynamic.onnx"), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["image"]
    assert {o.name for o in session.get_outputs()} == set(NAMES.values()) - {"image"}
    for n, height, width in [(1, 64, 96), (3, 32, 32)]:
        heatmap = session.run(["heatmap"], {"image": np.ones((n, 3, height, width), np.float32)})[0]
        assert heatmap.shape == (n, 1, height // 4, width // 4)
        assert heatmap == pytest.approx(48)
