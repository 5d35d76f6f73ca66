"""ONNX graphs whose batch normalisations were exported as sums and products, made faster; for `derive` of a catalogue
entry."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import ModelCorrupt
from enrichers.onnx_pair import sessions

#: largest difference, relative to the largest output, that folding may make
TOLERANCE = 1e-4

Array = NDArray[Any]


def build(source: Path, target: Path) -> None:
    """Writes the graph `source` to `target` with what follows a convolution and only scales and shifts its channels
    (Add, Sub, Mul by constants) folded into the convolution's weights, and checks on random input that the answers are
    the same. ONNX Runtime folds a BatchNormalization, but not one in parts. Raises ModelCorrupt."""
    import onnx

    try:
        model = onnx.load(str(source))
    except Exception as error:  # protobuf's exceptions differ between its versions
        raise ModelCorrupt(f"{source.name} is no ONNX graph: {error}") from error
    _Folder(model.graph).fold()
    data = model.SerializeToString()
    _check(source, data)
    target.write_bytes(data)


class _Folder:
    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self._helper = numpy_helper
        self._graph = graph
        self._constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            elif node.op_type == "Identity" and node.input[0] in self._constants:
                self._constants[node.output[0]] = self._constants[node.input[0]]
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.output}

    def fold(self) -> None:
        for node in [node for node in self._graph.node if node.op_type == "Conv"]:
            if node.input[1] in self._constants and all(name in self._constants for name in node.input[2:]):
                self._fold_behind(node)

    def _fold_behind(self, convolution: Any) -> None:
        weights = self._constants[convolution.input[1]].astype(np.float64)
        biases = np.zeros(len(weights))
        if len(convolution.input) > 2:
            biases = self._constants[convolution.input[2]].astype(np.float64)
        value, axis, rank = convolution.output[0], 1, weights.ndim
        folded = []
        while value not in self._outputs and len(readers := self._readers.get(value, [])) == 1:
            node = readers[0]
            if node.op_type == "Transpose":
                axis = list(node.attribute[0].ints).index(axis)
            elif (factor := self._factor(node, value, axis, rank, len(weights))) is not None:
                if node.op_type == "Mul":
                    weights *= factor.reshape(-1, *[1] * (rank - 1))
                    biases *= factor
                else:
                    biases += factor if node.op_type == "Add" else -factor
                folded.append((node, value))
            elif node.op_type != "Cast" or node.attribute[0].i != 1:  # to float32, as it is
                break
            value = node.output[0]
        if not folded:
            return
        name = convolution.output[0]
        for part, array in ((f"{name}.weights", weights), (f"{name}.biases", biases)):
            self._graph.initializer.append(self._helper.from_array(array.astype(np.float32), part))
        convolution.input[:] = [convolution.input[0], f"{name}.weights", f"{name}.biases"]
        for node, given in folded:
            node.op_type = "Identity"
            node.input[:] = [given]

    def _factor(self, node: Any, value: str, axis: int, rank: int, channels: int) -> Array | None:
        """(channels,): what a node adds, subtracts or multiplies to each channel; None where it does something else."""
        if node.op_type not in ("Add", "Sub", "Mul") or (node.op_type == "Sub" and node.input[0] != value):
            return None
        (name,) = [name for name in node.input if name != value] or [value]
        constant = self._constants.get(name)
        if constant is None or constant.ndim > rank:
            return None
        shape = [1] * (rank - constant.ndim) + list(constant.shape)
        if any(size != 1 for place, size in enumerate(shape) if place != axis):
            return None
        return np.broadcast_to(constant.astype(np.float64).reshape(-1), channels)


def _check(source: Path, data: bytes) -> None:
    try:
        before, after = sessions(source, data)
        rng = np.random.default_rng(0)
        given = {
            value.name: rng.normal(0, 50, [size if isinstance(size, int) else 2 for size in value.shape]).astype(
                np.float32
            )
            for value in before.get_inputs()
        }
        answers = [session.run(None, given) for session in (before, after)]
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this
        raise ModelCorrupt(f"the normalisations of {source.name} cannot be folded: {error}") from error
    for expected, answer in zip(*answers, strict=True):
        if np.abs(answer - expected).max() > TOLERANCE * max(float(np.abs(expected).max()), 1e-6):
            raise ModelCorrupt(f"the normalisations of {source.name} cannot be folded: the answers differ")
