"""Which of ONNX Runtime's execution providers run a graph, and with which options."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from enrichers.errors import DeviceUnavailable
from enrichers.runtimes import Plan

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

#: the arena grows by what is asked for, not by powers of two: pages of many sizes would double its memory
ARENA = {"arena_extend_strategy": "kSameAsRequested"}

Provider = tuple[str, dict[str, Any]]
#: input name → its axes: a length, or None (or a name) where it is open
Shapes = Mapping[str, Sequence[int | str | None]]


def providers(plan: Plan, shapes: Shapes, available: Sequence[str]) -> list[Provider]:
    """The providers in the order in which they take a graph's nodes. `shapes` are asked for on a GPU alone, `available`
    are those of the installed ONNX Runtime. Raises DeviceUnavailable where it lacks one that is asked for.

    TensorRT takes graphs of which only the batch is open: for other pictures' sizes it would build engines for minutes.
    Options: ONNX Runtime's pages on its CUDA and TensorRT execution providers.
    """
    if plan.device == "cpu":
        return [(CPU, ARENA)]
    for provider in (CUDA, TENSORRT) if plan.tensorrt else (CUDA,):
        if provider not in available:
            raise DeviceUnavailable(f'device "cuda": this ONNX Runtime has no {provider}; install the extra `gpu`')
    most = plan.options.get("gpu_rows")
    fixed = most is not None and all(isinstance(axis, int) for shape in shapes.values() for axis in shape[1:])
    cuda: dict[str, Any] = {
        **ARENA,
        # timing every algorithm pays where the shapes are few
        "cudnn_conv_algo_search": "EXHAUSTIVE" if fixed else "HEURISTIC",
        "do_copy_in_default_stream": True,  # copies in a stream of their own race with the computation (its page)
    }
    if plan.gpu_memory_mb:
        cuda["gpu_mem_limit"] = plan.gpu_memory_mb << 20  # of this session's arena alone
    found: list[Provider] = [(CUDA, cuda), (CPU, ARENA)]
    if plan.tensorrt and most and fixed:
        found.insert(0, (TENSORRT, _tensorrt(plan.tensorrt, shapes, most, plan.gpu_memory_mb)))
    return found


def _tensorrt(folder: Path, shapes: Shapes, most: int, memory_mb: int) -> dict[str, Any]:
    """One engine for all sizes of a batch: without the profile it is built anew for each larger one."""

    def profile(rows: int) -> str:
        return ",".join(f"{name}:{'x'.join(map(str, (rows, *shape[1:])))}" for name, shape in shapes.items())

    options: dict[str, Any] = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
        "trt_profile_min_shapes": profile(1),
        "trt_profile_opt_shapes": profile(most),
        "trt_profile_max_shapes": profile(most),
    }
    if memory_mb:
        options["trt_max_workspace_size"] = memory_mb << 20
    return options
