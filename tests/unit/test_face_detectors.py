"""The detectors beside CenterFace: YuNet's decoding, dlib's landmarks, and each of them on a real photo."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from enrichers.alignment import residual, similarity, template
from enrichers.catalogue import Catalogue
from enrichers.contract import Result
from enrichers.detection import Detector
from enrichers.dlib_detectors import NOSE_BASE, five_landmarks
from enrichers.errors import ModelUnknown, SettingInvalid
from enrichers.face_detectors import open_detector
from enrichers.faces import Faces
from enrichers.image import Facts, Image
from enrichers.loading import ProcessLoader
from enrichers.weights import ModelStore
from enrichers.yunet import STRIDES, YuNet, decode
from tests.conftest import pulled


def yunet_outputs(n: int, height: int, width: int) -> dict[str, NDArray[np.float32]]:
    shapes = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    return {
        f"{kind}_{s}": np.zeros((n, (height // s) * (width // s), size), np.float32)
        for s in STRIDES
        for kind, size in shapes.items()
    }


def test_yunet_is_decoded_from_the_corner_of_the_cell() -> None:
    outputs = yunet_outputs(2, 64, 96)
    cell = 1 * (96 // 16) + 4  # row 1, column 4 of stride 16
    outputs["cls_16"][1, cell] = 0.81
    outputs["obj_16"][1, cell] = 1.0
    outputs["bbox_16"][1, cell] = [0.5, 0.25, np.log(2), np.log(3)]
    outputs["kps_16"][1, cell] = [0, 0, 1, 0, 0.5, 0.5, 0, 1, 1, 1]
    assert len(decode(outputs, 0, 96, 0.5)) == 0
    found = decode(outputs, 1, 96, 0.5)
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.boxes[0] == pytest.approx([72 - 16, 20 - 24, 32, 48])
    assert found.landmarks[0].tolist() == [[64, 16], [80, 16], [72, 24], [64, 32], [80, 32]]


class OneCell:
    """YuNet's outputs with one face of 32 × 32 in the upper left corner; remembers what it was given."""

    def __init__(self) -> None:
        self.inputs: list[NDArray[Any]] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.inputs.append(inputs["input"])
        n, _, height, width = inputs["input"].shape
        outputs = yunet_outputs(n, height, width)
        outputs["cls_32"][:, 0] = outputs["obj_32"][:, 0] = 0.9
        outputs["bbox_32"][:, 0, :2] = 0.5
        return outputs


def test_yunet_of_a_fixed_size_gets_one_padded_picture_a_call() -> None:
    network = OneCell()
    pictures = [np.full((480, 640, 3), (200, 0, 10), np.uint8), np.zeros((1280, 640, 3), np.uint8)]
    found = YuNet(network, {"size": 640}).detect(pictures, 1280, 0.5)
    assert [i.shape for i in network.inputs] == [(1, 3, 640, 640)] * 2
    assert found[0].boxes[0] == pytest.approx([0, 0, 32, 32])
    assert found[1].boxes[0] == pytest.approx([0, 0, 64, 64])
    first = next(i for i in network.inputs if i.max() > 0)
    assert first[0, :, 0, 0].tolist() == [10, 0, 200]  # blue first
    assert (first[0, :, 480:] == 0).all()


def test_yunet_of_any_size_gets_batches() -> None:
    network = OneCell()
    YuNet(network, {}).detect([np.zeros((480, 640, 3), np.uint8)] * 3, 640, 0.5)
    assert [i.shape for i in network.inputs] == [(3, 3, 480, 640)]


def test_five_landmarks_of_dlibs_corners() -> None:
    """A chip's own eye corners must give the chip's own landmarks."""
    chip = template("dlib", 150)
    (left, right, nose, *_), half = chip, np.array([12, 0])
    corners = np.stack([right + half, right - half, left - half, left + half, NOSE_BASE]).astype(np.float32)
    found = five_landmarks(corners * 2 + [100, 50])
    assert (found - [100, 50]) / 2 == pytest.approx(chip, abs=1.0)
    assert found[2, 1] < corners[4, 1] * 2 + 50  # the tip is above the base
    assert nose[1] < NOSE_BASE[1]


