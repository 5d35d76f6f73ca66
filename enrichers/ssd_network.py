"""SSD-MobileNetV2 without TensorFlow: its frozen graph's weights read and built as an ONNX graph.

The network is `ssd_mobilenet_v2_coco_2018_03_29` of the TensorFlow Object Detection API's model zoo: MobileNetV2
(Sandler et al. 2018) under the heads of SSD (Liu et al. 2016). Entered behind the graph's resizing and left before its
non-maximum suppression it takes batches; with ONNX Runtime it needs neither TensorFlow's seconds to start nor its
1.2 GB.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enrichers.coco import SPARSE_NAMES
from enrichers.errors import ModelCorrupt
from enrichers.onnx_graph import GraphBuilder

#: side in pixels of the square picture that the network takes
SIDE = 300

#: epsilon of all its batch normalisations
EPSILON = 0.001

#: blocks of MobileNetV2 that halve the resolution; block 0 has no expansion
HALVING = (1, 3, 6, 13)
BLOCKS = 17

#: further layers that halve it: number → channels of the 1×1 convolution before, and of the feature map
EXTRA = {2: (256, 512), 3: (128, 256), 4: (128, 256), 5: (64, 128)}

#: divisors of the box encodings: of centres, of sizes (the API's `FasterRcnnBoxCoder`)
CENTRE, SIZE = 10.0, 5.0

Array = NDArray[np.float32]
Weights = Mapping[str, Array]


# The file is a protocol buffer (https://protobuf.dev/programming-guides/encoding), of which four messages matter.


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: integers, and the bytes of all else. Raises IndexError where it is
    cut off, ValueError for a wire type that protocol buffers do not have."""

    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < len(data):
        tag = varint()
        match tag & 7:
            case 0:
                yield tag >> 3, varint()
                continue
            case 1:
                size = 8
            case 2:
                size = varint()
            case 5:
                size = 4
            case other:
                raise ValueError(f"wire type {other}")
        if at + size > len(data):
            raise IndexError("a field ends behind the file")
        yield tag >> 3, data[at : at + size]
        at += size


def _parts(data: memoryview, number: int) -> Iterator[memoryview]:
    return (value for field, value in _fields(data) if field == number and isinstance(value, memoryview))


def _tensor(data: memoryview) -> Array | None:
    """A TensorProto: dtype 1, shape 2, content 4. None for another type than float32, or without content."""
    dtype, shape, content = 0, [], b""
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number == 2 and isinstance(value, memoryview):
            shape = [int(size) for dim in _parts(value, 2) for field, size in _fields(dim) if field == 1]
        elif number == 4:
            content = bytes(value)
    if dtype != 1 or not content:
        return None
    return np.frombuffer(content, "<f4").reshape(shape)


def read_weights(path: Path) -> dict[str, Array]:
    """The float32 constants of a frozen graph by the names of their nodes. Raises ModelCorrupt where it is no such
    file."""
    found: dict[str, Array] = {}
    try:
        for node in _parts(memoryview(path.read_bytes()), 1):  # GraphDef.node
            fields = list(_fields(node))
            name = next(bytes(value).decode() for number, value in fields if number == 1 and not isinstance(value, int))
            for attribute in (value for number, value in fields if number == 5 and isinstance(value, memoryview)):
                for value in _parts(attribute, 2):  # of an entry of the map: AttrValue
                    for tensor in _parts(value, 8):
                        if (array := _tensor(tensor)) is not None:
                            found[name] = array
    except (IndexError, ValueError, StopIteration) as error:
        raise ModelCorrupt(f"{path.name} is no frozen TensorFlow graph: {error}") from error
    return found


