"""Runs the face embedding models of the package DeepFace by its own code, with weights out of the model store."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import DeviceUnavailable, ModelCorrupt, ModelMissing, SettingInvalid
from enrichers.runtimes import Plan, resolved

#: endings of weight files → the engine that DeepFace runs them with
ENGINES: Mapping[str, str] = {".onnx": "onnx", ".h5": "tensorflow", ".pth": "pytorch"}


class DeepFaceNetwork:
    """A model of DeepFace's, `plan.options["model"]` being its name there ("Facenet512", "DeepID").

    Input `chips` (n, side, side, 3) uint8 RGB, upright faces as its detectors cut them; output `embeddings` (n, d)
    float32. DeepFace resizes the chips to what the model takes, blue first, 0 to 1. One process has one engine, that of
    its first model.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        """Raises ModelMissing without DeepFace, SettingInvalid for a name that it does not know or a second engine,
        ModelCorrupt for a file that it cannot load, DeviceUnavailable for a GPU that it would not use."""
        name = plan.options.get("model", "")
        engine = ENGINES.get(path.suffix)
        if engine is None:
            raise SettingInvalid(f"{path.name} is no weights file of DeepFace: it ends in {', '.join(ENGINES)}")
        os.environ.setdefault("DEEPFACE_BACKEND_ENGINE", engine)
        try:
            from deepface.commons import backend_utils
            from deepface.modules import modeling, preprocessing
        except ImportError:
            raise ModelMissing("DeepFace's models need the package deepface; install the extra `deepface`") from None
        if (running := backend_utils.get_backend_engine()) != engine:
            raise SettingInvalid(f"{path.name} needs DeepFace's engine {engine}, and this process runs {running}")
        self.device = "cpu" if engine == "onnx" and not _onnx_has_cuda() else plan.device
        if plan.device != self.device:
            raise DeviceUnavailable('device "cuda": DeepFace would run on the CPU; install the extra `gpu`')
        known = modeling.AVAILABLE_MODELS["facial_recognition"]
        if name not in known:
            raise SettingInvalid(f"DeepFace has no model {name!r} (`options.model`); it has {', '.join(known)}")
        with _given(path):
            try:
                self._client = modeling.get_model_class("facial_recognition", name)()
            except Exception as error:  # the engines' exceptions share no base but this
                raise ModelCorrupt(f"{path} cannot be loaded as DeepFace's {name}: {error}") from error
        self._resized = preprocessing.resize_image
        self._inputs = resolved(plan.inputs, ("chips",), "input", path)
        self._outputs = resolved(plan.outputs, ("embeddings",), "output", path)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        (chips,) = inputs.values()
        columns, rows = self._client.input_shape
        batch = np.concatenate([self._resized(chip[..., ::-1], (rows, columns)) for chip in chips])
        vectors = np.asarray(self._client.forward(batch), np.float32).reshape(len(chips), -1)
        return dict.fromkeys(self._outputs, vectors)


@contextmanager
def _given(path: Path) -> Iterator[None]:
    """While it lasts, DeepFace gets this weights file where it would look for one, and fetch it."""
    from deepface.commons import weight_utils

    own = weight_utils.download_weights_if_necessary
    weight_utils.download_weights_if_necessary = lambda *_, **__: str(path)
    try:
        yield
    finally:
        weight_utils.download_weights_if_necessary = own


def _onnx_has_cuda() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
