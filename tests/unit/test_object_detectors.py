"""Every form of object detector, each on a tiny graph of that form: what it feeds and how it reads the answer."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enrichers import coco
from enrichers.catalogue import Catalogue
from enrichers.errors import ModelCorrupt, SettingInvalid
from enrichers.loading import ProcessLoader
from enrichers.object_detectors import ObjectDetector, open_detector
from enrichers.weights import ModelStore
from enrichers.windows import Boxes

#: a red picture, twice as wide as high: what the graphs see of it tells colour order, range and shape apart
RED = np.zeros((40, 80, 3), np.uint8)
RED[..., 0] = 255

#: where every graph says that it sees a dog, as left, top, right, bottom shares of the picture
DOG = (0.25, 0.25, 0.75, 0.75)


def detector(path: Path, form: str, runtime: str, tmp_path: Path, **options: Any) -> ObjectDetector:
    entry = {"task": "objects", "runtime": runtime, "provider": "file", "path": str(path), "form": form}
    catalogue = Catalogue.load({"tiny": {**entry, "options": options}})
    loader = ProcessLoader(ModelStore(tmp_path / "cache", catalogue), "cpu", 1)
    return open_detector(catalogue.entry("tiny"), loader)


def onnx_model(folder: Path, shape: list[Any], nodes: list[Any], constants: dict[str, Any]) -> Path:
    """An ONNX file from `images` to `output`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = folder / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), str(path))
    return path


def yolox_graph(folder: Path, size: int = 64) -> Path:
    """One box in the first cell of stride 8; its score is the brightest value of the third channel, as a share of
    255. The picture is 64 × 32 in the upper left of the input."""
    from onnx import helper

    cells = sum((size // stride) ** 2 for stride in (8, 16, 32))
    raw = np.zeros((1, cells, 85), np.float32)
    left, top, right, bottom = DOG[0] * 64, DOG[1] * 32, DOG[2] * 64, DOG[3] * 32
    centre, sizes = np.array([(left + right) / 2, (top + bottom) / 2]), np.array([right - left, bottom - top])
    raw[0, 0, :4] = [*(centre / 8), *np.log(sizes / 8)]
    raw[0, 0, 4] = 1
    raw[0, 0, 5 + coco.NAMES.index("dog")] = 1 / 255
    factor = np.zeros((1, cells, 85), np.float32)
    factor[0, 0, 5:] = 1
    nodes = [
        helper.make_node("Gather", ["images", "third"], ["red"], axis=1),
        helper.make_node("ReduceMax", ["red"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "factor"], ["score"]),
        helper.make_node("Add", ["score", "rest"], ["scale"]),
        helper.make_node("Mul", ["raw", "scale"], ["output"]),
    ]
    constants = {"third": np.array([2]), "factor": factor, "rest": 1 - factor, "raw": raw}
    return onnx_model(folder, [1, 3, size, size], nodes, constants)


def yolo_graph(folder: Path, size: int = 64) -> Path:
    """One box; its score is the brightest value of the first channel. The picture is 64 × 32 in the middle."""
    from onnx import helper

    raw = np.zeros((1, 84, 3), np.float32)
    left, top, right, bottom = DOG[0] * 64, 16 + DOG[1] * 32, DOG[2] * 64, 16 + DOG[3] * 32
    raw[0, :4, 1] = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    raw[0, 4 + coco.NAMES.index("dog"), 1] = 1
    factor = np.zeros((1, 84, 3), np.float32)
    factor[0, 4:] = 1
    nodes = [
        helper.make_node("Gather", ["images", "first"], ["red"], axis=1),
        helper.make_node("ReduceMax", ["red"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "factor"], ["score"]),
        helper.make_node("Add", ["score", "rest"], ["scale"]),
        helper.make_node("Mul", ["raw", "scale"], ["output"]),
    ]
    constants = {"first": np.array([0]), "factor": factor, "rest": 1 - factor, "raw": raw}
    return onnx_model(folder, [1, 3, size, size], nodes, constants)


def ssd_graph(folder: Path) -> Path:
    """A frozen graph with two anchors, the first of which is the dog; its score is the mean of the first channel."""
    import tensorflow as tf

    boxes = np.array([[DOG[1], DOG[0], DOG[3], DOG[2]], [0, 0, 1, 1]], np.float32)
    scores = np.zeros((2, 90), np.float32)
    scores[0, 17] = 1 / 255  # dog is 18 in COCO's annotations, counted from 1
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, [None, 30, 30, 3], name="image")
        red = tf.reduce_mean(image[..., 0], [1, 2])
        tf.multiply(red[:, None, None], scores[None], name="scores")
        tf.tile(tf.constant(boxes)[None], [tf.shape(image)[0], 1, 1], name="boxes")
    path = folder / "tiny.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def tf_detection_model(folder: Path) -> Path:
    """A SavedModel as the TensorFlow Object Detection API exports them: 3 places for boxes, 1 of them used."""
    import tensorflow as tf

    class Tiny(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8, name="input_tensor")])
        def __call__(self, input_tensor: Any) -> dict[str, Any]:
            red = tf.reduce_mean(tf.cast(input_tensor[..., 0], tf.float32)) / 255
            box = tf.constant([[DOG[1], DOG[0], DOG[3], DOG[2]], [0, 0, 1, 1], [0, 0, 1, 1]], tf.float32)
            return {
                "detection_boxes": box[None],
                "detection_scores": red * tf.constant([[1.0, 0.9, 0.9]]),
                "detection_classes": tf.constant([[18.0, 1.0, 1.0]]),
                "num_detections": tf.constant([1.0]),
            }

    model = Tiny()
    path = folder / "saved_model"
    tf.saved_model.save(model, str(path), signatures=model.__call__)
    return path


