"""SSD-MobileNetV2 out of its frozen graph: the reader, the graph, and TensorFlow itself as the judge."""

from pathlib import Path

import numpy as np
import pytest

from enrichers.catalogue import Catalogue
from enrichers.coco import NAMES, SPARSE_NAMES
from enrichers.errors import ModelCorrupt, ModelMissing
from enrichers.runtimes import Plan, open_graph
from enrichers.ssd_network import SIDE, anchors, build, build_graph, read_weights
from enrichers.weights import ModelStore, default_cache

#: where TensorFlow's graph is entered and left
IMAGE = "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3"
OUTPUTS = {"boxes": "Postprocessor/Reshape_2", "scores": "Postprocessor/Slice"}


@pytest.fixture(scope="module")
def frozen() -> Path:
    cache = default_cache()
    try:
        return ModelStore(cache, Catalogue.load({}, cache), offline=True).verify("ssd_mobilenet_v2_coco")
    except ModelMissing as error:
        pytest.skip(f"the default detector is not here: {error}")


def constant(name: str, dtype: int, shape: list[int], content: bytes) -> bytes:
    """A node of a GraphDef that holds a tensor, as protocol buffers write it."""

    def field(number: int, value: bytes | int) -> bytes:
        if isinstance(value, int):
            return bytes([number << 3, value])
        return bytes([number << 3 | 2, len(value)]) + value

    dims = b"".join(field(2, field(1, size)) for size in shape)
    tensor = field(1, dtype) + field(2, dims) + field(4, content)
    attribute = field(1, b"value") + field(2, field(8, tensor))
    kind = field(1, b"dtype") + field(2, field(6, dtype))
    return field(1, field(1, name.encode()) + field(2, b"Const") + field(5, kind) + field(5, attribute))


def test_reader_takes_the_floats_by_name(tmp_path: Path) -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    file = tmp_path / "graph.pb"
    file.write_bytes(
        constant("a/weights", 1, [2, 3], values.tobytes())
        + constant("whole", 3, [1], b"\x01\0\0\0")  # int32: none of ours
        + constant("empty", 1, [1], b"")
    )
    found = read_weights(file)
    assert list(found) == ["a/weights"]
    assert (found["a/weights"] == values).all()


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\xff",  # a length that is cut off
        b"\x0a\x05ab",  # a field that ends behind the file
        b"\x0b\x00",  # a group: no wire type of today
        constant("a", 1, [3], b"\0" * 8),  # fewer numbers than the shape says
    ],
)
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "graph.pb"
    file.write_bytes(data)
    with pytest.raises(ModelCorrupt, match="no frozen TensorFlow graph"):
        read_weights(file)


def test_another_graph_is_refused() -> None:
    with pytest.raises(ModelCorrupt, match="not SSD-MobileNetV2"):
        build_graph({"a": np.zeros(3, np.float32)})


def test_anchors_stand_in_the_middle_of_their_cells() -> None:
    ratios, scales = np.array([1, 2, 0.5], np.float32), np.array([0.1, 0.2, 0.2], np.float32)
    found = anchors({"MultipleGridAnchorGenerator/Sqrt/x": ratios, "MultipleGridAnchorGenerator/mul_15/x": scales}, [2])
    assert found.shape == (2 * 2 * 3, 4)
    assert found[:3, :2] == pytest.approx(np.full((3, 2), 0.25))
    assert found[3, :2] == pytest.approx([0.25, 0.75])  # columns before rows
    assert found[:3, 2] * found[:3, 3] == pytest.approx(scales**2)
    assert found[:3, 3] / found[:3, 2] == pytest.approx(ratios)


@pytest.mark.timeout(180)
def test_it_answers_as_tensorflow_does(frozen: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    build(frozen, tmp_path / "ssd.onnx")
    pictures = np.random.default_rng(0).uniform(0, 255, (2, SIDE, SIDE, 3)).astype(np.float32)
    pictures[1] = np.linspace(0, 255, SIDE, dtype=np.float32)[:, None, None]
    ours = open_graph("onnx", tmp_path / "ssd.onnx", Plan()).run({"image": pictures})
    theirs = open_graph("tensorflow", frozen, Plan(inputs={"image": IMAGE}, outputs=OUTPUTS)).run({"image": pictures})
    named = [number for number, name in enumerate(SPARSE_NAMES) if name]
    assert [SPARSE_NAMES[number] for number in named] == list(NAMES)
    assert ours["boxes"] == pytest.approx(theirs["boxes"], abs=1e-5)
    assert ours["scores"] == pytest.approx(theirs["scores"][..., named], abs=1e-5)
