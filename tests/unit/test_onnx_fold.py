"""Normalisations in parts, folded into the convolutions before them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enrichers.errors import ModelCorrupt
from enrichers.onnx_fold import build

CHANNELS = 3


def graph(path: Path, nodes: list[tuple[str, list[str], dict[str, Any]]], outputs: list[str]) -> Path:
    """A convolution of `image` (n, 2, 5, 5) without a bias to `conv` (n, 3, 5, 5), and nodes behind it."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    constants = {
        "weights": rng.normal(0, 1, (CHANNELS, 2, 3, 3)),
        "channels": rng.normal(0, 1, (CHANNELS, 1, 1)),
        "last": rng.normal(0, 1, (1, 1, 1, CHANNELS)),
        "number": np.array(0.7),
        "row": rng.normal(0, 1, (5, 1)),
        "pixels": rng.normal(0, 1, (1, 1, 5, 5)),
    }
    made = [helper.make_node("Conv", ["image", "weights"], ["conv"], kernel_shape=[3, 3], pads=[1] * 4)]
    for n, (operator, inputs, attributes) in enumerate(nodes):
        made.append(helper.make_node(operator, inputs, [f"t{n}"], **attributes))
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 2, 5, 5])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    save(
        helper.make_model(
            helper.make_graph(made, "tiny", [value], results, tensors), opset_imports=[helper.make_opsetid("", 13)]
        ),
        path,
    )
    return path


NHWC = {"perm": [0, 2, 3, 1]}
CASES: dict[str, tuple[list[tuple[str, list[str], dict[str, Any]]], list[str], int]] = {
    "by channel": (
        [("Sub", ["conv", "channels"], {}), ("Mul", ["channels", "t0"], {}), ("Add", ["t1", "number"], {})],
        ["t2"],
        0,
    ),
    "channels last": (
        [("Transpose", ["conv"], NHWC), ("Cast", ["t0"], {"to": 1}), ("Add", ["t1", "last"], {})],
        ["t2"],
        0,
    ),
    "behind another step": ([("Relu", ["conv"], {}), ("Mul", ["t0", "channels"], {})], ["t1"], 1),
    "taken from a constant": ([("Sub", ["channels", "conv"], {})], ["t0"], 1),
    "by pixel": ([("Mul", ["conv", "pixels"], {})], ["t0"], 1),
    "along another axis": ([("Transpose", ["conv"], NHWC), ("Add", ["t0", "row"], {})], ["t1"], 1),
    "read twice": ([("Mul", ["conv", "channels"], {}), ("Relu", ["conv"], {})], ["t0", "t1"], 1),
    "an answer itself": ([("Mul", ["conv", "channels"], {})], ["conv", "t0"], 1),
}


@pytest.mark.parametrize("case", CASES)
def test_what_only_scales_channels_is_folded(case: str, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    nodes, outputs, left = CASES[case]
    source = graph(tmp_path / "source.onnx", nodes, outputs)
    build(source, tmp_path / "target.onnx")
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "target.onnx").graph.node)
    assert sum(operators[name] for name in ("Add", "Sub", "Mul")) == left
    image = np.random.default_rng(1).normal(0, 1, (2, 2, 5, 5)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"]).run(
            None, {"image": image}
        )
        for name in ("source.onnx", "target.onnx")
    )
    for expected, answer in zip(before, after, strict=True):
        assert answer == pytest.approx(expected, abs=1e-5)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelCorrupt):
        build(tmp_path / "source.onnx", tmp_path / "target.onnx")
