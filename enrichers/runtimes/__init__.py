"""The runtimes that run a model's graph, each behind `contract.Network`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enrichers.contract import Network
from enrichers.errors import SettingInvalid


@dataclass(frozen=True, slots=True)
class Plan:
    """How a graph is to be run. `inputs` and `outputs` map the names that an enricher uses to tensor names of the
    graph; where they are empty, the graph's own names are used and all its outputs are computed."""

    device: str = "cpu"  #: "cpu" or "cuda"
    threads: int = 1  #: threads for one call
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  #: what else the catalogue says of the model


def open_graph(runtime: str, path: Path, plan: Plan) -> Network:
    """Loads the graph at `path` with one of "onnx", "tensorflow", "litert". Raises DeviceUnavailable where the device
    cannot run it, ModelCorrupt where the file is no such graph, SettingInvalid for another runtime."""
    if runtime == "onnx":
        from enrichers.runtimes.onnx import OnnxNetwork

        return OnnxNetwork(path, plan)
    if runtime == "tensorflow":
        from enrichers.runtimes.tensorflow import open_tensorflow

        return open_tensorflow(path, plan)
    if runtime == "litert":
        from enrichers.runtimes.litert import LiteRTNetwork

        return LiteRTNetwork(path, plan)
    raise SettingInvalid(f"no network can be made of a model of runtime {runtime!r}")
