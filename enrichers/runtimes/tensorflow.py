"""Runs TensorFlow graphs: frozen GraphDefs (a .pb file) and SavedModels (a folder)."""

import contextlib
import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.errors import DeviceUnavailable, ModelCorrupt, ModelMissing, OutOfMemory, SettingInvalid
from enrichers.runtimes import Plan, resolved


class FrozenNetwork:
    """A frozen graph in a session of its own. Calls release the interpreter lock.

    A session holds the weights far fewer times than a function made of the same graph: 1.2 GB instead of 2.7 GB
    resident for SSD-MobileNetV2, TensorFlow's own 0.6 GB included.
    """

    def __init__(self, tf: Any, path: Path, plan: Plan) -> None:
        """Raises ModelCorrupt, SettingInvalid."""
        from google.protobuf.message import DecodeError

        if not plan.inputs or not plan.outputs:
            raise SettingInvalid(f"{path.name}: a frozen graph needs `options.inputs` and `options.outputs`")
        self._errors = tf.errors
        self.device = plan.device
        outputs = [_tensor_name(name).partition(":")[0] for name in plan.outputs.values()]
        with tf.Graph().as_default() as graph:
            try:
                definition = tf.compat.v1.GraphDef.FromString(path.read_bytes())
                tf.graph_util.import_graph_def(_only_needed(definition, outputs), name="")
                del definition
                self._feeds = {name: graph.as_graph_element(_tensor_name(t)) for name, t in plan.inputs.items()}
                self._constants = {
                    graph.as_graph_element(_tensor_name(t)): value
                    for t, value in plan.options.get("constants", {}).items()
                }
                self._fetches = {name: graph.as_graph_element(_tensor_name(t)) for name, t in plan.outputs.items()}
            except (DecodeError, KeyError, ValueError) as error:
                raise ModelCorrupt(f"{path} is not the frozen graph that the catalogue describes: {error}") from error
            self._session = tf.compat.v1.Session(graph=graph, config=session_options(tf, plan))
        self._warm = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self._feeds)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One call of the graph. Raises OutOfMemory where the device's memory does not suffice."""
        feeds = {**self._constants, **{self._feeds[name]: array for name, array in inputs.items()}}
        try:
            answer: dict[str, NDArray[Any]] = self._session.run(self._fetches, feeds)
        except self._errors.ResourceExhaustedError as error:
            raise OutOfMemory(error.message) from error
        if not self._warm:
            self._warm = True
            _give_back_memory()
        return answer


def session_options(tf: Any, plan: Plan) -> Any:
    """The ConfigProto of a session: its threads, its device and the memory that it may take there."""
    options = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=plan.threads,
        inter_op_parallelism_threads=-1,  # in the caller's thread: calls from two threads run side by side
        allow_soft_placement=True,  # some operations have no kernel for a GPU
    )
    if plan.device == "cpu":
        options.device_count["GPU"] = 0
    elif plan.gpu_memory_mb:
        options.gpu_options.experimental.virtual_devices.add(memory_limit_mb=[plan.gpu_memory_mb])
    else:
        options.gpu_options.allow_growth = True
    return options


def _only_needed(definition: Any, outputs: Sequence[str]) -> Any:
    """The nodes of a graph that its outputs are computed from. Raises KeyError for an output that it has not."""
    nodes = {node.name: node for node in definition.node}
    needed: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [given.lstrip("^").partition(":")[0] for given in nodes[name].input]
    kept = type(definition)(versions=definition.versions, library=definition.library)
    kept.node.extend(node for node in definition.node if node.name in needed)
    return kept


def _give_back_memory() -> None:
    """Returns what the optimisation of a graph took to the system, where the C library can (glibc's malloc_trim)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class SavedModelNetwork:
    """One signature of a SavedModel."""

    def __init__(self, tf: Any, path: Path, plan: Plan) -> None:
        """Raises ModelCorrupt."""
        self._errors = tf.errors
        self._constant = tf.constant
        self.device = plan.device
        with tf.device("/GPU:0" if plan.device == "cuda" else "/CPU:0"):
            try:
                self._model = tf.saved_model.load(str(path))  # the signature holds its variables only weakly
                self._signature = self._model.signatures[plan.options.get("signature", "serving_default")]
            except (OSError, KeyError, ValueError) as error:
                raise ModelCorrupt(f"{path} is no SavedModel that TensorFlow can load: {error}") from error
        specs = self._signature.structured_input_signature[1]
        self._inputs = resolved(plan.inputs, list(specs), "input", path)
        self._outputs = resolved(plan.outputs, list(self._signature.structured_outputs), "output", path)
        self._dtypes = {name: specs[theirs].dtype for name, theirs in self._inputs.items()}

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One call of the signature. Raises OutOfMemory where the device's memory does not suffice."""
        feeds = {self._inputs[name]: self._constant(array, self._dtypes[name]) for name, array in inputs.items()}
        try:
            answer = self._signature(**feeds)
        except self._errors.ResourceExhaustedError as error:
            raise OutOfMemory(error.message) from error
        return {name: np.asarray(answer[theirs]) for name, theirs in self._outputs.items()}


def open_tensorflow(path: Path, plan: Plan) -> FrozenNetwork | SavedModelNetwork:
    """Loads a frozen graph (a file) or a SavedModel (a folder).

    A frozen graph needs `plan.inputs` and `plan.outputs`, and may have `plan.options["constants"]`: tensors that are
    fed the same value in each call. A SavedModel has its tensors in the signature that `plan.options["signature"]`
    names ("serving_default"). Raises DeviceUnavailable, ModelCorrupt, SettingInvalid.
    """
    tf = _tensorflow(plan)
    return SavedModelNetwork(tf, path, plan) if path.is_dir() else FrozenNetwork(tf, path, plan)


def _tensorflow(plan: Plan) -> Any:
    """TensorFlow, set to the plan's device, threads and memory; the first network of a process decides them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
    except ImportError:
        raise ModelMissing("TensorFlow's models need the package; install the extra `tensorflow`") from None
    gpus = tf.config.list_physical_devices("GPU")
    if plan.device == "cuda" and not gpus:
        raise DeviceUnavailable(
            'device "cuda": TensorFlow finds no GPU; install the extra `tensorflow-gpu` or use device = "cpu"'
        )
    try:
        tf.config.threading.set_intra_op_parallelism_threads(plan.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        if plan.device == "cuda":
            for gpu in gpus:
                if plan.gpu_memory_mb:
                    limit = tf.config.LogicalDeviceConfiguration(memory_limit=plan.gpu_memory_mb)
                    tf.config.set_logical_device_configuration(gpu, [limit])
                else:
                    tf.config.experimental.set_memory_growth(gpu, True)
        else:
            tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        if plan.device == "cuda" and not tf.config.get_visible_devices("GPU"):
            raise DeviceUnavailable('device "cuda": TensorFlow was started without a GPU in this process') from None
    return tf


def _tensor_name(name: str) -> str:
    return name if ":" in name else f"{name}:0"
