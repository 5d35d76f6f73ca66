"""ONNX graphs that were exported for one picture, made to take batches; for `derive` of a catalogue entry."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import ModelCorrupt
from enrichers.onnx_pair import sessions

#: largest difference, relative to the largest output, that a batch may make
TOLERANCE = 1e-4


def build(source: Path, target: Path) -> None:
    """Writes the graph `source`, whose first axes are fixed, with a free first axis (the batch) to `target`, and checks
    on random input that every picture of a batch gets what it gets alone. Raises ModelCorrupt where it does not: then
    the graph mixes its pictures, and has to be used one at a time."""
    import onnx
    from onnx import numpy_helper

    try:
        model = onnx.load(str(source))
    except Exception as error:  # protobuf's exceptions differ between its versions
        raise ModelCorrupt(f"{source.name} is no ONNX graph: {error}") from error
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    for value in [v for v in graph.input if v.name in weights]:
        graph.input.remove(value)  # weights that may be overridden cannot be folded away
    fixed = {tensor.name: tensor for tensor in graph.initializer}
    fixed |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in fixed:
            shape = numpy_helper.to_array(fixed[node.input[1]]).copy()
            if len(shape) > 1 and shape[0] == 1:
                shape[0] = 0 if (shape == -1).any() else -1  # 0: as it comes in
                fixed[node.input[1]].CopyFrom(numpy_helper.from_array(shape, fixed[node.input[1]].name))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    del graph.value_info[:]
    data = model.SerializeToString()
    _check(source, data)
    target.write_bytes(data)


def _check(source: Path, data: bytes) -> None:
    try:
        one, many = sessions(source, data)
        rng = np.random.default_rng(0)
        rows = [_random(rng, list(many.get_inputs())) for _ in range(3)]
        alone = [one.run(None, row) for row in rows]
        together = many.run(None, {name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this
        raise ModelCorrupt(f"{source.name} cannot be made to take batches: {error}") from error
    for index, output in enumerate(together):
        expected = np.concatenate([outputs[index] for outputs in alone])
        if output.shape != expected.shape or np.abs(output - expected).max() > TOLERANCE * np.abs(expected).max():
            raise ModelCorrupt(f"{source.name} cannot be made to take batches: its pictures influence each other")


def _random(rng: np.random.Generator, inputs: list[Any]) -> dict[str, NDArray[np.float32]]:
    """One picture of random numbers for each input, whose sizes must be fixed but for the batch."""
    found = {}
    for value in inputs:
        sizes = [size if isinstance(size, int) else 1 for size in value.shape[1:]]
        found[value.name] = rng.normal(0, 1, (1, *sizes)).astype(np.float32)
    return found
