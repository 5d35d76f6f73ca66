"""Aligned chips: the similarity is the one asked for, and the pixels are those under it."""

import numpy as np
import pytest

from enrichers.alignment import TEMPLATES, box_matrix, chip, residual, similarity, template


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"),
    [
        (0.0, 1.0, (0.0, 0.0)),
        (30.0, 2.0, (100.0, -40.0)),
        (-170.0, 0.25, (5.0, 5.0)),  # nearly upside down
    ],
)
def test_similarity_undoes_a_known_one(degrees: float, scale: float, shift: tuple[float, float]) -> None:
    target = template("dlib", 150)
    angle = np.radians(degrees)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = target @ rotation.T + shift
    matrix = similarity(points, target)
    assert points @ matrix[:, :2].T + matrix[:, 2] == pytest.approx(target, abs=1e-6)
    assert residual(points, target, matrix) == pytest.approx(0, abs=1e-6)


def test_similarity_never_reflects() -> None:
    target = template("arcface", 112)
    mirrored = target * [-1, 1]
    matrix = similarity(mirrored, target)
    assert np.linalg.det(matrix[:, :2]) > 0
    assert residual(mirrored, target, matrix) > 10


def test_similarity_is_no_worse_than_its_neighbours() -> None:
    rng = np.random.default_rng(3)
    target = template("dlib", 150)
    points = target * 1.7 + rng.normal(0, 6, target.shape)
    matrix = similarity(points, target)
    best = residual(points, target, matrix)
    for _ in range(200):
        a, b = matrix[0, 0], matrix[1, 0]
        da, db, dx, dy = rng.normal(0, [0.02, 0.02, 1, 1])
        other = np.array([[a + da, -b - db, matrix[0, 2] + dx], [b + db, a + da, matrix[1, 2] + dy]])
        assert residual(points, target, other) >= best


def test_similarity_of_points_in_one_place_is_finite() -> None:
    matrix = similarity(np.full((5, 2), 7.0), template("dlib", 150))
    assert np.isfinite(matrix).all()
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(1)


def test_template_zooms_about_the_middle_of_the_chip() -> None:
    plain, zoomed = template("dlib", 150), template("dlib", 150, zoom=1.2, shift=(3, 0))
    assert zoomed - [78, 75] == pytest.approx((plain - 75) * 1.2)
    assert template("dlib", 75) == pytest.approx(plain / 2)


def test_templates_have_the_left_eye_on_the_left() -> None:
    for side, points in TEMPLATES.values():
        left_eye, right_eye, nose, left_mouth, right_mouth = points
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert left_eye[1] < nose[1] < left_mouth[1] < side


def test_chip_is_cut_out_unchanged_where_nothing_is_scaled() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3)).astype(np.uint8)
    matrix = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, -10.0]])
    assert (chip(pixels, matrix, 32) == pixels[10:42, 20:52]).all()


def test_chip_of_a_large_picture_averages_instead_of_skipping_pixels() -> None:
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = 255  # bilinear sampling of every eighth column would give all black or all white
    small = chip(stripes, np.array([[0.125, 0.0, 0.0], [0.0, 0.125, 0.0]]), 100)
    assert abs(int(small[20:80, 20:80].mean()) - 127) <= 2
    assert small[20:80, 20:80].std() < 3


@pytest.mark.parametrize("scale", [0.4, 0.11, 3.0])
def test_chip_keeps_places(scale: float) -> None:
    pixels = np.zeros((900, 900, 3), np.uint8)
    pixels[300:341, 500:541] = 255
    middle = np.array([520.5, 320.5])
    matrix = np.array([[scale, 0.0, 60 - middle[0] * scale], [0.0, scale, 60 - middle[1] * scale]])
    grey = chip(pixels, matrix, 121)[..., 0].astype(float)
    rows, columns = np.indices(grey.shape)
    found = np.array([(columns * grey).sum(), (rows * grey).sum()]) / grey.sum()
    assert found == pytest.approx([60, 60], abs=0.6)


def test_chip_beyond_the_picture_continues_its_edge() -> None:
    pixels = np.full((20, 20, 3), 200, np.uint8)
    assert (chip(pixels, np.array([[1.0, 0, 30.0], [0, 1.0, 30.0]]), 64) == 200).all()
    assert (chip(pixels, np.array([[1.0, 0, -500.0], [0, 1.0, -500.0]]), 16) == 200).all()  # wholly outside


def test_box_matrix_centres_the_box_with_its_margin() -> None:
    matrix = box_matrix((100, 50, 40, 80), 0.25, 120)
    corners = np.array([[100, 50], [140, 130]]) @ matrix[:, :2].T + matrix[:, 2]
    assert corners.mean(axis=0) == pytest.approx([60, 60])
    assert corners[1, 1] - corners[0, 1] == pytest.approx(80)  # 80 px of the 120 that the margins leave
