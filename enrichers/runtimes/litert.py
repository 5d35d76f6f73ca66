"""Runs TensorFlow Lite graphs (.tflite) with LiteRT, always on the CPU."""

import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import ModelCorrupt
from enrichers.runtimes import Plan, resolved


class LiteRTNetwork:
    """An interpreter that is resized to each new batch.

    LiteRT has no CUDA; its models are small, and `device` says "cpu" whatever the plan asks for.
    Without output names, the outputs have the graph's own, and those that are quantised come as they are.
    """

    device = "cpu"

    def __init__(self, path: Path, plan: Plan) -> None:
        """`plan.options["intermediate"]`: keeps inner tensors so that `plan.outputs` may name them.
        Raises ModelCorrupt."""
        from ai_edge_litert.interpreter import Interpreter

        keep = bool(plan.options.get("intermediate", False))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # kept tensors cost memory, which is known here
                self._interpreter = Interpreter(
                    str(path), num_threads=plan.threads, experimental_preserve_all_tensors=keep
                )
        except (ValueError, RuntimeError) as error:
            raise ModelCorrupt(f"{path} cannot be loaded by LiteRT: {error}") from error
        inputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_input_details()}
        self._inputs = {n: inputs[own] for n, own in resolved(plan.inputs, list(inputs), "input", path).items()}
        outputs = self._interpreter.get_output_details()
        if plan.outputs:
            tensors = {detail["name"]: detail["index"] for detail in self._interpreter.get_tensor_details()}
            tensors |= {detail["name"]: detail["index"] for detail in outputs}
            if unknown := [theirs for theirs in plan.outputs.values() if theirs not in tensors]:
                raise ModelCorrupt(f"{path} has no tensor {unknown[0]!r}")
            self._outputs = {name: tensors[theirs] for name, theirs in plan.outputs.items()}
        else:
            self._outputs = {detail["name"]: detail["index"] for detail in outputs}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()  # an interpreter serves one call at a time

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One call of the graph, after it was resized where the inputs have other shapes than last time."""
        with self._lock:
            return self._run(inputs)

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            for name, shape in shapes.items():
                self._interpreter.resize_tensor_input(self._inputs[name], shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, array in inputs.items():
            self._interpreter.set_tensor(self._inputs[name], np.ascontiguousarray(array))
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
