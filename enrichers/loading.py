"""Loads networks for enrichers, each once a process, on one device."""

import ctypes
import hashlib
import importlib
import importlib.util
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from enrichers.catalogue import Catalogue
from enrichers.contract import Network
from enrichers.errors import DeviceUnavailable, SettingInvalid
from enrichers.runtimes import Plan, open_graph
from enrichers.runtimes.providers import CUDA, TENSORRT
from enrichers.weights import Builder, ModelStore


def resolve_device(device: str) -> str:
    """ "auto", "cpu" or "cuda" → "cpu" or "cuda". Neither runtimes nor models are loaded for it.

    "auto" is "cuda" where a GPU and an ONNX Runtime for it are there. Raises DeviceUnavailable for "cuda" without
    them: what was asked for never runs somewhere else in silence. Raises SettingInvalid for any other word.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise SettingInvalid(f"unknown device {device!r}; valid are: auto, cpu, cuda")
    if device == "cpu":
        return "cpu"
    if (count := _gpus()) == 0:
        reason = "no GPU was found (the NVIDIA driver is missing or sees none)"
    elif not _onnxruntime_has_cuda():
        reason = f"{count} GPU found, and the installed ONNX Runtime cannot use it; install the extra `gpu`"
    else:
        return "cuda"
    if device == "cuda":
        raise DeviceUnavailable(f'device "cuda": {reason}; or use device = "cpu"')
    return "cpu"


def _gpus() -> int:
    """GPUs that the NVIDIA driver shows to this process (cuInit and cuDeviceGetCount of the CUDA driver API)."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _onnxruntime_has_cuda() -> bool:
    return CUDA in _providers()


def tensorrt_is_there() -> bool:
    """Whether the installed ONNX Runtime can hand graphs to TensorRT; its libraries are another matter."""
    return TENSORRT in _providers()


def _providers() -> list[str]:
    """The execution providers of the installed ONNX Runtime."""
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return list(onnxruntime.get_available_providers())


@dataclass(frozen=True, slots=True)
class Gpu:
    """What the networks of a process may take of a GPU, and by which means."""

    memory_mb: int = 0  #: of all networks together, where they are loaded for `share`; 0: what there is
    tensorrt: bool = False  #: whether TensorRT runs the graphs that suit it

    def share(self, catalogue: Catalogue, names: Iterable[str]) -> "Gpu":
        """What each of the models `names` may take where all of them are loaded: ONNX Runtime limits the memory of a
        session, TensorFlow that of a process, and neither knows of the other."""
        runtimes = [catalogue.entry(name).runtime for name in set(names)]
        count = runtimes.count("onnx") + ("tensorflow" in runtimes)
        return replace(self, memory_mb=-(-self.memory_mb // max(1, count)))


class ProcessLoader:
    """Gives the enrichers of one process their networks (`contract.Loader`)."""

    def __init__(self, store: ModelStore, device: str = "cpu", threads: int = 1, gpu: Gpu | None = None) -> None:
        """`device` is "auto", "cpu" or "cuda"; `gpu`: what each network may take. Raises DeviceUnavailable."""
        self.store = store
        self.device = resolve_device(device)
        self.threads = threads
        self._gpu = gpu or Gpu()
        self._networks: dict[str, Network] = {}
        self._locks: dict[str, threading.Lock] = {}

    def network(self, name: str) -> Network:
        """The catalogue's model, loaded by its runtime after its hash was checked; the same object every time.
        Raises ModelUnknown, ModelMissing, ModelCorrupt, DeviceUnavailable, SettingInvalid."""
        with self._locks.setdefault(name, threading.Lock()):  # several threads load enrichers; each graph once
            if name not in self._networks:
                self._networks[name] = self._open(name)
        return self._networks[name]

    def _open(self, name: str) -> Network:
        entry = self.store.catalogue.entry(name)
        options: dict[str, Any] = dict(entry.options)
        store, derive = self.store, entry.derive
        path = store.derived(name, _builder(derive)) if derive else store.verify(name)
        plan = Plan(
            device=self.device,
            threads=self.threads,
            inputs=options.pop("inputs", {}),
            outputs=options.pop("outputs", {}),
            options=options,
            gpu_memory_mb=self._gpu.memory_mb,
            tensorrt=self._engines(name, path) if self._gpu.tensorrt and self.device == "cuda" else None,
        )
        return open_graph(entry.runtime, path, plan)

    def _engines(self, name: str, path: Path) -> Path:
        """Where TensorRT keeps what it builds of this graph; those of other weights, or of another ONNX Runtime, are
        never taken for it."""
        import onnxruntime

        state = f"{path.name}\0{self.store.catalogue.sha256(name)}\0{onnxruntime.__version__}"
        return self.store.cache / "tensorrt" / f"{name}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"

    def path(self, name: str) -> str:
        """The weight file, after its hash was checked. Raises ModelUnknown, ModelMissing, ModelCorrupt."""
        return str(self.store.verify(name))


def _builder(reference: str) -> Builder:
    """The function that "module:function" names."""
    module, _, function = reference.partition(":")
    try:
        builder: Builder = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SettingInvalid(f"`derive` names {reference!r}, which cannot be imported: {error}") from error
    return builder
