"""DeepFace's models behind enrichd's interface: on a stand-in of the package, and on the package where it is there."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from enrichers.catalogue import Catalogue
from enrichers.embedding import Preparation
from enrichers.errors import ModelCorrupt, ModelMissing, SettingInvalid
from enrichers.runtimes import Plan, open_graph

PLAN = Plan(options={"model": "Tiny"})


class Tiny:
    """A model as DeepFace makes them: it asks for its weights by name, and takes a batch of (5, 3) pixels."""

    input_shape = (3, 5)

    def __init__(self) -> None:
        from deepface.commons import weight_utils

        file = weight_utils.download_weights_if_necessary(file_name="tiny.onnx", source_url="https://nowhere")
        self.factor = float(Path(file).read_text())

    def forward(self, batch: Any) -> Any:
        assert batch.shape[1:] == (5, 3, 3)
        means = (batch.mean(axis=(1, 2)) * self.factor).tolist()
        return means[0] if len(means) == 1 else means  # as DeepFace does


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The modules of DeepFace that the runtime uses, with one model; fetching weights fails."""

    def refuse(**_: Any) -> str:
        raise AssertionError("weights are fetched")

    def resized(chip: Any, size: tuple[int, int]) -> Any:
        import cv2

        return cv2.resize(np.ascontiguousarray(chip), (size[1], size[0]))[None].astype(np.float32) / 255

    contents: dict[str, dict[str, Any]] = {
        "deepface": {},
        "deepface.commons": {},
        "deepface.commons.weight_utils": {"download_weights_if_necessary": refuse},
        "deepface.commons.backend_utils": {"get_backend_engine": lambda: "onnx"},
        "deepface.modules": {},
        "deepface.modules.modeling": {
            "AVAILABLE_MODELS": {"facial_recognition": {"Tiny": {}}},
            "get_model_class": lambda task, name: Tiny,
        },
        "deepface.modules.preprocessing": {"resize_image": resized},
    }
    modules = {name: ModuleType(name) for name in contents}
    for name, values in contents.items():
        vars(modules[name]).update(values)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, modules[name])
        monkeypatch.setitem(sys.modules, name, modules[name])
    monkeypatch.setenv("DEEPFACE_BACKEND_ENGINE", "onnx")
    yield modules
    with pytest.raises(AssertionError):  # its own way of fetching is back in place
        modules["deepface.commons.weight_utils"].download_weights_if_necessary()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "abc-tiny.onnx"
    path.write_text("2.0")
    return path


@pytest.mark.parametrize("count", [1, 3])
def test_batches_of_chips_blue_first(package: Any, weights: Path, count: int) -> None:
    network = open_graph("deepface", weights, PLAN)
    assert network.inputs == ("chips",)
    chips = np.zeros((count, 20, 20, 3), np.uint8)
    chips[..., 0] = 255  # red
    chips[0, ..., 2] = 51  # and some blue in the first
    vectors = network.run({"chips": chips})["embeddings"]
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(np.array([[0.4, 0, 2.0], [0, 0, 2.0], [0, 0, 2.0]][:count]))


def test_a_model_that_it_has_not_is_said(package: Any, weights: Path) -> None:
    with pytest.raises(SettingInvalid, match="Tiny"):
        open_graph("deepface", weights, Plan(options={"model": "Tinny"}))


def test_one_engine_a_process(package: Any, tmp_path: Path) -> None:
    (tmp_path / "tiny.h5").write_text("2.0")
    with pytest.raises(SettingInvalid, match=r"needs DeepFace's engine tensorflow, and this process runs onnx"):
        open_graph("deepface", tmp_path / "tiny.h5", PLAN)
    with pytest.raises(SettingInvalid, match="no weights file"):
        open_graph("deepface", tmp_path / "tiny.bin", PLAN)


def test_another_file_is_corrupt(package: Any, weights: Path) -> None:
    weights.write_text("no number")
    with pytest.raises(ModelCorrupt):
        open_graph("deepface", weights, PLAN)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    monkeypatch.setitem(sys.modules, "deepface", None)
    monkeypatch.setitem(sys.modules, "deepface.commons", None)
    monkeypatch.setenv("DEEPFACE_BACKEND_ENGINE", "onnx")
    with pytest.raises(ModelMissing, match="extra `deepface`"):
        open_graph("deepface", weights, PLAN)


def test_every_model_that_deepface_offers_is_in_the_catalogue() -> None:
    catalogue = {entry.name: entry for entry in Catalogue.load()}
    for model, name in OFFERED.items():
        assert catalogue[name].task == "embedding", model
        Preparation.parse(name, catalogue[name].options)
    if importlib.util.find_spec("deepface"):
        from deepface.modules.modeling import AVAILABLE_MODELS

        assert set(OFFERED) == set(AVAILABLE_MODELS["facial_recognition"])


#: DeepFace's names of its models → those of the catalogue's entries
OFFERED = {
    "VGG-Face": "vgg_face",
    "OpenFace": "openface",
    "Facenet": "facenet",
    "Facenet512": "facenet512",
    "DeepFace": "fb_deepface",
    "DeepID": "deepid",
    "Dlib": "dlib",
    "ArcFace": "arcface",
    "SFace": "sface",
    "GhostFaceNet": "ghostfacenet",
    "Buffalo_L": "insightface_buffalo_l",
}


def test_the_real_package_runs_a_graph_of_deepids_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deepface", reason="deepface is not installed, the extra `deepface` brings it")
    import onnx
    from onnx import TensorProto, helper

    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0)],
        "deepid",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 55, 47, 3])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["n", 3])],
    )
    path = tmp_path / "deepid_weights.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), str(path))
    network = open_graph("deepface", path, Plan(options={"model": "DeepID"}))
    chips = np.zeros((2, 110, 110, 3), np.uint8)
    chips[1, ..., 0] = 255
    vectors = network.run({"chips": chips})["embeddings"]
    assert vectors[0] == pytest.approx([0, 0, 0])
    assert vectors[1] == pytest.approx([0, 0, 47 / 55])  # a square in a black frame, red last
