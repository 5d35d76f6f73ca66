"""Writes the trained model as one ONNX graph of one step, its weights as int8."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from enrichers.caption_writer import THINGS
from training.caption.model import Captioner, Memory

#: inputs and outputs that have a row a picture; the others have one a sentence
PICTURES = ("names", "counts", "prominences", "places")

#: weights with fewer numbers than this stay as they are
SMALL = 2048


class Step(nn.Module):
    """The graph that is shipped: encodes the things of each picture anew each step, which is cheap as its sentences
    share it, and writes one unit of each sentence."""

    def __init__(self, model: Captioner) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, names: Tensor, counts: Tensor, prominences: Tensor, of: Tensor, state: Tensor, last: Tensor, begin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`of` (m,) is the picture of each sentence; `begin` (m,) is 1 where the sentence starts and `state` is not yet
        of use, else 0."""
        memory, places = self.model.encode(names, counts, prominences)
        memory = Memory(memory.rows[of], memory.real[of], memory.state[of])
        share = begin.unsqueeze(-1)
        logits, state = self.model.step(memory, memory.state * share + state * (1 - share), last)
        return logits, state, places


def export(model: Captioner, path: Path) -> None:
    """Inputs `names`, `counts`, `prominences` (n, THINGS) int64 of n pictures, `of`, `last` (m,) int64, `state` (m, h)
    and `begin` (m,) float32 of m sentences; outputs `logits` (m, units), `state_out` (m, h), `places` (n, settings)."""
    model.eval()
    example = (
        torch.zeros(2, THINGS, dtype=torch.int64),
        torch.ones(2, THINGS, dtype=torch.int64),
        torch.zeros(2, THINGS, dtype=torch.int64),
        torch.tensor([0, 0, 1]),
        torch.zeros(3, model.hidden),
        torch.zeros(3, dtype=torch.int64),
        torch.ones(3),
    )
    inputs = ["names", "counts", "prominences", "of", "state", "last", "begin"]
    outputs = ["logits", "state_out", "places"]
    torch.onnx.export(
        Step(model),
        example,
        str(path),
        input_names=inputs,
        output_names=outputs,
        dynamic_axes={name: {0: "n" if name in PICTURES else "m"} for name in (*inputs, *outputs)},
        opset_version=17,
        dynamo=False,
    )
    graph = onnx.load(path)
    quantise(graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def quantise(model: onnx.ModelProto) -> None:
    """Replaces each large weight by int8 numbers and one scale (symmetric) for each slice of its last axis that the
    graph reads: rows of a table, columns of a matrix."""
    graph = model.graph
    kept, added = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < SMALL:
            kept.append(tensor)
            continue
        readers = {node.op_type for node in graph.node if tensor.name in node.input}
        axis = 0 if "Gather" in readers else 1
        scale = np.maximum(np.abs(values).max(axis=1 - axis, keepdims=True), 1e-8) / 127
        whole = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
        name = tensor.name
        kept += [
            numpy_helper.from_array(whole, f"{name}.int8"),
            numpy_helper.from_array(scale.astype(np.float32).reshape(-1), f"{name}.scale"),
        ]
        added.append(
            helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], f"{name}.whole", axis=axis)
        )
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
