"""What detectors share: suppression, canvases, coordinates."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from enrichers.detection import (
    Detections,
    canvas_size,
    grouped_canvases,
    intersection_over_union,
    keep_best,
    looked_at_again,
)
from enrichers.image import Pixels


def detections(*boxes: tuple[float, float, float, float, float]) -> Detections:
    array = np.array(boxes, np.float32).reshape(-1, 5)
    middles = array[:, :2] + array[:, 2:4] / 2
    return Detections(array[:, :4], array[:, 4], np.repeat(middles[:, None], 5, axis=1))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 0, 10, 10), 1.0),
        ((5, 0, 10, 10), 1 / 3),
        ((10, 0, 10, 10), 0.0),  # only touching
        ((2, 2, 5, 5), 0.25),  # wholly inside
        ((0, 0, 0, 0), 0.0),  # empty
    ],
)
def test_intersection_over_union(other: tuple[float, ...], expected: float) -> None:
    box = np.array([0, 0, 10, 10], np.float32)
    assert intersection_over_union(box, np.array([other], np.float32))[0] == pytest.approx(expected)


def test_suppression_keeps_the_better_of_two_that_overlap() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [30, 0, 10, 10]], np.float32)
    assert keep_best(boxes, np.array([0.6, 0.9, 0.7], np.float32), 0.3).tolist() == [1, 2]
    assert keep_best(boxes, np.array([0.6, 0.9, 0.7], np.float32), 0.95).tolist() == [1, 2, 0]


def test_suppressing_nothing_gives_nothing() -> None:
    assert len(Detections.none().suppressed(0.3)) == 0


def test_joined_is_sorted_by_score() -> None:
    joined = Detections.joined([detections((0, 0, 5, 5, 0.4)), detections((9, 9, 5, 5, 0.8)), Detections.none()])
    assert joined.scores.tolist() == pytest.approx([0.8, 0.4])
    assert joined.boxes[0].tolist() == [9, 9, 5, 5]
    assert len(Detections.joined([])) == 0


def test_scaled_and_moved_take_boxes_and_landmarks_along() -> None:
    there = detections((10, 20, 30, 40, 0.5)).scaled(2, 3).moved(100, 1000)
    assert there.boxes[0].tolist() == [120, 1060, 60, 120]
    assert there.landmarks[0, 0].tolist() == [150, 1120]


@pytest.mark.parametrize(
    ("size", "side", "fitted", "canvas"),
    [
        ((640, 480), 640, (640, 480), (640, 480)),
        ((4000, 3000), 640, (640, 480), (640, 480)),
        ((250, 250), 640, (250, 250), (256, 256)),  # never enlarged
        ((1, 5000), 640, (1, 640), (32, 640)),  # a line
        ((641, 479), 640, (640, 478), (640, 480)),
    ],
)
def test_canvas_size(size: tuple[int, int], side: int, fitted: tuple[int, int], canvas: tuple[int, int]) -> None:
    assert canvas_size(*size, side) == (fitted, canvas)


def test_grouped_canvases_put_pictures_of_one_size_together() -> None:
    pictures = [
        np.full((h, w, 3), i + 1, np.uint8) for i, (h, w) in enumerate([(60, 64), (64, 64), (128, 64), (64, 64)])
    ]
    groups = grouped_canvases(pictures, 64, pixels=2 * 64 * 64)
    assert sorted(index for members, _, _ in groups for index in members) == [0, 1, 2, 3]
    for indices, canvases, factors in groups:
        assert canvases.shape[0] == len(indices) <= 2
        for row, index in enumerate(indices):
            assert canvases[row, 0, 0, 0] == index + 1
            assert factors[row][1] == pytest.approx(2 if index == 2 else 1)
    first = next(c[m.index(0)] for m, c, _ in groups if 0 in m)
    assert (first[60:] == 0).all()  # black below the picture


class Middle:
    """Finds a face of half the size in the middle of every cut, unless `hidden` says that it sees none."""

    looks_again = True

    def __init__(self, hidden: Callable[[Pixels], bool]) -> None:
        self.hidden = hidden
        self.cuts: list[Pixels] = []

    def detect(self, pictures: Sequence[Pixels], side: int, min_score: float) -> list[Detections]:
        self.cuts += pictures
        face = detections((32, 32, 64, 64, 0.9))
        return [Detections.none() if self.hidden(picture) else face for picture in pictures]


def test_a_second_look_maps_what_it_sees_back_into_the_picture() -> None:
    picture = np.full((400, 600, 3), 90, np.uint8)
    candidates = detections((300, 100, 50, 80, 0.4), (100, 200, 40, 40, 0.6))
    (found,) = looked_at_again(Middle(lambda cut: False), [picture], [candidates], 0.5)
    assert found.scores.tolist() == pytest.approx([0.9, 0.9])
    assert found.boxes.tolist() == candidates.boxes.tolist()
    assert found.landmarks[0, 0] == pytest.approx([325, 140])
    assert found.landmarks[1, 0] == pytest.approx([120, 220])


def test_a_face_at_the_edge_is_tried_on_black_only_where_it_is_hidden() -> None:
    picture = np.full((100, 100, 3), 90, np.uint8)
    nearly_all = detections((5, 5, 90, 90, 0.8))
    edge_goes_on = Middle(lambda cut: bool((cut == 90).all()))
    (found,) = looked_at_again(edge_goes_on, [picture], [nearly_all], 0.5)
    assert len(found) == 1
    assert len(edge_goes_on.cuts) == 2
    assert edge_goes_on.cuts[1][0, 0].tolist() == [0, 0, 0]
    inner = Middle(lambda cut: True)
    (none,) = looked_at_again(inner, [picture], [detections((40, 40, 20, 20, 0.8))], 0.5)
    assert len(none) == 0
    assert len(inner.cuts) == 1  # nothing beyond the picture was in the cut
