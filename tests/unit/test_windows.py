"""Windows cover a picture with overlap; boxes that a window cuts are dropped, doubles merged."""

import numpy as np
import pytest

from enrichers.windows import OVERLAP, Boxes, Window, distinct, grid


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Boxes:
    """Rows of left, top, right, bottom, score, class."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Boxes(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (2, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize(("width", "height"), [(97, 101), (640, 480), (3, 2), (1, 1)])  # down to a single pixel
def test_windows_cover_the_picture_and_are_never_empty(columns: int, rows: int, width: int, height: int) -> None:
    windows = grid(columns, rows, width, height)
    assert len(windows) == columns * rows
    shown = np.zeros((height, width, 3), np.uint8)
    for window in windows:
        assert window.cut(shown).size
        window.cut(shown)[:] += 1
    assert shown.min() >= 1


def test_neighbours_share_a_part_of_their_side() -> None:
    first, second = grid(2, 1, 700, 100)
    assert first.right - second.left == pytest.approx(OVERLAP * (first.right - first.left), abs=1)


@pytest.mark.parametrize(
    ("corners", "kept"),
    [
        ((0.1, 0.1, 0.9, 0.9), True),
        ((0.0, 0.1, 0.9, 0.9), True),  # the left border is the picture's own
        ((0.1, 0.0, 0.9, 0.9), True),  # and the upper one
        ((0.1, 0.1, 1.0, 0.9), False),  # the right border cuts it
        ((0.1, 0.1, 0.9, 0.995), False),  # as near to the lower border as the network can tell
    ],
)
def test_boxes_cut_by_a_windows_border_are_dropped(corners: tuple[float, ...], kept: bool) -> None:
    upper_left = Window(0, 0, 50, 50)
    assert len(upper_left.whole(boxes((*corners, 0.9, 1)), 100, 100)) == kept


def test_boxes_of_a_window_become_shares_of_the_picture() -> None:
    found = Window(100, 25, 200, 75).whole(boxes((0.2, 0.4, 0.6, 0.8, 0.9, 1)), 200, 100)
    np.testing.assert_allclose(found.corners, [[0.6, 0.45, 0.8, 0.65]], rtol=1e-6)


def test_the_whole_picture_cuts_nothing() -> None:
    assert len(Window(0, 0, 20, 10).whole(boxes((0, 0, 1, 1, 0.9, 1)), 20, 10)) == 1


def test_the_better_of_two_boxes_of_one_object_stays() -> None:
    found = distinct(boxes((0.1, 0.1, 0.5, 0.5, 0.6, 1), (0.1, 0.1, 0.51, 0.5, 0.8, 1)))
    np.testing.assert_allclose(found.scores, [0.8])


@pytest.mark.parametrize(
    ("second", "left"),
    [
        ((0.1, 0.1, 0.5, 0.5, 0.8, 2), 2),  # another class at the same place
        ((0.4, 0.1, 0.8, 0.5, 0.8, 1), 2),  # a neighbour of the same class
        ((0.12, 0.1, 0.5, 0.5, 0.8, 1), 1),
    ],
)
def test_only_doubles_of_one_class_are_merged(second: tuple[float, ...], left: int) -> None:
    assert len(distinct(boxes((0.1, 0.1, 0.5, 0.5, 0.6, 1), second))) == left  # type: ignore[arg-type]


def test_the_best_come_first() -> None:
    found = distinct(boxes((0, 0, 0.1, 0.1, 0.5, 1), (0.5, 0.5, 0.6, 0.6, 0.9, 1), (0.8, 0, 0.9, 0.1, 0.7, 1)))
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.5])


def test_nothing_found_stays_nothing() -> None:
    assert len(distinct(boxes())) == 0
