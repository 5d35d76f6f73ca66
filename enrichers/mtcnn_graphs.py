"""MTCNN's three networks without TensorFlow: the weights of the package `mtcnn` read and built as ONNX graphs.

Kaipeng Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", IEEE Signal
Processing Letters 23 (2016). The package keeps each network's Keras weights as a list of arrays, written by joblib and
compressed as an LZ4 frame. They are read here without running what the file asks for: only arrays come out of it.
"""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import ModelCorrupt
from enrichers.onnx_graph import GraphBuilder

LZ4_MAGIC = b"\x04\x22\x4d\x18"

#: shortest copy in an LZ4 block
LZ4_SHORTEST = 4

#: number of arrays that a network's weights are → the network
NETWORKS = {13: "proposals", 16: "refinement", 21: "output"}

#: side of the refinement's and the output's input in pixels
SIDES = {"proposals": None, "refinement": 24, "output": 48}


def lz4_decompress(data: bytes) -> bytes:
    """What an LZ4 frame holds (lz4_Frame_format.md and lz4_Block_format.md of the LZ4 project; checksums are not
    compared). Raises ModelCorrupt where it ends early or is none."""
    if data[:4] != LZ4_MAGIC:
        raise ModelCorrupt("this is no LZ4 frame")
    flags = data[4]
    position = 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
    out = bytearray()
    try:
        while size := int.from_bytes(data[position : position + 4], "little"):
            position += 4
            length = size & 0x7FFFFFFF
            block = data[position : position + length]
            if len(block) < length:
                raise IndexError
            if size >> 31:
                out += block
            else:
                _lz4_block(block, out)
            position += length + (4 if flags & 0x10 else 0)
    except IndexError:
        raise ModelCorrupt("the LZ4 frame ends early") from None
    return bytes(out)


def _lz4_block(block: bytes, out: bytearray) -> None:
    position = 0

    def length(start: int) -> int:
        nonlocal position
        total = start
        if start == 15:
            while True:
                byte = block[position]
                position += 1
                total += byte
                if byte != 255:
                    break
        return total

    while position < len(block):
        token = block[position]
        position += 1
        literals = length(token >> 4)
        out += block[position : position + literals]
        position += literals
        if position >= len(block):
            return
        offset = int.from_bytes(block[position : position + 2], "little")
        position += 2
        if not 0 < offset <= len(out):
            raise IndexError
        for _ in range(length(token & 15) + LZ4_SHORTEST):
            out.append(out[-offset])


class _Wrapper:
    """Stands for joblib's `NumpyArrayWrapper`, which announces an array whose bytes follow in the stream."""

    shape: tuple[int, ...]
    order: str
    dtype: Any
    numpy_array_alignment_bytes: int | None = None

    def read(self, stream: io.BytesIO) -> NDArray[np.float32]:
        if self.numpy_array_alignment_bytes is not None:
            stream.seek(stream.read(1)[0], io.SEEK_CUR)
        count = int(np.prod(self.shape))
        raw = np.frombuffer(stream.read(count * self.dtype.itemsize), self.dtype, count)
        shaped = raw.reshape(self.shape) if self.order == "C" else raw.reshape(self.shape[::-1]).T
        return np.asarray(shaped, np.float32)


#: what a weights file may name
ALLOWED = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}

#: the reader of pickles that is written in Python, whose steps can be replaced
_Unpickler: Any = pickle._Unpickler


