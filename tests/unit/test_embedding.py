"""How each embedding model gets its faces, and what is made of its vectors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from enrichers.detection import Detections
from enrichers.embedding import CHIPS_A_CALL, VIEWS, Embedder, Preparation
from enrichers.errors import SettingInvalid
from enrichers.image import Pixels


def chips(n: int = 2, size: int = 4) -> list[Pixels]:
    return list(np.random.default_rng(0).integers(0, 256, (n, size, size, 3)).astype(np.uint8))


def test_tensor_as_dlib_wants_it() -> None:
    tensor = Preparation(size=4, layout="nhwc", dtype="uint8").tensor(chips())
    assert tensor.dtype == np.uint8
    assert (tensor == np.stack(chips())).all()


def test_tensor_with_imagenet_normalisation() -> None:
    mean, deviation = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    tensor = Preparation(size=4, mean=mean, deviation=deviation).tensor(chips())
    assert tensor.shape == (2, 3, 4, 4)
    assert tensor[1, 2, 3, 0] == pytest.approx((chips()[1][3, 0, 2] - 103.53) / 57.375)


def test_tensor_between_minus_one_and_one_blue_first() -> None:
    tensor = Preparation(size=4, colour="bgr", mean=(127.5,) * 3, deviation=(127.5,) * 3).tensor(chips())
    assert tensor[0, 0, 1, 2] == pytest.approx(chips()[0][1, 2, 2] / 127.5 - 1)
    assert np.abs(tensor).max() <= 1


def test_tensor_prewhitened_as_facenet_wants_it() -> None:
    tensor = Preparation(size=4, prewhiten=True, layout="nhwc").tensor([*chips(), np.full((4, 4, 3), 7, np.uint8)])
    for row in tensor[:2]:
        assert (row.mean(), row.std()) == pytest.approx((0, 1), abs=1e-5)
    assert (tensor[2] == 0).all()  # an even chip has no deviation to divide by


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "size"),
        ({"size": 112, "aling": "arcface"}, "aling"),
        ({"size": 112, "align": "eyes"}, "eyes"),
        ({"size": 112, "layout": "hwc"}, "hwc"),
    ],
)
def test_wrong_options_are_named(options: Mapping[str, Any], named: str) -> None:
    with pytest.raises(SettingInvalid, match=f"mine.*{named}"):
        Preparation.parse("mine", options)


def test_options_of_a_catalogue_entry() -> None:
    options = {"size": 112, "mean": [1, 2, 3], "inputs": {"chips": "x"}, "outputs": {"embeddings": "y"}}
    assert Preparation.parse("mine", options) == Preparation(size=112, mean=(1, 2, 3))


class Sums:
    """A network whose vectors are the sums of a chip's left and right half."""

    inputs = ("chips",)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        batch = inputs["chips"].astype(np.float32)
        self.batches.append(len(batch))
        half = batch.shape[2] // 2
        return {"embeddings": np.stack([batch[:, :, :half].sum((1, 2, 3)), batch[:, :, half:].sum((1, 2, 3))], axis=1)}


def faces(n: int) -> Detections:
    boxes = np.array([[10 * i, 5 * i, 40, 40] for i in range(n)], np.float32)
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    return Detections(boxes, np.ones(n, np.float32), boxes[:, None, :2] + points * 40)


def test_a_mirrored_view_makes_the_vector_blind_to_left_and_right() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    preparation = Preparation(size=150, align="dlib", layout="nhwc", dtype="uint8")
    plain = Embedder("m", Sums(), preparation, VIEWS["plain"])
    mirror = Embedder("m", Sums(), preparation, VIEWS["mirror"])
    (one,) = plain.embed(plain.chips(picture, faces(1)))
    (both,) = mirror.embed(mirror.chips(picture, faces(1)))
    assert one[0] != one[1]
    assert both.tolist() == pytest.approx([one.mean(), one.mean()])
    assert both.dtype == np.float32


@pytest.mark.parametrize("views", sorted(VIEWS))
def test_faces_are_run_in_batches_and_keep_their_order(views: str) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (600, 600, 3)).astype(np.uint8)
    network = Sums()
    embedder = Embedder("m", network, Preparation(size=32, align="box", layout="nhwc", dtype="uint8"), VIEWS[views])
    together = embedder.embed(embedder.chips(picture, faces(40)))
    assert len(together) == 40
    assert max(network.batches) <= CHIPS_A_CALL
    alone = embedder.embed(embedder.chips(picture, faces(40).chosen(np.array([17]))))
    assert together[17] == pytest.approx(alone[0])


def test_no_faces_cost_no_call() -> None:
    network = Sums()
    embedder = Embedder("m", network, Preparation(size=32), VIEWS["plain"])
    assert embedder.embed(embedder.chips(np.zeros((9, 9, 3), np.uint8), Detections.none())) == []
    assert network.batches == []
