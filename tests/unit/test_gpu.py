"""The GPU's path, run on ONNX Runtime's CPU provider: batch shapes, buffers, sizes by measuring, memory, lanes."""

import ctypes
import gc
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from daemon import app, doctor
from daemon.config import load
from daemon.decoding import PixelsRef
from daemon.inference import ImageRef, Unit, _Lanes, _load, lanes_of
from enrichers import loading
from enrichers.catalogue import Catalogue
from enrichers.contract import Enricher, Loader, Result
from enrichers.errors import DeviceUnavailable, OutOfMemory
from enrichers.image import Facts, Image
from enrichers.loading import Gpu, ProcessLoader
from enrichers.runtimes import Plan, open_graph
from enrichers.runtimes import onnx as onnx_runtime
from enrichers.runtimes.batch_size import TIMED, WARM, BatchSize
from enrichers.runtimes.page_locked import KEPT, PORTABLE, Buffers, Driver, page_locked, pageable
from enrichers.runtimes.providers import ARENA, CPU, CUDA, TENSORRT, providers
from enrichers.weights import ModelStore
from tests.conftest import pulled
from tests.unit.test_runtimes import onnx_graph

AVAILABLE = [TENSORRT, CUDA, CPU]
FIXED = {"image": ["n", 300, 300, 3]}
OPEN = {"image": ["n", 3, "height", "width"]}


# ---- providers


def test_on_the_cpu_nothing_else_is_asked_for() -> None:
    assert providers(Plan(), {}, [CPU]) == [(CPU, ARENA)]


@pytest.mark.parametrize(
    ("options", "shapes", "tensorrt", "names", "search"),
    [
        ({"gpu_rows": 8}, FIXED, None, [CUDA, CPU], "EXHAUSTIVE"),
        ({"gpu_rows": 8}, OPEN, None, [CUDA, CPU], "HEURISTIC"),  # pictures of any size: timing would never end
        ({}, FIXED, None, [CUDA, CPU], "HEURISTIC"),  # batches of any size
        ({"gpu_rows": 8}, FIXED, Path("x"), [TENSORRT, CUDA, CPU], "EXHAUSTIVE"),
        ({"gpu_rows": 8}, OPEN, Path("x"), [CUDA, CPU], "HEURISTIC"),  # engines for every size
    ],
)
def test_providers(options: Any, shapes: Any, tensorrt: Path | None, names: list[str], search: str) -> None:
    found = providers(Plan("cuda", options=options, tensorrt=tensorrt), shapes, AVAILABLE)
    assert [name for name, _ in found] == names
    cuda = dict(found)[CUDA]
    assert (cuda["cudnn_conv_algo_search"], "gpu_mem_limit" in cuda) == (search, False)


def test_one_engine_serves_every_batch_and_is_kept() -> None:
    plan = Plan("cuda", options={"gpu_rows": 16}, tensorrt=Path("engines"), gpu_memory_mb=512)
    options = dict(providers(plan, {"a": ["n", 3, 4], "b": ["n"]}, AVAILABLE))
    assert options[TENSORRT]["trt_profile_min_shapes"] == "a:1x3x4,b:1"
    assert options[TENSORRT]["trt_profile_max_shapes"] == "a:16x3x4,b:16"
    assert options[TENSORRT]["trt_engine_cache_path"] == options[TENSORRT]["trt_timing_cache_path"] == "engines"
    assert options[TENSORRT]["trt_max_workspace_size"] == options[CUDA]["gpu_mem_limit"] == 512 << 20


@pytest.mark.parametrize(("tensorrt", "available"), [(None, [CPU]), (Path("x"), [CUDA, CPU])])
def test_a_provider_that_is_not_installed_is_an_error(tensorrt: Path | None, available: list[str]) -> None:
    with pytest.raises(DeviceUnavailable, match="extra `gpu`"):
        providers(Plan("cuda", tensorrt=tensorrt), FIXED, available)


