"""The runtimes that run models, each behind `contract.Network`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enrichers.contract import Network
from enrichers.errors import ModelCorrupt, SettingInvalid


@dataclass(frozen=True, slots=True)
class Plan:
    """How a graph is to be run. `inputs` and `outputs` map the names that an enricher uses to tensor names of the
    graph, "*" to the only one that it has; where they are empty, the graph's own names are used and all its outputs
    are computed."""

    device: str = "cpu"  #: "cpu" or "cuda"
    threads: int = 1  #: threads for one call
    gpu_memory_mb: int = 0  #: memory of a GPU that the graph may take; 0: what there is
    tensorrt: Path | None = None  #: folder of the engines that TensorRT builds for the graph; None: it is not used
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  #: what else the catalogue says of the model


#: options of a catalogue entry that say how its graph is run; all others are the form's
RUNTIME_OPTIONS = frozenset(
    {
        "inputs",
        "outputs",
        "signature",
        "constants",
        "kind",
        "model",
        "intermediate",
        "session",
        "cpu_rows",
        "gpu_rows",
    }
)

#: stands for a graph's only input or output, whatever its name
ONLY = "*"


def resolved(names: Mapping[str, str], own: Sequence[str], kind: str, path: Path) -> dict[str, str]:
    """The names that an enricher uses → the graph's own names. Raises ModelCorrupt where the graph has no such name."""
    if not names:
        return {name: name for name in own}
    found = {}
    for name, theirs in names.items():
        if theirs == ONLY and len(own) == 1:
            theirs = own[0]
        if theirs not in own:
            raise ModelCorrupt(f"{path} has no {kind} {theirs!r}; it has {', '.join(own)}")
        found[name] = theirs
    return found


def open_graph(runtime: str, path: Path, plan: Plan) -> Network:
    """Loads the model at `path` with one of "onnx", "tensorflow", "litert", "dlib", "deepface". Raises
    DeviceUnavailable where the device cannot run it, ModelCorrupt where the file is no such model, ModelMissing where
    the runtime's package is not installed, SettingInvalid for another runtime."""
    if runtime == "onnx":
        from enrichers.runtimes.onnx import OnnxNetwork

        return OnnxNetwork(path, plan)
    if runtime == "tensorflow":
        from enrichers.runtimes.tensorflow import open_tensorflow

        return open_tensorflow(path, plan)
    if runtime == "litert":
        from enrichers.runtimes.litert import LiteRTNetwork

        return LiteRTNetwork(path, plan)
    if runtime == "dlib":
        from enrichers.runtimes.dlib import DlibNetwork

        return DlibNetwork(path, plan)
    if runtime == "deepface":
        from enrichers.runtimes.deepface import DeepFaceNetwork

        return DeepFaceNetwork(path, plan)
    raise SettingInvalid(f"no network can be made of a model of runtime {runtime!r}")
