"""Runs TensorFlow graphs: frozen GraphDefs (a .pb file) and SavedModels (a folder)."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import DeviceUnavailable, ModelCorrupt, OutOfMemory, SettingInvalid
from enrichers.runtimes import Plan


class TensorFlowNetwork:
    """A concrete function with named inputs and outputs."""

    def __init__(self, call: Callable[..., Mapping[str, Any]], dtypes: Mapping[str, Any], device: str) -> None:
        self._call = call
        self._dtypes = dtypes
        self.device = device

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self._dtypes)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One call of the graph. Raises OutOfMemory where the device's memory does not suffice."""
        import tensorflow as tf

        feeds = {name: tf.constant(array, self._dtypes[name]) for name, array in inputs.items()}
        try:
            return {name: np.asarray(value) for name, value in self._call(**feeds).items()}
        except tf.errors.ResourceExhaustedError as error:
            raise OutOfMemory(error.message) from error


def open_tensorflow(path: Path, plan: Plan) -> TensorFlowNetwork:
    """Loads a frozen graph or a SavedModel. A frozen graph needs `plan.inputs` and `plan.outputs`; a SavedModel has
    them in the signature that `plan.options["signature"]` names ("serving_default").
    Raises DeviceUnavailable, ModelCorrupt, SettingInvalid."""
    tf = _tensorflow(plan)
    with tf.device("/GPU:0" if plan.device == "cuda" else "/CPU:0"):
        return _saved_model(tf, path, plan) if path.is_dir() else _frozen_graph(tf, path, plan)


def _tensorflow(plan: Plan) -> Any:
    """TensorFlow, set to the plan's device and threads; the first network of a process decides both."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if plan.device == "cuda" and not gpus:
        raise DeviceUnavailable('device "cuda": TensorFlow finds no GPU; install the extra `gpu` or use device = "cpu"')
    try:
        tf.config.threading.set_intra_op_parallelism_threads(plan.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        if plan.device == "cuda":
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
        else:
            tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        if plan.device == "cuda" and not tf.config.get_visible_devices("GPU"):
            raise DeviceUnavailable('device "cuda": TensorFlow was started without a GPU in this process') from None
    return tf


def _frozen_graph(tf: Any, path: Path, plan: Plan) -> TensorFlowNetwork:
    from google.protobuf.message import DecodeError

    if not plan.inputs or not plan.outputs:
        raise SettingInvalid(
            f"{path.name}: a frozen graph needs `options.inputs` and `options.outputs` in the catalogue"
        )
    definition = tf.compat.v1.GraphDef()
    try:
        definition.ParseFromString(path.read_bytes())
        wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
        feeds = [wrapped.graph.as_graph_element(_tensor_name(name)) for name in plan.inputs.values()]
        fetches = {name: wrapped.graph.as_graph_element(_tensor_name(t)) for name, t in plan.outputs.items()}
    except (DecodeError, KeyError, ValueError) as error:
        raise ModelCorrupt(f"{path} is not the frozen graph that the catalogue describes: {error}") from error
    pruned = wrapped.prune(feeds, fetches)
    dtypes = {name: feed.dtype for name, feed in zip(plan.inputs, feeds, strict=True)}
    # called without this wrapper, TensorFlow formats all its arguments for an error message that nobody sees
    call = tf.function(lambda arrays: pruned(*arrays), autograph=False, reduce_retracing=True)
    return TensorFlowNetwork(lambda **arrays: call([arrays[name] for name in dtypes]), dtypes, plan.device)


def _tensor_name(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _saved_model(tf: Any, path: Path, plan: Plan) -> TensorFlowNetwork:
    try:
        model = tf.saved_model.load(str(path))
        signature = model.signatures[plan.options.get("signature", "serving_default")]
    except (OSError, KeyError, ValueError) as error:
        raise ModelCorrupt(f"{path} is no SavedModel that TensorFlow can load: {error}") from error
    specs = signature.structured_input_signature[1]
    inputs = dict(plan.inputs) or {name: name for name in specs}
    outputs = dict(plan.outputs) or {name: name for name in signature.structured_outputs}

    def call(**arrays: Any) -> Mapping[str, Any]:
        answer = signature(**{inputs[name]: array for name, array in arrays.items()})
        return {name: answer[theirs] for name, theirs in outputs.items()}

    # the function only holds its variables weakly
    call.model = model  # type: ignore[attr-defined]
    return TensorFlowNetwork(call, {name: specs[theirs].dtype for name, theirs in inputs.items()}, plan.device)
