"""dlib's face recognition network without dlib: its serialised weights file read and built as an ONNX graph.

The network is the ResNet-29 of dlib's `dnn_face_recognition_ex.cpp` (Davis King, 2017; weights in the public domain).
As an ONNX graph it runs in batches, without the interpreter lock, on any device that ONNX Runtime knows.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import ModelCorrupt
from enrichers.onnx_graph import GraphBuilder

#: side in pixels of the aligned chip that the network takes
CHIP_SIZE = 150

#: length of the vector that it gives
DIMENSIONS = 128

#: dlib's `input_rgb_image`: channel means of its training images (R, G, B), and the divisor
MEAN = np.array([122.782, 117.001, 104.298])
DIVISOR = 256.0

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Convolution:
    """A convolution with the affine layer behind it folded in: `weights` (out, in, rows, columns), `biases` (out,)."""

    weights: Array
    biases: Array


@dataclass(frozen=True, slots=True)
class _Block:
    """A residual block of dlib's `ares` (or, with `down`, `ares_down`)."""

    first: _Convolution
    second: _Convolution
    down: bool


@dataclass(frozen=True, slots=True)
class DlibWeights:
    """The network's weights in the order of its forward pass. `projection` is (256, 128)."""

    stem: _Convolution
    blocks: tuple[_Block, ...]
    projection: Array


#: (width, whether the first block halves the resolution, number of blocks) of the groups, input side first
GROUPS = ((32, False, 3), (64, True, 4), (128, True, 3), (256, True, 3), (256, True, 1))


def _encoded(value: int) -> bytes:
    """A non-negative integer as dlib writes it: a byte for the length, then so many little-endian bytes."""
    raw = value.to_bytes(max(1, math.ceil(value.bit_length() / 8)), "little")
    return bytes([len(raw)]) + raw


class _Tensors:
    """Reads tensors of known sizes out of dlib's serialisation, one after another. What stands between them
    (layer settings, empty gradients) is passed over, so it does not need to be understood."""

    #: version number that opens a serialised tensor
    VERSION = 2

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def next(self, samples: int, channels: int = 1) -> Array:
        """The next tensor of `samples` × `channels` × 1 × 1 numbers, flat. Raises ModelCorrupt if there is none."""
        header = b"".join(_encoded(n) for n in (self.VERSION, samples, channels, 1, 1))
        found = self._data.find(header, self._position)
        start, count = found + len(header), samples * channels
        if found < 0 or start + 4 * count > len(self._data):
            raise ModelCorrupt(f"dlib's weights file ends before the tensor of {samples} × {channels} numbers.")
        self._position = start + 4 * count
        values = np.frombuffer(self._data, dtype="<f4", count=count, offset=start)
        if not np.isfinite(values).all():
            raise ModelCorrupt(f"dlib's weights file holds no finite numbers at byte {start}.")
        return values

    def convolution(self, inputs: int, outputs: int, side: int) -> _Convolution:
        """A convolution and the affine layer that follows it, folded into one."""
        raw = self.next(outputs * inputs * side * side + outputs).astype(np.float64)
        weights, biases = raw[:-outputs].reshape(outputs, inputs, side, side), raw[-outputs:]
        affine = self.next(2 * outputs).astype(np.float64)
        gamma, beta = affine[:outputs], affine[outputs:]
        return _Convolution(
            (weights * gamma[:, None, None, None]).astype(np.float32), (biases * gamma + beta).astype(np.float32)
        )


def read_weights(path: Path) -> DlibWeights:
    """The weights in `dlib_face_recognition_resnet_model_v1.dat`. Raises ModelCorrupt where the file is another."""
    tensors = _Tensors(path.read_bytes())
    stem = tensors.convolution(3, 32, 7)
    blocks, width = [], 32
    for outputs, halves, count in GROUPS:
        for index in range(count):
            first = tensors.convolution(width, outputs, 3)
            blocks.append(_Block(first, tensors.convolution(outputs, outputs, 3), halves and index == 0))
            width = outputs
    return DlibWeights(stem, tuple(blocks), tensors.next(width, DIMENSIONS).reshape(width, DIMENSIONS))


class _Graph(GraphBuilder):
    """With the steps of this network."""

    def layer(self, value: str, layer: _Convolution, stride: int, padding: int) -> str:
        return self.convolve(value, layer.weights, layer.biases, strides=[stride, stride], pads=[padding] * 4)

    def grown(self, value: str, have: tuple[int, int], want: tuple[int, int]) -> str:
        """`value` of `have` = (channels, side), padded at the end with zeros to `want`."""
        channels, side = want[0] - have[0], want[1] - have[1]
        if not channels and not side:
            return value
        return self.add("Pad", value, self.constant(np.array([0, 0, 0, 0, 0, channels, side, side], dtype=np.int64)))


def build_graph(weights: DlibWeights) -> bytes:
    """The network as a serialised ONNX model. Input `chips`: (n, 150, 150, 3) uint8 RGB; output `embeddings`:
    (n, 128) float32, as dlib gives them (their length is about 1, and not normalised)."""
    from onnx import TensorProto

    graph = _Graph()
    value = graph.add("Transpose", graph.add("Cast", "chips", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    value = graph.add("Sub", value, graph.constant(MEAN.astype(np.float32).reshape(1, 3, 1, 1)))
    value = graph.add("Mul", value, graph.constant(np.array(1 / DIVISOR, dtype=np.float32)))
    value = graph.add("Relu", graph.layer(value, weights.stem, stride=2, padding=0))
    value = graph.add("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2])
    channels, side = 32, ((CHIP_SIZE - 7) // 2 + 1 - 3) // 2 + 1
    for block in weights.blocks:
        shortcut, shortcut_side = value, side
        main = graph.layer(value, block.first, 2 if block.down else 1, 0 if block.down else 1)
        main = graph.layer(graph.add("Relu", main), block.second, 1, 1)
        if block.down:
            shortcut = graph.add("AveragePool", value, kernel_shape=[2, 2], strides=[2, 2])
            shortcut_side, side = side // 2, (side - 3) // 2 + 1
        width, largest = len(block.second.biases), max(side, shortcut_side)
        main = graph.grown(main, (width, side), (width, largest))
        shortcut = graph.grown(shortcut, (channels, shortcut_side), (width, largest))
        value = graph.add("Relu", graph.add("Add", main, shortcut))
        channels, side = width, largest
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", value))
    graph.add("MatMul", pooled, graph.constant(weights.projection), output="embeddings")
    return graph.model(
        "dlib_face_recognition",
        {"chips": (np.uint8, ["n", CHIP_SIZE, CHIP_SIZE, 3])},
        {"embeddings": ["n", DIMENSIONS]},
    )


def build(source: Path, target: Path) -> None:
    """Writes the ONNX graph of dlib's weights file `source` to `target`; the model store keeps it."""
    target.write_bytes(build_graph(read_weights(source)))