class _ArrayReader(_Unpickler):  # type: ignore[misc]
    """Reads lists of arrays that joblib wrote, and refuses everything else."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self._arrays = stream

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise ModelCorrupt(f"the weights ask for {module}.{name}, which is no array") from None

    def load_build(self) -> None:
        super().load_build()
        if isinstance(self.stack[-1], _Wrapper):
            self.stack[-1] = self.stack[-1].read(self._arrays)

    dispatch[pickle.BUILD[0]] = load_build


def read_arrays(data: bytes) -> list[NDArray[np.float32]]:
    """The arrays of a compressed weights file. Raises ModelCorrupt."""
    try:
        arrays = _ArrayReader(io.BytesIO(lz4_decompress(data))).load()
    except ModelCorrupt:
        raise
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        raise ModelCorrupt(f"the weights cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(arrays, list) or not all(isinstance(array, np.ndarray) for array in arrays):
        raise ModelCorrupt("the weights are no list of arrays")
    return arrays


class _Graph(GraphBuilder):
    """Takes the weights in their order and adds a node for each layer."""

    def __init__(self, arrays: list[NDArray[np.float32]]) -> None:
        super().__init__()
        self._arrays: Iterator[NDArray[np.float32]] = iter(arrays)

    def convolution(self, value: str, *, slope: bool = True, output: str | None = None) -> str:
        weights, biases = next(self._arrays).transpose(3, 2, 0, 1), next(self._arrays)
        value = self.convolve(value, weights, biases, output=output)
        return self.slope(value, (-1, 1, 1)) if slope else value

    def slope(self, value: str, shape: tuple[int, ...]) -> str:
        """PReLU with a slope for each channel."""
        return self.add("PRelu", value, self.constant(next(self._arrays).reshape(shape)))

    def pool(self, value: str, side: int, same: bool) -> str:
        pad = "SAME_UPPER" if same else "VALID"
        return self.add("MaxPool", value, kernel_shape=[side, side], strides=[2, 2], auto_pad=pad)

    def dense(self, value: str, output: str | None = None) -> str:
        weights, biases = next(self._arrays), next(self._arrays)
        return self.add("Gemm", value, self.constant(weights), self.constant(biases), output=output)

    def flat(self, value: str) -> str:
        """As the package flattens: columns before rows before channels."""
        return self.add("Flatten", self.add("Transpose", value, perm=[0, 3, 2, 1]))


def build_graph(arrays: list[NDArray[np.float32]]) -> bytes:
    """One of the three networks, told by the number of its arrays, as a serialised ONNX model. Input `image`: (n, 3, h,
    w) float32 RGB, (value − 127.5) / 128; for the refinement 24×24, for the output 48×48. Outputs `boxes` (n, 4 …),
    `scores` (n, 2 …) and, of the output network, `landmarks` (n, 10: five x, five y)."""
    if (kind := NETWORKS.get(len(arrays))) is None:
        raise ModelCorrupt(f"{len(arrays)} arrays are none of MTCNN's networks")
    graph = _Graph(arrays)
    try:
        value = graph.pool(graph.convolution("image"), 2 if kind == "proposals" else 3, same=True)
        outputs = {"boxes": 4, "scores": 2}
        if kind == "proposals":
            value = graph.convolution(graph.convolution(value))
            graph.convolution(value, slope=False, output="boxes")
            graph.add("Softmax", graph.convolution(value, slope=False), output="scores", axis=1)
        else:
            value = graph.pool(graph.convolution(value), 3, same=False)
            value = graph.convolution(value)
            if kind == "output":
                value = graph.convolution(graph.pool(value, 2, same=True))
            value = graph.slope(graph.dense(graph.flat(value)), (-1,))
            graph.dense(value, "boxes")
            if kind == "output":
                graph.dense(value, "landmarks")
                outputs["landmarks"] = 10
            graph.add("Softmax", graph.dense(value), output="scores", axis=1)
    except ValueError as error:
        raise ModelCorrupt(f"the weights do not fit MTCNN's networks: {error}") from error
    side = SIDES[kind]
    grid = ["rows", "columns"] if kind == "proposals" else []
    return graph.model(
        f"mtcnn_{kind}",
        {"image": (np.float32, ["n", 3, side or "height", side or "width"])},
        {name: ["n", n, *grid] for name, n in outputs.items()},
    )


def build(source: Path, target: Path) -> None:
    """Writes the ONNX graph of one of the package's weights files to `target`. Raises ModelCorrupt."""
    target.write_bytes(build_graph(read_arrays(source.read_bytes())))