def test_a_provider_that_does_not_start_is_an_error_and_no_cpu_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ONNX Runtime itself only warns, and runs the graph on the CPU
    monkeypatch.setattr(onnx_runtime, "providers", lambda *_: [(CUDA, {}), (CPU, ARENA)])
    with pytest.warns(UserWarning, match="not in available"), pytest.raises(DeviceUnavailable, match=CUDA):
        open_graph("onnx", onnx_graph(tmp_path), Plan("cuda"))


# ---- a network


class Spy:
    """A session that remembers the shapes that it met, and fails above a number of rows."""

    def __init__(self, session: Any, fits: int = 1 << 30) -> None:
        self._session = session
        self.fits = fits
        self.rows: list[int] = []

    def run(self, outputs: Sequence[str], feeds: dict[str, NDArray[Any]]) -> Any:
        rows = len(next(iter(feeds.values())))
        self.rows.append(rows)
        if rows > self.fits:
            raise RuntimeError("CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED ; GPU=0")
        return self._session.run(outputs, feeds)


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is opened for the GPU gets the CPU provider; all else is as on a GPU."""
    monkeypatch.setattr(onnx_runtime, "providers", lambda *_: [(CPU, ARENA)])


def opened(path: Path, fits: int = 1 << 30, **options: Any) -> tuple[Any, Spy]:
    network: Any = open_graph("onnx", path, Plan("cuda", options=options))
    spy = network._session = Spy(network._session, fits)
    return network, spy


def graph(folder: Path, operator: str, inputs: dict[str, list[Any]], output: list[Any], *after: Any) -> Path:
    """A graph of one operator, with output "y" unless nodes come after it."""
    from onnx import TensorProto, helper

    made = helper.make_graph(
        [helper.make_node(operator, list(inputs), ["between" if after else "y"]), *after],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
    )
    path = folder / "one.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), str(path))
    return path


@pytest.mark.usefixtures("on_the_cpu")
def test_batches_of_any_size_meet_few_shapes_and_get_the_same_answers(tmp_path: Path) -> None:
    path = onnx_graph(tmp_path)
    plain = open_graph("onnx", path, Plan())
    network, spy = opened(path, gpu_rows=8)
    for count in (*range(1, 21), 0, 3):
        images = np.random.default_rng(count).random((count, 2, 2, 3), np.float32)
        answer = network.run({"image": images})["score"]
        assert answer.shape == (count,)
        np.testing.assert_array_equal(answer, plain.run({"image": images})["score"])
    assert set(spy.rows) == {1, 2, 4, 8}


@pytest.mark.usefixtures("on_the_cpu")
def test_a_graph_whose_rows_belong_together_is_called_with_what_it_is_given(tmp_path: Path) -> None:
    path = graph(tmp_path, "Concat", {"a": ["n", 2], "b": ["m", 2]}, ["n+m", 2])
    model = onnx.load(str(path))
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("axis", 0))
    onnx.save(model, str(path))
    network, spy = opened(path)
    a, b = np.ones((3, 2), np.float32), np.zeros((5, 2), np.float32)
    np.testing.assert_array_equal(network.run({"a": a, "b": b})["y"], np.concatenate([a, b]))
    assert spy.rows == [3]


@pytest.mark.usefixtures("on_the_cpu")
def test_answers_stay_when_their_buffers_are_used_again(tmp_path: Path) -> None:
    network, _ = opened(graph(tmp_path, "Identity", {"x": ["n", 4]}, ["n", 4]), gpu_rows=4)
    first = np.ones((4, 4), np.float32)
    answer = network.run({"x": first})["y"]
    network.run({"x": np.zeros((4, 4), np.float32)})
    np.testing.assert_array_equal(answer, first)


@pytest.mark.usefixtures("on_the_cpu")
def test_inputs_of_any_layout_are_copied_in_order(tmp_path: Path) -> None:
    network, _ = opened(graph(tmp_path, "Identity", {"x": ["n", 2, 3]}, ["n", 2, 3]), gpu_rows=4)
    turned = np.arange(18, dtype=np.float32).reshape(3, 3, 2).transpose(0, 2, 1)
    np.testing.assert_array_equal(network.run({"x": turned})["y"], turned)


@pytest.mark.usefixtures("on_the_cpu")
def test_lanes_may_share_a_network(tmp_path: Path) -> None:
    network, _ = opened(graph(tmp_path, "Identity", {"x": ["n", 64]}, ["n", 64]), gpu_rows=8)

    def run(seed: int) -> bool:
        x = np.random.default_rng(seed).random((seed % 19 + 1, 64), np.float32)
        return bool((network.run({"x": x})["y"] == x).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(200)))


@pytest.mark.usefixtures("on_the_cpu")
def test_a_size_that_does_not_fit_into_memory_is_not_tried_again(tmp_path: Path) -> None:
    network, spy = opened(onnx_graph(tmp_path), fits=4, gpu_rows=16)
    images = np.random.default_rng(0).random((16, 2, 2, 3), np.float32)
    for _ in range(8):
        assert network.run({"image": images})["score"] == pytest.approx(images.mean(axis=(1, 2, 3)) * 3, rel=1e-5)
    assert spy.rows.count(8) == 1 and max(spy.rows) == 8


@pytest.mark.usefixtures("on_the_cpu")
def test_one_row_that_does_not_fit_is_out_of_memory(tmp_path: Path) -> None:
    network, _ = opened(onnx_graph(tmp_path), fits=0, gpu_rows=16)
    with pytest.raises(OutOfMemory):
        network.run({"image": np.zeros((5, 2, 2, 3), np.float32)})


#: run apart, since what is registered holds for a process: an arena of 24 MB, and rows that take 1 MB in it; it keeps
#: the pieces of 1, 2, 4 and 8 MB that the smaller sizes took, so 16 do not fit
CAPPED = """
import sys
import numpy as np
import onnxruntime as ort
from pathlib import Path
from enrichers.runtimes import Plan, onnx as runtime
from enrichers.runtimes.providers import ARENA, CPU

