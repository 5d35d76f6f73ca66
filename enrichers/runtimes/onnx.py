"""Runs ONNX graphs with ONNX Runtime."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import DeviceUnavailable, ModelCorrupt, OutOfMemory
from enrichers.runtimes import Plan, resolved
from enrichers.runtimes.batch_size import BatchSize
from enrichers.runtimes.page_locked import Buffers, page_locked
from enrichers.runtimes.providers import CPU, Shapes, providers

#: what ONNX Runtime's arena (below its limit and at it), CUDA, cuBLAS and cuDNN say where memory does not suffice
NO_MEMORY = ("failed to allocate memory", "smaller than requested bytes", "out of memory", "alloc_failed")

Arrays = Mapping[str, NDArray[Any]]


class OnnxNetwork:
    """A session on one device. Calls release the interpreter lock, and several may run side by side."""

    def __init__(self, path: Path, plan: Plan) -> None:
        """Raises DeviceUnavailable, ModelCorrupt."""
        self._session = _session(path, plan)
        self.device = plan.device
        self._inputs = resolved(plan.inputs, [i.name for i in self._session.get_inputs()], "input", path)
        self._outputs = resolved(plan.outputs, [o.name for o in self._session.get_outputs()], "output", path)
        rows = plan.options.get("cpu_rows" if plan.device == "cpu" else "gpu_rows")
        self._most = rows * plan.threads if rows and plan.device == "cpu" else None
        self._size = BatchSize(rows) if rows and plan.device == "cuda" else None
        self._buffers = Buffers(page_locked()) if plan.device == "cuda" else None

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """One answer for all rows. A graph whose rows have nothing to do with one another (the catalogue says so by
        `cpu_rows` and `gpu_rows`) is called with some of them at a time: on the CPU with so many, as more are no faster
        and activations of many sizes take memory; on a GPU with as many as measuring finds best, padded to one of a few
        fixed sizes. Raises OutOfMemory where the device's memory does not suffice."""
        feeds = {self._inputs[name]: array for name, array in inputs.items()}
        if self._most is None and self._size is None:
            return dict(zip(self._outputs, self._called(feeds), strict=True))
        count = len(next(iter(feeds.values())))
        parts: list[list[NDArray[Any]]] = []
        start = 0
        while start < count or not parts:
            size = self._next_size(count - start)
            try:
                parts.append(self._part(feeds, start, size))
            except OutOfMemory:
                if self._size is None or not self._size.too_many(size):
                    raise
                continue
            start += size
        joined = parts[0] if len(parts) == 1 else [np.concatenate(values) for values in zip(*parts, strict=True)]
        return dict(zip(self._outputs, joined, strict=True))

    def _next_size(self, rows: int) -> int:
        return min(rows, self._most or rows) if self._size is None else self._size.of(rows)

    def _part(self, feeds: Arrays, start: int, size: int) -> list[NDArray[Any]]:
        """The outputs of one call: of `size` rows from `start` on, those that are there."""
        part = {name: array[start : start + size] for name, array in feeds.items()}
        if self._size is None:
            return self._called(part)
        given = len(next(iter(part.values())))
        started = time.perf_counter()
        outputs = self._called(part, size)
        elements = max(1, sum(array[0].size for array in feeds.values() if len(array)))
        self._size.took(size, (time.perf_counter() - started) / elements)
        return [output[:given] for output in outputs]

    def _called(self, feeds: Arrays, size: int | None = None) -> list[NDArray[Any]]:
        """One call of the graph; `size`: of that many rows, those beyond the ones given are zeros."""
        with ExitStack() as lent:
            given = {}
            for name, array in feeds.items():
                if self._buffers is None:
                    given[name] = np.ascontiguousarray(array)
                    continue
                shape = array.shape if size is None else (size, *array.shape[1:])
                buffer = given[name] = lent.enter_context(self._buffers.lent(shape, array.dtype))
                buffer[: len(array)] = array
                buffer[len(array) :] = 0
            try:
                return list(self._session.run(list(self._outputs.values()), given))
            except Exception as error:  # ONNX Runtime's own exceptions share no base but this
                if any(words in str(error).lower() for words in NO_MEMORY):
                    raise OutOfMemory(str(error)) from error
                raise


def _session(path: Path, plan: Plan) -> Any:
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
    shapes: Shapes = {}
    if plan.device == "cuda":
        ort.preload_dlls()  # CUDA's libraries out of their packages, where these are installed
        shapes = _shapes(path)
    wanted = providers(plan, shapes, ort.get_available_providers())
    if plan.tensorrt:
        plan.tensorrt.mkdir(parents=True, exist_ok=True)
    session = _opened(path, options, wanted)
    for name, _ in wanted:
        if name not in session.get_providers():
            raise DeviceUnavailable(
                f'device "{plan.device}": ONNX Runtime could not start {name} and would run elsewhere'
            )
    return session


def _opened(path: Path, options: Any, wanted: Any) -> Any:
    """Raises ModelCorrupt."""
    import onnxruntime as ort

    try:
        session = ort.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # see above
        raise ModelCorrupt(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
    session.disable_fallback()  # a call that fails on the GPU would be run on the CPU from then on, in silence
    return session


def _shapes(path: Path) -> Shapes:
    """The axes of a graph's inputs, read before it is known who runs it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = _opened(path, options, [CPU])
    return {value.name: value.shape for value in session.get_inputs()}
