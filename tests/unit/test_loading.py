"""The loader of a process: one network whoever asks, on the device that was asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enrichers import loading
from enrichers.catalogue import Catalogue
from enrichers.errors import DeviceUnavailable, ModelCorrupt, ModelMissing, SettingInvalid
from enrichers.loading import ProcessLoader, resolve_device
from enrichers.weights import ModelStore
from tests.unit.test_runtimes import FACTOR, onnx_graph


def double(source: Path, target: Path) -> None:
    """A builder: the same graph with another factor."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(source))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(2 * FACTOR), "factor"))
    onnx.save(model, str(target))


def loader_of(tmp_path: Path, **changes: Any) -> ProcessLoader:
    entry = {"task": "objects", "runtime": "onnx", "provider": "file", "path": str(onnx_graph(tmp_path)), **changes}
    return ProcessLoader(ModelStore(tmp_path / "cache", Catalogue.load({"tiny": entry})), "cpu", 1)


def test_a_network_is_loaded_once(tmp_path: Path) -> None:
    loader = loader_of(tmp_path)
    assert loader.network("tiny") is loader.network("tiny")
    image = np.ones((2, 2, 2, 3), np.float32)
    np.testing.assert_allclose(loader.network("tiny").run({"image": image})["score"], FACTOR)


def test_what_is_derived_is_what_runs(tmp_path: Path) -> None:
    loader = loader_of(tmp_path, derive=f"{__name__}:double")
    image = np.ones((1, 2, 2, 3), np.float32)
    np.testing.assert_allclose(loader.network("tiny").run({"image": image})["score"], 2 * FACTOR)


@pytest.mark.parametrize("reference", ["enrichers.nowhere:build", "enrichers.loading:nothing", "nonsense"])
def test_a_builder_that_is_not_there_is_named(tmp_path: Path, reference: str) -> None:
    with pytest.raises(SettingInvalid, match=reference):
        loader_of(tmp_path, derive=reference).network("tiny")


def test_tensors_can_be_renamed_by_the_catalogue(tmp_path: Path) -> None:
    loader = loader_of(tmp_path, options={"inputs": {"photo": "image"}, "outputs": {"answer": "score"}})
    assert list(loader.network("tiny").run({"photo": np.ones((1, 2, 2, 3), np.float32)})) == ["answer"]


def test_weights_that_changed_are_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt):
        loader_of(tmp_path, sha256="0" * 64).network("tiny")


def test_weights_that_are_not_there_are_missing(tmp_path: Path) -> None:
    loader = loader_of(tmp_path)
    (tmp_path / "tiny.onnx").unlink()
    with pytest.raises(ModelMissing):
        loader.network("tiny")


@pytest.mark.parametrize(
    ("asked", "gpus", "runtime", "resolved"),
    [
        ("cpu", 1, True, "cpu"),
        ("auto", 1, True, "cuda"),
        ("auto", 0, True, "cpu"),
        ("auto", 1, False, "cpu"),  # a GPU, and nothing installed that could use it
        ("cuda", 1, True, "cuda"),
        ("cuda", 0, True, None),
        ("cuda", 1, False, None),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, asked: str, gpus: int, runtime: bool, resolved: str | None) -> None:
    monkeypatch.setattr(loading, "_gpus", lambda: gpus)
    monkeypatch.setattr(loading, "_onnxruntime_has_cuda", lambda: runtime)
    if resolved is None:
        with pytest.raises(DeviceUnavailable, match='device = "cpu"'):
            resolve_device(asked)
    else:
        assert resolve_device(asked) == resolved


def test_another_device_is_invalid() -> None:
    with pytest.raises(SettingInvalid, match="tpu"):
        resolve_device("tpu")
