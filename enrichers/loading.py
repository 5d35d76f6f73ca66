"""Loads networks for enrichers, each once a process, on one device."""

import ctypes
import importlib
import importlib.util
import threading
from typing import Any

from enrichers.contract import Network
from enrichers.errors import DeviceUnavailable, SettingInvalid
from enrichers.runtimes import Plan, open_graph
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
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


class ProcessLoader:
    """Gives the enrichers of one process their networks (`contract.Loader`)."""

    def __init__(self, store: ModelStore, device: str = "cpu", threads: int = 1) -> None:
        """`device` is "auto", "cpu" or "cuda". Raises DeviceUnavailable."""
        self.store = store
        self.device = resolve_device(device)
        self.threads = threads
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
        plan = Plan(
            device=self.device,
            threads=self.threads,
            inputs=options.pop("inputs", {}),
            outputs=options.pop("outputs", {}),
            options=options,
        )
        store, derive = self.store, entry.derive
        path = store.derived(name, _builder(derive)) if derive else store.verify(name)
        return open_graph(entry.runtime, path, plan)

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