def yolov4_model(folder: Path) -> Path:
    """A SavedModel of the TensorFlow port: shares, top first, and scores in one tensor."""
    import tensorflow as tf

    scores = np.zeros((1, 1, 80), np.float32)
    scores[0, 0, coco.NAMES.index("dog")] = 1
    box = np.array([[[DOG[1], DOG[0], DOG[3], DOG[2]]]], np.float32)

    class Tiny(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 64, 64, 3], tf.float32, name="input_1")])
        def __call__(self, input_1: Any) -> dict[str, Any]:
            red = tf.reduce_mean(input_1[..., 0])
            return {"tf_op_layer_concat_18": tf.concat([tf.constant(box), red * tf.constant(scores)], -1)}

    model = Tiny()
    path = folder / "yolov4"
    tf.saved_model.save(model, str(path), signatures=model.__call__)
    return path


def yolov4_lite(folder: Path) -> Path:
    """A TensorFlow Lite file of the TensorFlow port: pixels of the input around centres, and scores, in two tensors."""
    import tensorflow as tf

    scores = np.zeros((1, 1, 80), np.float32)
    scores[0, 0, coco.NAMES.index("dog")] = 1
    left, top, right, bottom = (share * 64 for share in DOG)
    box = np.array([[[(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]]], np.float32)

    @tf.function(input_signature=[tf.TensorSpec([1, 64, 64, 3], tf.float32, name="input_1")])
    def tiny(input_1: Any) -> tuple[Any, Any]:
        red = tf.reduce_mean(input_1[..., 0])
        return red * tf.constant(scores), red * tf.constant(box)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([tiny.get_concrete_function()])
    path = folder / "yolov4.tflite"
    path.write_bytes(converter.convert())
    return path


FORMS: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    "ssd": (
        ssd_graph,
        "ssd",
        "tensorflow",
        {
            "size": 30,
            "names": "coco90",
            "inputs": {"image": "image"},
            "outputs": {"boxes": "boxes", "scores": "scores"},
        },
    ),
    "tf_detection": (tf_detection_model, "tf_detection", "tensorflow", {"names": "coco90"}),
    "yolox": (yolox_graph, "yolox", "onnx", {"size": 64}),
    "yolov4": (yolov4_model, "yolov4", "tensorflow", {"size": 64}),
    "yolov4_lite": (yolov4_lite, "yolov4", "litert", {"size": 64}),
    "yolo": (yolo_graph, "yolo", "onnx", {"size": 64}),
}


def check_dogs(found: list[Boxes], names: Any) -> None:
    for boxes in found:
        assert [names[number] for number in boxes.classes] == ["dog"]
        np.testing.assert_allclose(boxes.corners, [DOG], atol=0.01)
        np.testing.assert_allclose(boxes.scores, [1.0], atol=0.01)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_finds_the_dog_where_it_is(form: str, tmp_path: Path) -> None:
    build, kind, runtime, options = FORMS[form]
    opened = detector(build(tmp_path), kind, runtime, tmp_path, **options)
    found = opened.detect([RED, RED, RED], 0.5)  # more than one picture, however many a call takes
    assert len(found) == 3
    check_dogs(found, opened.names)
    assert len(opened.detect([RED[..., ::-1]], 0.5)[0]) == 0  # a blue picture: the colours are in the right order


def test_no_pictures_give_no_answers(tmp_path: Path) -> None:
    assert detector(yolox_graph(tmp_path), "yolox", "onnx", tmp_path, size=64).detect([], 0.5) == []


def test_a_graph_of_another_size_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="80 rows"):
        detector(yolox_graph(tmp_path), "yolox", "onnx", tmp_path, size=64, strides=[8, 16])


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("yoloxx", {}, "did you mean 'yolox'"),
        ("yolox", {"sise": 64}, "did you mean 'size'"),
        ("yolox", {"size": 64, "names": "coco8"}, "did you mean 'coco80'"),
    ],
)
def test_a_wrong_entry_is_named(form: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match=message):
        detector(yolox_graph(tmp_path), form, "onnx", tmp_path, **options)


def test_classes_can_be_named_by_the_entry(tmp_path: Path) -> None:
    names = [f"thing {number}" for number in range(80)]
    opened = detector(yolox_graph(tmp_path), "yolox", "onnx", tmp_path, size=64, names=names)
    (boxes,) = opened.detect([RED], 0.5)
    assert [opened.names[n] for n in boxes.classes] == [f"thing {coco.NAMES.index('dog')}"]


def test_coco_has_80_names() -> None:
    assert len(coco.NAMES) == len(set(coco.NAMES)) == 80
    assert coco.SPARSE_NAMES[17] == "dog"
    assert coco.SPARSE_NAMES.count(None) == 10


def test_yolox_nano_finds_what_a_photo_shows(tmp_path: Path) -> None:
    folder = os.environ.get("ENRICHD_EVAL_MODELS")
    if folder is None:
        pytest.skip("ENRICHD_EVAL_MODELS is not set: no folder with yolox_nano.onnx")
    from skimage import data

    opened = detector(Path(folder) / "yolox_nano.onnx", "yolox", "onnx", tmp_path, size=416)
    cat, coffee = opened.detect([data.chelsea(), data.coffee()], 0.4)
    assert "cat" in {opened.names[number] for number in cat.classes}
    assert "cup" in {opened.names[number] for number in coffee.classes}