def test_a_model_that_is_no_detector_is_refused_with_those_that_are() -> None:
    catalogue = Catalogue.load()
    with pytest.raises(SettingInvalid, match="centerface"):
        open_detector("open_nsfw", catalogue, None)  # type: ignore[arg-type]
    with pytest.raises(ModelUnknown, match="dlib_hog"):
        open_detector("dlib_hogg", catalogue, None)  # type: ignore[arg-type]


def found_on_the_astronaut(detector: Detector, min_score: float = 0.6, side: int = 640) -> None:
    astronaut = np.ascontiguousarray(data.astronaut()[..., :3])
    nobody = np.ascontiguousarray(data.chelsea())
    one, none = detector.detect([astronaut, nobody], side, min_score)
    assert (len(one), len(none)) == (1, 0)
    x, y, w, h = one.boxes[0]
    assert 150 < x < x + w < 300
    assert 30 < y < y + h < 230
    landmarks = one.landmarks[0]
    target = template("dlib", 150)
    assert residual(landmarks, target, similarity(landmarks, target)) < 6
    assert landmarks[0] == pytest.approx([202, 107], abs=8)
    assert landmarks[1] == pytest.approx([246, 107], abs=8)


@pytest.mark.parametrize("name", ["centerface", "dlib_hog", "dlib_cnn"])
def test_detectors_of_the_catalogue_find_the_astronaut(model_store: ModelStore, name: str) -> None:
    pulled(model_store, name)
    if name.startswith("dlib"):
        pytest.importorskip("dlib", reason="dlib is not installed, the extra `dlib` brings it")
    side = 256 if name == "dlib_cnn" else 640  # it takes seconds at full size
    found_on_the_astronaut(open_detector(name, model_store.catalogue, ProcessLoader(model_store, "cpu", 1)), side=side)


@pytest.mark.parametrize(("file", "options"), [("yunet_s_dynamic.onnx", {}), ("yunet_s_640_640.onnx", {"size": 640})])
def test_yunet_finds_the_astronaut(eval_models: Path, tmp_path: Path, file: str, options: dict[str, Any]) -> None:
    entry = {"task": "faces", "form": "yunet", "runtime": "onnx", "provider": "file", "path": str(eval_models / file)}
    catalogue = Catalogue.load({"yunet": {**entry, "options": options}})
    loader = ProcessLoader(ModelStore(tmp_path, catalogue), "cpu", 1)
    found_on_the_astronaut(open_detector("yunet", catalogue, loader))


def test_another_detector_changes_the_fingerprint_and_the_model(model_store: ModelStore) -> None:
    default, other = Faces(dict(Faces.defaults)), Faces({**Faces.defaults, "detector": "dlib_hog"})
    assert default.fingerprint({}) != other.fingerprint({})
    assert other.model == "dlib_hog+dlib"
    assert "dlib_shape_5" in {w.name for w in other.weights()}


def test_the_whole_enricher_with_another_detector(model_store: ModelStore) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed, the extra `dlib` brings it")
    enricher = Faces({**Faces.defaults, "detector": "dlib_hog", "age": "", "gender": "", "emotion": ""})
    default = Faces({**Faces.defaults, "age": "", "gender": "", "emotion": ""})
    pulled(model_store, *(w.name for e in (enricher, default) for w in e.weights()))
    pixels = np.ascontiguousarray(data.astronaut()[..., :3])
    vectors = []
    for each in (enricher, default):
        each.load(ProcessLoader(model_store, "cpu", 1))
        (result,) = each.enrich([Image(0, pixels, 512, 512, Facts("PNG", 1, "0" * 64, 512, 512))])
        assert isinstance(result, Result)
        vectors.append(result.faces[0].embeddings["dlib"])
    a, b = vectors
    assert float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) > 0.95  # landmarks of two models, one vector