class _Network:
    """Adds the network's layers to a graph; a value is its name and its side in cells."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.graph = GraphBuilder()

    def _convolve(
        self, value: tuple[str, int], weights: Array, biases: Array, stride: int = 1, groups: int = 1
    ) -> tuple[str, int]:
        """As TensorFlow pads with SAME: what is odd goes to the end."""
        name, side = value
        after = -(-side // stride)
        padding = max((after - 1) * stride + weights.shape[2] - side, 0)
        pads = [padding // 2] * 2 + [padding - padding // 2] * 2
        return self.graph.convolve(name, weights, biases, strides=[stride] * 2, pads=pads, group=groups), after

    def layer(self, value: tuple[str, int], name: str, stride: int = 1, *, linear: bool = False) -> tuple[str, int]:
        """A convolution with the batch normalisation behind it folded in, and ReLU6."""
        name = f"FeatureExtractor/MobilenetV2/{name}"
        weights = self._weights
        depthwise = f"{name}/depthwise_weights" in weights
        kernel = (
            weights[f"{name}/depthwise_weights"].transpose(2, 3, 0, 1)
            if depthwise
            else _turned(weights[f"{name}/weights"])
        )
        beta, gamma, mean, variance = (
            weights[f"{name}/BatchNorm/{part}"].astype(np.float64)
            for part in ("beta", "gamma", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        value = self._convolve(
            value,
            (kernel * scale[:, None, None, None]).astype(np.float32),
            (beta - mean * scale).astype(np.float32),
            stride,
            len(kernel) if depthwise else 1,
        )
        return value if linear else (self.graph.add("Clip", value[0], self._zero, self._six), value[1])

    def features(self) -> list[tuple[str, int]]:
        """The six feature maps that boxes are found in, the finest first."""
        graph = self.graph
        self._zero, self._six = (graph.constant(np.array(limit, np.float32)) for limit in (0, 6))
        image = graph.add("Transpose", "image", perm=[0, 3, 1, 2])
        image = graph.add("Mul", image, graph.constant(np.array(2 / 255, np.float32)))
        image = graph.add("Sub", image, graph.constant(np.array(1, np.float32)))
        value = self.layer((image, SIDE), "Conv", 2)
        maps, width = [], 0
        for block in range(BLOCKS):
            name = f"expanded_conv_{block}" if block else "expanded_conv"
            inner = self.layer(value, f"{name}/expand") if block else value
            if block == HALVING[-1]:
                maps.append(inner)
            inner = self.layer(inner, f"{name}/depthwise", 2 if block in HALVING else 1)
            projected = self.layer(inner, f"{name}/project", linear=True)
            before, width = width, self._channels(f"{name}/project")
            value = (graph.add("Add", projected[0], value[0]), value[1]) if width == before else projected
        value = self.layer(value, "Conv_1")
        maps.append(value)
        for number, (narrow, wide) in EXTRA.items():
            value = self.layer(value, f"layer_19_1_Conv2d_{number}_1x1_{narrow}")
            name = f"layer_19_2_Conv2d_{number}_3x3_s2_{wide}"
            value = self.layer(self.layer(value, f"{name}_depthwise", 2), name)
            maps.append(value)
        return maps

    def _channels(self, name: str) -> int:
        return int(self._weights[f"FeatureExtractor/MobilenetV2/{name}/weights"].shape[3])

    def head(self, level: int, value: tuple[str, int], kind: str, width: int, chosen: NDArray[np.int64]) -> str:
        """(n, anchors, len(chosen)): of the `width` numbers that are given for each anchor, those that matter."""
        name = f"BoxPredictor_{level}/{kind}"
        kernel, biases = _turned(self._weights[f"{name}/weights"]), self._weights[f"{name}/biases"]
        rows = (np.arange(len(biases) // width)[:, None] * width + chosen).ravel()
        name, _ = self._convolve(value, kernel[rows], biases[rows])
        flat = self.graph.add("Transpose", name, perm=[0, 2, 3, 1])
        return self.graph.add("Reshape", flat, self.graph.constant(np.array([0, -1, len(chosen)], np.int64)))


def _turned(kernel: Array) -> Array:
    """TensorFlow's (rows, columns, in, out) → (out, in, rows, columns)."""
    return kernel.transpose(3, 2, 0, 1)


def anchors(weights: Weights, sides: list[int]) -> Array:
    """(anchors, 4) float32: centre (y, x) and size (height, width) of each, in shares of the picture, in the order of
    the heads' outputs; scales and aspect ratios as the graph holds them."""
    found = []
    for level, side in enumerate(sides):
        ratios = weights[f"MultipleGridAnchorGenerator/Sqrt{f'_{level}' if level else ''}/x"]
        scales = weights[f"MultipleGridAnchorGenerator/mul_{15 + 8 * level}/x"]
        shapes = np.stack([scales / np.sqrt(ratios), scales * np.sqrt(ratios)], axis=1)
        y, x = (np.indices((side, side)) + 0.5) / side
        centres = np.stack([y, x], axis=-1).reshape(-1, 1, 2)
        count = (side * side, len(ratios), 2)
        found.append(np.concatenate([np.broadcast_to(centres, count), np.broadcast_to(shapes, count)], axis=-1))
    return np.concatenate([level.reshape(-1, 4) for level in found]).astype(np.float32)


def build_graph(weights: Weights) -> bytes:
    """The network as a serialised ONNX model. Input `image`: (n, 300, 300, 3) float32 RGB in [0, 255]; outputs `boxes`:
    (n, anchors, 4), top, left, bottom, right in shares of the picture, and `scores`: (n, anchors, 80), of COCO's
    classes in their order. Raises ModelCorrupt where weights are missing."""
    network = _Network(weights)
    graph = network.graph
    classes = np.array([number for number, name in enumerate(SPARSE_NAMES, 1) if name], np.int64)  # 0 is the background
    try:
        maps = network.features()
        encodings = [network.head(n, m, "BoxEncodingPredictor", 4, np.arange(4)) for n, m in enumerate(maps)]
        logits = [network.head(n, m, "ClassPredictor", len(SPARSE_NAMES) + 1, classes) for n, m in enumerate(maps)]
        places = anchors(weights, [side for _, side in maps])
    except (KeyError, ValueError, IndexError) as error:
        raise ModelCorrupt(f"the graph is not SSD-MobileNetV2 for COCO: {error}") from error
    graph.add("Sigmoid", graph.add("Concat", *logits, axis=1), output="scores")
    encoded = graph.add("Concat", *encodings, axis=1)
    halves = [graph.constant(np.array(ends, np.int64)) for ends in ([0], [2], [4], [2])]
    centre = graph.add("Slice", encoded, halves[0], halves[1], halves[3])
    size = graph.add("Slice", encoded, halves[1], halves[2], halves[3])
    centre = graph.add("Mul", centre, graph.constant(places[None, :, 2:] / np.float32(CENTRE)))
    centre = graph.add("Add", centre, graph.constant(places[None, :, :2]))
    size = graph.add("Exp", graph.add("Mul", size, graph.constant(np.array(1 / SIZE, np.float32))))
    half = graph.add("Mul", size, graph.constant(places[None, :, 2:] / 2))
    graph.add("Concat", graph.add("Sub", centre, half), graph.add("Add", centre, half), axis=2, output="boxes")
    count = len(places)
    return graph.model(
        "ssd_mobilenet_v2_coco",
        {"image": (np.float32, ["n", SIDE, SIDE, 3])},
        {"boxes": ["n", count, 4], "scores": ["n", count, len(classes)]},
    )


def build(source: Path, target: Path) -> None:
    """Writes the ONNX graph of the frozen graph `source` to `target`; the model store keeps it. Raises ModelCorrupt."""
    target.write_bytes(build_graph(read_weights(source)))
