"""Runs ONNX graphs with ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import DeviceUnavailable, ModelCorrupt, OutOfMemory
from enrichers.runtimes import Plan, resolved


class OnnxNetwork:
    """A session on one device. Calls release the interpreter lock."""

    def __init__(self, path: Path, plan: Plan) -> None:
        """Raises DeviceUnavailable, ModelCorrupt."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = plan.threads
        options.inter_op_num_threads = 1
        # threads that spin after a call take the cores from the next runtime's call
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for key, value in plan.options.get("session", {}).items():
            options.add_session_config_entry(key, value)
        options.log_severity_level = 3
        provider = "CPUExecutionProvider"
        # the arena grows by what is asked for, not by powers of two: pages of many sizes would double its memory
        providers: list[Any] = [(provider, {"arena_extend_strategy": "kSameAsRequested"})]
        if plan.device == "cuda":
            provider = "CUDAExecutionProvider"
            if provider not in ort.get_available_providers():
                raise DeviceUnavailable('device "cuda": this ONNX Runtime has no CUDA; install the extra `gpu`')
            providers = [(provider, {"arena_extend_strategy": "kSameAsRequested"}), "CPUExecutionProvider"]
        try:
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # ONNX Runtime's own exceptions share no base but this
            raise ModelCorrupt(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
        if self._session.get_providers()[0] != provider:
            raise DeviceUnavailable('device "cuda": ONNX Runtime could not start CUDA and would run on the CPU')
        self.device = plan.device
        self._inputs = resolved(plan.inputs, [i.name for i in self._session.get_inputs()], "input", path)
        self._outputs = resolved(plan.outputs, [o.name for o in self._session.get_outputs()], "output", path)
        rows = plan.options.get("cpu_rows") if plan.device == "cpu" else None
        self._rows = rows * plan.threads if rows else None

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One answer for all rows. On the CPU the graph is called with as many rows at a time as the catalogue says
        (`cpu_rows`): more are no faster, and activations of many sizes take memory. Raises OutOfMemory where the
        device's memory does not suffice."""
        feeds = {self._inputs[name]: np.ascontiguousarray(array) for name, array in inputs.items()}
        count = len(next(iter(feeds.values())))
        if self._rows is None or count <= self._rows:
            return dict(zip(self._outputs, self._called(feeds), strict=True))
        parts = [
            self._called({name: array[start : start + self._rows] for name, array in feeds.items()})
            for start in range(0, count, self._rows)
        ]
        return {
            name: np.concatenate(values) for name, values in zip(self._outputs, zip(*parts, strict=True), strict=True)
        }

    def _called(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            return list(self._session.run(list(self._outputs.values()), feeds))
        except Exception as error:  # see above
            if "Failed to allocate memory" in str(error) or "out of memory" in str(error).lower():
                raise OutOfMemory(str(error)) from error
            raise