info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
ort.create_and_register_allocator(info, ort.OrtArenaCfg(24 << 20, 1, -1, -1))
runtime.providers = lambda *_: [(CPU, ARENA)]
network = runtime.OnnxNetwork(
    Path(sys.argv[1]), Plan("cuda", options={"gpu_rows": 64, "session": {"session.use_env_allocators": "1"}})
)
x = np.random.default_rng(0).random((64, 1 << 18), np.float32)
for _ in range(12):
    np.testing.assert_array_equal(network.run({"x": x})["y"], -x.min(axis=1))
print(network._size.most)
"""


def test_a_network_keeps_below_the_limit_of_its_arena(tmp_path: Path) -> None:
    greatest = onnx.helper.make_node("ReduceMax", ["between"], ["y"], axes=[1], keepdims=0)
    path = graph(tmp_path, "Neg", {"x": ["n", 1 << 18]}, ["n"], greatest)
    ran = subprocess.run([sys.executable, "-c", CAPPED, str(path)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[-1] == "8"


#: a row of each default model with `gpu_rows`, where axes are open
ROWS = {"centerface": (3, 64, 96), "ppocr_v6_det": (3, 64, 96), "ppocr_v6_rec": (3, 48, 96), "ppocr_cls": (3, 48, 192)}


def test_the_rows_of_every_default_model_that_is_padded_have_nothing_to_do_with_one_another(
    model_store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = model_store.catalogue
    names = [entry.name for entry in catalogue if "gpu_rows" in entry.options]
    assert {"dlib", "ssd_mobilenet_v2_coco", *ROWS} <= set(names) and "caption_words" not in names
    pulled(model_store, *names)
    plain = ProcessLoader(model_store, "cpu", 1)
    monkeypatch.setattr(loading, "resolve_device", lambda device: device)
    monkeypatch.setattr(onnx_runtime, "providers", lambda *_: [(CPU, ARENA)])
    padded = ProcessLoader(model_store, "cuda", 1)
    for name in names:
        network: Any = padded.network(name)
        [given] = network._session.get_inputs()
        dtype = np.uint8 if given.type == "tensor(uint8)" else np.float32
        row = ROWS.get(name) or tuple(given.shape[1:])
        rows = (np.random.default_rng(0).random((3, *row)) * (255 if dtype is np.uint8 else 1)).astype(dtype)
        network._size = BatchSize(4)
        for size in (1, 2):  # these are known: three rows go into one call of four
            for _ in range(WARM + TIMED):
                network._size.took(size, 1.0)
        spy = network._session = Spy(network._session)
        answer = network.run({network.inputs[0]: rows})
        assert spy.rows == [4]
        for output, expected in plain.network(name).run({network.inputs[0]: rows}).items():
            np.testing.assert_allclose(answer[output], expected, rtol=1e-3, atol=1e-4, err_msg=name)


# ---- batch sizes


def chosen(size: BatchSize, seconds: Any, rows: int, calls: int = 40) -> int:
    """The size for `rows` once calls that take `seconds(size)` have been timed."""
    for _ in range(calls):
        now = size.of(rows)
        size.took(now, seconds(now))
    return size.of(rows)


def test_the_size_with_the_most_rows_a_second_wins() -> None:
    assert chosen(BatchSize(32), lambda n: 10 + n, rows=32) == 32, "a GPU that is mostly idle"
    assert chosen(BatchSize(32), lambda n: 1 + n**2, rows=32) == 1, "a processor whose caches overflow"
    assert chosen(BatchSize(32), lambda n: 8 + n + (50 if n > 8 else 0), rows=32) == 8


def test_what_is_padded_counts_as_work() -> None:
    assert chosen(BatchSize(8), lambda n: n + 0.1, rows=5) in (1, 4), "five rows of work, not eight"
    assert chosen(BatchSize(8), lambda n: n + 100, rows=5) == 8, "one call instead of two"


def test_no_size_is_tried_that_the_rows_do_not_fill() -> None:
    size = BatchSize(32)
    assert chosen(size, lambda n: 10 + n, rows=3) == 4
    assert [size.of(rows) for rows in (0, 1, 2)] == [1, 1, 2]
    assert size.of(32) == 8, "the next one that is not known"


def test_the_first_call_of_a_size_is_not_timed() -> None:
    size = BatchSize(2)
    first: set[int] = set()

    def seconds(n: int) -> float:
        return 1.0 if n in first or first.add(n) else 1000.0

    assert chosen(size, seconds, rows=2) == 2


def test_a_slow_call_among_fast_ones_does_not_count() -> None:
    size = BatchSize(2)
    times = iter([9, 9, 9, 9, 99, 9])  # of size 2: warm, then one that waited for another lane
    assert chosen(size, lambda n: next(times), rows=2, calls=6) == 2


def test_memory_bounds_the_sizes() -> None:
    size = BatchSize(32)
    assert size.too_many(16) and size.most == 8
    assert chosen(size, lambda n: 10 + n, rows=32) == 8
    assert not BatchSize(32).too_many(1)


# ---- buffers


def test_buffers_are_used_again_and_few_are_kept() -> None:
    made: list[int] = []

    def allocate(size: int) -> NDArray[np.uint8]:
        made.append(size)
        return pageable(size)

    buffers = Buffers(allocate)
    for rows in (8, 3, 8, 1):
        with buffers.lent((rows, 100, 100, 3), np.float32) as buffer:
            assert (buffer.shape, buffer.dtype) == ((rows, 100, 100, 3), np.float32)
            buffer[:] = rows
    assert len(made) == 1
    with buffers.lent((8, 100, 100, 3), np.float32) as one, buffers.lent((8, 100, 100, 3), np.float32) as other:
        assert not np.shares_memory(one, other)
    assert len(made) == 2
    with ThreadPoolExecutor(KEPT + 4) as pool:
        barrier = threading.Barrier(KEPT + 4)

        def borrow(_: int) -> None:
            with buffers.lent((100,), np.uint8):
                barrier.wait(10)

        list(pool.map(borrow, range(KEPT + 4)))
    assert len(buffers._idle) == KEPT
    with buffers.lent((0, 5), np.float32) as nothing:
        assert nothing.shape == (0, 5)


class FakeDriver:
    """libcuda: hands out memory of its own, and remembers what was called."""

    def __init__(self, status: dict[str, int] | None = None) -> None:
        self.status = status or {}
        self.calls: list[str] = []
        self.memories: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if self.status.get(name):
                return self.status[name]
            if name == "cuMemHostAlloc":
                pointer, size, flags = arguments
                assert flags == PORTABLE
                memory = ctypes.create_string_buffer(size.value)
                pointer._obj.value = ctypes.addressof(memory)
                self.memories[ctypes.addressof(memory)] = memory
            if name == "cuMemFreeHost":
                del self.memories[arguments[0].value]
            return 0

        return call


def test_page_locked_memory_is_freed_with_the_last_look_at_it() -> None:
    library = FakeDriver()
    memory = Driver(library).allocate(4096)
    view = memory[:64].view(np.float32)
    del memory
    gc.collect()
    view[:] = 7
    assert len(library.memories) == 1 and next(iter(library.memories.values()))[:4] == np.float32(7).tobytes()
    del view
    gc.collect()
    assert not library.memories
    assert library.calls.count("cuCtxPushCurrent_v2") == library.calls.count("cuCtxPopCurrent_v2") == 2


def test_without_page_locked_memory_ordinary_memory_serves() -> None:
    library = FakeDriver({"cuMemHostAlloc": 2})
    assert len(Driver(library).allocate(100)) == 100
    assert library.calls[-1] == "cuCtxPopCurrent_v2"
    with pytest.raises(OSError, match="cuDeviceGet"):
        Driver(FakeDriver({"cuDeviceGet": 101}))


def test_page_locked_memory_is_asked_of_the_driver_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeDriver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    memory = page_locked()(1000)
    assert (len(memory), len(library.memories)) == (1000, 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeDriver({"cuInit": 100}))
    assert page_locked() is pageable


@pytest.mark.usefixtures("on_the_cpu")
def test_a_network_reads_from_page_locked_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeDriver()
    monkeypatch.setattr(onnx_runtime, "page_locked", lambda: Driver(library).allocate)
    network, spy = opened(onnx_graph(tmp_path), gpu_rows=4)
    seen: list[int] = []
    run = spy.run
    monkeypatch.setattr(spy, "run", lambda names, feeds: seen.append(feeds["image"].ctypes.data) or run(names, feeds))
    for _ in range(5):
        network.run({"image": np.ones((4, 2, 2, 3), np.float32)})
    assert set(seen) == set(library.memories) and len(library.memories) == 1


# ---- memory


def test_networks_share_the_memory() -> None:
    entries: dict[str, dict[str, Any]] = {
        name: {"task": "objects", "runtime": runtime, "provider": "file", "path": "x"}
        for name, runtime in {"a": "onnx", "b": "onnx", "c": "litert", "d": "none", "e": "tensorflow"}.items()
    }
    catalogue = Catalogue.load(entries)
    assert Gpu(900).share(catalogue, ["a", "b", "b", "c", "d"]).memory_mb == 450
    assert Gpu(900, tensorrt=True).share(catalogue, ["a", "b", "e"]) == Gpu(300, tensorrt=True)
    assert Gpu(1).share(catalogue, ["a", "b"]).memory_mb == 1, "not 0, which is no limit"
    assert Gpu().share(catalogue, ["a", "b"]) == Gpu()


def test_the_loader_tells_a_graph_its_share_and_where_engines_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr(loading, "open_graph", lambda runtime, path, plan: plans.append(plan))
    monkeypatch.setattr(loading, "resolve_device", lambda device: device)
    entry = {"task": "objects", "runtime": "onnx", "provider": "file", "path": str(onnx_graph(tmp_path))}

    def load_with(device: str, gpu: Gpu, sha256: str | None = None) -> Plan:
        catalogue = Catalogue.load({"tiny": entry | ({"sha256": sha256} if sha256 else {})}, tmp_path / "cache")
        monkeypatch.setattr(ModelStore, "verify", lambda self, name: Path(str(entry["path"])))
        ProcessLoader(ModelStore(tmp_path / "cache", catalogue), device, 1, gpu).network("tiny")
        return plans.pop()

    gpu = Gpu(300, tensorrt=True)
    assert load_with("cpu", gpu).tensorrt is None
    assert load_with("cuda", Gpu(300)).tensorrt is None
    one, other = load_with("cuda", gpu, "1" * 64), load_with("cuda", gpu, "2" * 64)
    assert one.gpu_memory_mb == 300 and one.tensorrt is not None and other.tensorrt is not None
    assert one.tensorrt.parent == tmp_path / "cache" / "tensorrt"
    assert one.tensorrt != other.tensorrt, "an engine is never taken for other weights"


def test_tensorflows_sessions_get_their_share() -> None:
    import tensorflow as tf

    from enrichers.runtimes.tensorflow import session_options

    capped = session_options(tf, Plan("cuda", gpu_memory_mb=256)).gpu_options
    assert [list(d.memory_limit_mb) for d in capped.experimental.virtual_devices] == [[256]]
    assert session_options(tf, Plan("cuda")).gpu_options.allow_growth
    assert session_options(tf, Plan()).device_count["GPU"] == 0


def test_tensorflow_itself_gets_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from enrichers.runtimes.tensorflow import _tensorflow

    limits: list[Any] = []
    grown: list[Any] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", lambda n: None)
    monkeypatch.setattr(tf.config.threading, "set_inter_op_parallelism_threads", lambda n: None)
    monkeypatch.setattr(tf.config, "set_logical_device_configuration", lambda gpu, given: limits.extend(given))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append(gpu))
    _tensorflow(Plan("cuda", gpu_memory_mb=256))
    assert ([limit.memory_limit for limit in limits], grown) == ([256], [])
    _tensorflow(Plan("cuda"))
    assert (len(limits), grown) == (1, ["gpu"])


# ---- the worker


def test_the_enrichers_find_the_same_on_either_device(model_store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage import data

    names = ("objects", "faces", "safety", "text")
    setup = app.Setup.of(load(flags={"enrichers.enabled": names}, environment={}))
    pulled(model_store, *setup.weights())
    settings = replace(app.inference_settings(setup, cores=2), cache=model_store.cache)
    sheets = [data.astronaut(), data.page(), data.coffee()]
    pictures = [np.repeat(sheet[..., None], 3, 2) if sheet.ndim == 2 else sheet for sheet in sheets]
    monkeypatch.setattr(loading, "resolve_device", lambda device: device)
    monkeypatch.setattr(onnx_runtime, "providers", lambda *_: [(CPU, ARENA)])
    answers = {}
    for device in ("cpu", "cuda"):
        enrichers, given = _load(replace(settings, device=device))
        assert given == device
        for _ in range(3):  # by different sizes while these are measured
            images = [
                Image(n, p, *p.shape[1::-1], Facts("PNG", 1, str(n) * 64, *p.shape[1::-1]), {})
                for n, p in enumerate(pictures)
            ]
            outcomes = {name: enrichers[name].enrich(images) for name in names}
        answers[device] = outcomes
    for name in names:
        for n, (one, other) in enumerate(zip(answers["cpu"][name], answers["cuda"][name], strict=True)):
            assert isinstance(one, Result) and isinstance(other, Result), (name, one, other)
            assert_alike(one.answer, other.answer, f"{name} {n}")
            for face, same in zip(one.faces, other.faces, strict=True):
                assert face.box == pytest.approx(same.box, abs=0.05)
                for model, vector in face.embeddings.items():
                    np.testing.assert_allclose(vector, same.embeddings[model], atol=1e-3)
    assert answers["cuda"]["faces"][0].faces and answers["cuda"]["text"][1].answer["lines"], "there is what to compare"


def assert_alike(one: Any, other: Any, where: str) -> None:
    """The same answer but for the last digits of its numbers."""
    if isinstance(one, Mapping):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_alike(one[key], other[key], f"{where} {key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b, where)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=0.02), where
    else:
        assert one == other, where


@pytest.mark.parametrize(
    ("count", "cores", "device", "lanes"),
    [
        (9, 4, "cpu", 4),
        (1, 4, "cpu", 1),
        (9, 1, "cpu", 1),
        (9, 4, "cuda", 4),
        (1, 4, "cuda", 2),  # one batch is prepared while the other is computed
        (9, 1, "cuda", 2),
    ],
)
def test_lanes(count: int, cores: int, device: str, lanes: int) -> None:
    units = [Unit(str(n), (str(n),), frozenset(), 8) for n in range(count)]
    assert lanes_of(units, cores, device) == lanes


class Meeting(Enricher):
    """Ends a batch only when another one has begun."""

    name = "meeting"
    version = 1
    concurrent = True
    barrier: ClassVar[threading.Barrier] = threading.Barrier(2)

    def load(self, loader: Loader) -> None: ...

    def enrich(self, images: Sequence[Image]) -> Sequence[Result]:
        self.barrier.wait(20)
        return [Result({"met": True}) for _ in images]


def test_two_batches_are_in_flight_on_a_gpu() -> None:
    memory = SharedMemory(create=True, size=4096)
    here, there = Pipe()
    unit = Unit("meeting", ("meeting",), frozenset(), 8, concurrent=True)
    lanes = _Lanes(there, {"meeting": unit}, {"meeting": Meeting({})}, "cuda")
    serving = threading.Thread(target=lanes.serve, args=(lanes_of([unit], 1, "cuda"),), daemon=True)
    try:
        serving.start()
        assert pickle.loads(here.recv_bytes()) == ("ready", {"lanes": 2, "device": "cuda"})
        facts = Facts("PNG", 1, "0" * 64, 2, 2)
        for number in range(2):
            ref = ImageRef(number, PixelsRef(memory.name, 0, 2, 2), 2, 2, facts, ("meeting",))
            here.send_bytes(pickle.dumps((number, ("meeting", [ref]))))
        for _ in range(2):
            assert here.poll(30)
            _, [answers] = pickle.loads(here.recv_bytes())
            assert answers["meeting"].outcome == Result({"met": True})
    finally:
        here.close()
        serving.join(10)
        memory.close()
        memory.unlink()
    assert not serving.is_alive()


def test_the_worker_is_told_what_is_configured(tmp_path: Path) -> None:
    flags = {"enrichers.enabled": ["properties"], "pipeline.gpu_memory_mb": 2000, "pipeline.tensorrt": True}
    settings = app.inference_settings(app.Setup.of(load(flags=flags, environment={})), cores=2)
    assert (settings.gpu_memory_mb, settings.tensorrt) == (2000, True)


# ---- the doctor


def device_finding(monkeypatch: pytest.MonkeyPatch, available: list[str], **flags: Any) -> doctor.Finding:
    monkeypatch.setattr(app, "resolve_device", lambda device: device)
    monkeypatch.setattr(loading, "_providers", lambda: available)
    given = {"enrichers.enabled": ["tags"], "pipeline.device": "cuda", **flags}
    return doctor._device(app.Setup.of(load(flags=given, environment={})))


def test_the_doctor_says_which_models_stay_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = device_finding(monkeypatch, [CUDA, CPU])
    assert (finding.state, finding.message) == ("ok", "models run on cuda, efficientnet_lite3 (LiteRT) on cpu")
    assert device_finding(monkeypatch, [CPU], **{"pipeline.device": "cpu"}).message == "models run on cpu"


def test_the_doctor_misses_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = device_finding(monkeypatch, [CUDA, CPU], **{"pipeline.tensorrt": True})
    assert finding.state == "failed" and finding.remedy is not None and "pipeline.tensorrt" in finding.remedy
    assert device_finding(monkeypatch, AVAILABLE, **{"pipeline.tensorrt": True}).state == "ok"
