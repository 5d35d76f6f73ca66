"""MTCNN: its weights' compression and format, its arithmetic, and the cascade on a real photo."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from enrichers.detection import Detections
from enrichers.errors import ModelCorrupt
from enrichers.face_detectors import open_detector
from enrichers.loading import ProcessLoader
from enrichers.mtcnn import _without_nested, adjusted, squared
from enrichers.mtcnn_graphs import build_graph, lz4_decompress, read_arrays
from enrichers.weights import ModelStore
from tests.conftest import pulled
from tests.unit.test_face_detectors import found_on_the_astronaut


def frame(*blocks: bytes, raw: bool = False) -> bytes:
    sizes = [(len(block) | (1 << 31 if raw else 0)).to_bytes(4, "little") for block in blocks]
    parts = b"".join(size + block for size, block in zip(sizes, blocks, strict=True))
    return b"\x04\x22\x4d\x18\x40\x40\xc0" + parts + bytes(4)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (frame(b"\x50hello"), b"hello"),  # literals alone
        (frame(b"\x12a\x01\x00\x10b"), b"a" + b"a" * 6 + b"b"),  # a copy that overlaps what it copies
        (frame(b"\xf0\x05" + b"x" * 20), b"x" * 20),  # a length in two bytes
        (frame(b"\x40abcd", b"\x00\x04\x00"), b"abcdabcd"),  # a copy out of the block before
        (frame(b"plain", raw=True), b"plain"),
        (frame(), b""),
    ],
)
def test_lz4(data: bytes, expected: bytes) -> None:
    assert lz4_decompress(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"nothing",
        frame(b"\x50hello")[:-8],  # the block ends early
        frame(b"\x10a\x09\x00"),  # copies from before the beginning
    ],
)
def test_damaged_lz4_is_refused(data: bytes) -> None:
    with pytest.raises(ModelCorrupt):
        lz4_decompress(data)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


def test_weights_that_ask_for_anything_else_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelCorrupt, match="print"):
        read_arrays(frame(pickle.dumps([Evil()]), raw=True))
    assert "must not run" not in capsys.readouterr().out


def test_arrays_as_joblib_writes_them() -> None:
    joblib = pytest.importorskip("joblib", reason="joblib comes with scikit-learn")
    rng = np.random.default_rng(0)
    arrays = [rng.normal(0, 1, shape).astype(np.float32) for shape in [(3, 3, 3, 10), (10,), (1, 1, 10), (7, 5)]]
    arrays.append(np.asfortranarray(rng.normal(0, 1, (4, 6)).astype(np.float32)))
    stream = io.BytesIO()
    joblib.dump(arrays, stream)
    found = read_arrays(frame(stream.getvalue(), raw=True))
    assert len(found) == len(arrays)
    for a, b in zip(found, arrays, strict=True):
        assert a.shape == b.shape
        assert (a == b).all()


def output_weights(rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Random weights of the output network in Keras's order and layout."""
    shapes: list[tuple[int, ...]] = []
    inputs = 3
    for side, outputs in ((3, 32), (3, 64), (3, 64), (2, 128)):
        shapes += [(side, side, inputs, outputs), (outputs,), (1, 1, outputs)]
        inputs = outputs
    shapes += [(1152, 256), (256,), (256,)]
    for outputs in (4, 10, 2):
        shapes += [(256, outputs), (outputs,)]
    return [rng.normal(0, 0.1, shape).astype(np.float32) for shape in shapes]


def layers_by_hand(image: NDArray[np.float32], weights: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """What Keras computes for one picture (48, 48, 3): boxes, landmarks and scores."""
    values = iter(weights)
    x = image
    for pool, same in ((3, True), (3, False), (2, True), (0, False)):
        kernel, bias, slope = next(values), next(values), next(values)
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
        x = np.einsum("yxckl,klco->yxo", windows, kernel) + bias
        x = np.where(x > 0, x, x * slope)
        if pool:
            extra = max(0, (-(-x.shape[0] // 2) - 1) * 2 + pool - x.shape[0]) if same else 0
            x = np.pad(x, ((extra // 2, extra - extra // 2),) * 2 + ((0, 0),), constant_values=-np.inf)
            x = np.lib.stride_tricks.sliding_window_view(x, (pool, pool), axis=(0, 1))[::2, ::2].max(axis=(3, 4))
    flat = x.transpose(1, 0, 2).ravel()  # the package permutes rows and columns first
    weight, bias, slope = next(values), next(values), next(values)
    hidden = flat @ weight + bias
    hidden = np.where(hidden > 0, hidden, hidden * slope)
    heads = [hidden @ next(values) + next(values) for _ in range(3)]
    heads[2] = np.exp(heads[2]) / np.exp(heads[2]).sum()
    return heads


def test_the_output_network_does_what_its_layers_say() -> None:
    import onnxruntime

    rng = np.random.default_rng(0)
    weights = output_weights(rng)
    batch = rng.uniform(-1, 1, (3, 48, 48, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(build_graph(weights), providers=["CPUExecutionProvider"])
    found = session.run(["boxes", "landmarks", "scores"], {"image": batch.transpose(0, 3, 1, 2)})
    for row, image in enumerate(batch):
        for ours, theirs in zip(found, layers_by_hand(image, weights), strict=True):
            assert ours[row] == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("count", [0, 12, 21])
def test_weights_of_another_network_are_refused(count: int) -> None:
    with pytest.raises(ModelCorrupt):
        build_graph([np.zeros(3, np.float32)] * count)


def test_boxes_are_adjusted_by_shares_of_themselves_and_made_square() -> None:
    boxes = np.array([[10, 20, 39, 19]], np.float32)
    assert adjusted(boxes, np.array([[0.1, 0, 0.2, 0.5]], np.float32))[0] == pytest.approx([14, 20, 43, 29])
    assert squared(boxes)[0] == pytest.approx([10, 10, 39, 39])


def test_a_face_within_a_better_one_is_left_out() -> None:
    boxes = np.array([[0, 0, 100, 100], [30, 30, 20, 20], [90, 90, 50, 50]], np.float32)
    faces = Detections(boxes, np.array([0.9, 0.95, 0.8], np.float32), np.zeros((3, 5, 2), np.float32))
    assert _without_nested(faces).boxes.tolist() == [boxes[1].tolist(), boxes[2].tolist()]


def test_the_cascade_finds_the_astronaut(model_store: ModelStore) -> None:
    pulled(model_store, "mtcnn")
    found_on_the_astronaut(open_detector("mtcnn", model_store.catalogue, ProcessLoader(model_store, "cpu", 1)), 0.9)


def test_the_weights_file_is_not_asked_what_it_is(tmp_path: Path) -> None:
    from enrichers.mtcnn_graphs import build

    (tmp_path / "w.lz4").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelCorrupt):
        build(tmp_path / "w.lz4", tmp_path / "w.onnx")
    assert not (tmp_path / "w.onnx").exists()
