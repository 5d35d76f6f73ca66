"""Builds ONNX graphs node by node, for networks whose weights come in other files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: opset of the graphs: the oldest that has all their operators in their present form
OPSET = 13

#: IR version of the files: the one that came with that opset
IR_VERSION = 8

Shape = Sequence[int | str]


class GraphBuilder:
    """Collects the nodes and constants of a graph; values are known by their names."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy_helper = helper, numpy_helper
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(self._numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        name = output or f"t{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(operator, inputs, [name], **attributes))
        return name

    def convolve(self, value: str, weights: NDArray[np.float32], biases: NDArray[np.float32], **attributes: Any) -> str:
        """`weights` (out, in, rows, columns), `biases` (out,)."""
        sides = list(weights.shape[2:])
        return self.add("Conv", value, self.constant(weights), self.constant(biases), kernel_shape=sides, **attributes)

    def model(self, name: str, inputs: Mapping[str, tuple[type, Shape]], outputs: Mapping[str, Shape]) -> bytes:
        """The graph as a serialised and checked ONNX model. `inputs`: numpy type and shape of each, words for free
        axes; `outputs` are float32."""
        from onnx import checker

        helper = self._helper

        def info(value: str, dtype: type, shape: Shape) -> Any:
            return helper.make_tensor_value_info(value, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

        model = helper.make_model(
            helper.make_graph(
                self._nodes,
                name,
                [info(value, dtype, shape) for value, (dtype, shape) in inputs.items()],
                [info(value, np.float32, shape) for value, shape in outputs.items()],
                self._constants,
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="enrichd",
        )
        model.ir_version = IR_VERSION
        checker.check_model(model)
        return bytes(model.SerializeToString())
