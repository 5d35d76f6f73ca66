"""dlib's network out of its weights file: the reader, the graph, and dlib itself as the judge."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from enrichers.dlib_network import CHIP_SIZE, DIMENSIONS, GROUPS, build, build_graph, read_weights
from enrichers.errors import ModelCorrupt


def integer(value: int) -> bytes:
    """As dlib's `serialize(long)` writes it, for non-negative values below 2^32."""
    length = next(n for n in range(1, 5) if value < 1 << 8 * n)
    return bytes([length]) + value.to_bytes(length, "little")


def tensor(values: NDArray[np.float32], channels: int = 1) -> bytes:
    sizes = b"".join(integer(n) for n in (2, values.size // channels, channels, 1, 1))
    return sizes + values.astype("<f4").tobytes()


def serialised(rng: np.random.Generator) -> tuple[bytes, list[NDArray[np.float32]]]:
    """A weights file of dlib's form with random small weights, and its tensors in order. Between the tensors stand
    empty ones and settings, as in the real file."""
    shapes: list[tuple[int, int, int]] = [(3, 32, 7)]
    width = 32
    for outputs, _, blocks in GROUPS:
        for _ in range(blocks):
            shapes += [(width, outputs, 3), (outputs, outputs, 3)]
            width = outputs
    parts, tensors = [b"\x01\x01net"], []
    for inputs, outputs, side in shapes:
        weights = rng.normal(0, 1 / np.sqrt(inputs * side * side), outputs * inputs * side * side)
        convolution = np.concatenate([weights, rng.normal(0, 0.1, outputs)]).astype(np.float32)
        affine = np.concatenate([rng.uniform(0.5, 1, outputs), rng.normal(0, 0.1, outputs)]).astype(np.float32)
        for values in (convolution, affine):
            tensors.append(values)
            parts += [tensor(values), b"".join(integer(n) for n in (2, 0, 0, 0, 0)), b"\x05con_4"]
    projection = rng.normal(0, 0.1, 256 * 128).astype(np.float32)
    tensors.append(projection)
    return b"".join([*parts, tensor(projection, 128)]), tensors


def test_reader_finds_the_tensors_in_order_and_folds_the_affine_layers(tmp_path: Path) -> None:
    data, tensors = serialised(np.random.default_rng(1))
    file = tmp_path / "weights.dat"
    file.write_bytes(data)
    weights = read_weights(file)
    assert len(weights.blocks) == 14
    assert [block.down for block in weights.blocks].count(True) == 4
    convolution, affine = tensors[0], tensors[1]
    raw, biases = convolution[:-32].reshape(32, 3, 7, 7), convolution[-32:]
    assert weights.stem.weights == pytest.approx(raw * affine[:32, None, None, None])
    assert weights.stem.biases == pytest.approx(biases * affine[:32] + affine[32:], abs=1e-6)
    assert weights.projection.ravel() == pytest.approx(tensors[-1])


@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_reader_refuses_a_file_that_ends_early(tmp_path: Path, part: float) -> None:
    data, _ = serialised(np.random.default_rng(1))
    file = tmp_path / "weights.dat"
    file.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelCorrupt):
        read_weights(file)


def test_graph_gives_each_row_of_a_batch_what_it_gives_it_alone(tmp_path: Path) -> None:
    import onnxruntime

    rng = np.random.default_rng(1)
    (tmp_path / "weights.dat").write_bytes(serialised(rng)[0])
    graph = build_graph(read_weights(tmp_path / "weights.dat"))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    chips = rng.integers(0, 256, (3, CHIP_SIZE, CHIP_SIZE, 3)).astype(np.uint8)
    together = session.run(None, {"chips": chips})[0]
    assert together.shape == (3, DIMENSIONS)
    assert np.abs(together[0] - together[1]).max() > 1e-3
    for row, chip in zip(together, chips, strict=True):
        assert session.run(None, {"chips": chip[None]})[0][0] == pytest.approx(row, abs=1e-4)


def test_real_graph_equals_dlib(dlib_weights: Path, tmp_path: Path) -> None:
    """The requirement: 1e-4 for the same chips, whatever is on them."""
    dlib = pytest.importorskip("dlib", reason="dlib is not installed, the extra `dev` brings it")
    import onnxruntime
    from skimage import data

    build(dlib_weights, tmp_path / "dlib.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "dlib.onnx"), providers=["CPUExecutionProvider"])
    photo = data.astronaut()[..., :3]
    noise = np.random.default_rng(0).integers(0, 256, (CHIP_SIZE, CHIP_SIZE, 3)).astype(np.uint8)
    chips = [photo[y : y + CHIP_SIZE, x : x + CHIP_SIZE] for x, y in [(150, 30), (160, 50), (0, 0), (300, 300)]]
    batch = np.stack([*chips, noise, np.zeros_like(noise), np.full_like(noise, 255)])
    theirs = dlib.face_recognition_model_v1(str(dlib_weights))
    expected = np.array([theirs.compute_face_descriptor(np.ascontiguousarray(chip)) for chip in batch])
    assert session.run(["embeddings"], {"chips": batch})[0] == pytest.approx(expected, abs=1e-4)
