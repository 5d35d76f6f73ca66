"""Head pose, sharpness and the quality value."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from enrichers.face_quality import HEAD, Pose, head_pose, sharpness, value


def seen(yaw: float, pitch: float, roll: float, scale: float = 1.0) -> NDArray[np.float64]:
    """The mean head turned and projected in parallel: yaw to the picture's right, pitch up, roll clockwise."""
    y, p, r = np.radians([yaw, pitch, roll])
    turn_yaw = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    turn_pitch = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    turn_roll = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    points: NDArray[np.float64] = HEAD @ (turn_yaw @ turn_pitch @ turn_roll).T
    return points[:, :2] * scale + [400, 300]


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll", "scale"),
    [
        (0, 0, 0, 1),
        (30, 0, 0, 1),
        (-50, 0, 0, 0.2),  # a small face
        (0, 20, 0, 4),
        (0, -20, 0, 1),
        (0, 0, 25, 1),
        (0, 0, -80, 1),  # lying
        (20, 10, 0, 1),
    ],
)
def test_pose_of_a_turned_head(yaw: float, pitch: float, roll: float, scale: float) -> None:
    pose = head_pose(seen(yaw, pitch, roll, scale))
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((yaw, pitch, roll), abs=4)  # perspective is not parallel


def test_a_nose_right_of_the_eyes_looks_right_and_a_raised_one_up() -> None:
    points = seen(0, 0, 0)
    right, up = points.copy(), points.copy()
    right[2, 0] += 12
    up[2, 1] -= 8
    assert head_pose(right).yaw > 10
    assert head_pose(up).pitch > 5


def test_pose_of_landmarks_in_one_place_is_none() -> None:
    assert head_pose(np.full((5, 2), 3.0)) == Pose(0.0, 0.0, 0.0)


def test_sharpness_falls_with_blur_and_not_with_contrast() -> None:
    from skimage import data

    chip = np.ascontiguousarray(data.astronaut()[60:172, 170:282, :3])
    blurred = [sharpness(np.asarray(cv2.GaussianBlur(chip, (0, 0), s), np.uint8)) for s in (1, 2, 4)]
    assert sharpness(chip) > blurred[0] > blurred[1] > blurred[2] > 0
    flat = (chip.astype(float) * 0.5 + 60).astype(np.uint8)
    assert sharpness(flat) == pytest.approx(sharpness(chip), rel=0.1)
    assert sharpness(np.full((112, 112, 3), 90, np.uint8)) == 0


def test_value_rises_with_each_of_its_parts_and_stays_between_0_and_1() -> None:
    good = value(200, 0.5, Pose(0, 0, 0), 1.0)
    assert good == pytest.approx(1)
    worse = [
        value(20, 0.5, Pose(0, 0, 0), 1.0),
        value(200, 0.06, Pose(0, 0, 0), 1.0),
        value(200, 0.5, Pose(-60, 0, 0), 1.0),
        value(200, 0.5, Pose(0, -50, 0), 1.0),
        value(200, 0.5, Pose(0, 0, 0), 0.5),
    ]
    assert all(0 < v < good for v in worse)
    assert value(0, 0, Pose(170, 0, 0), 0) == 0
    assert value(200, 0.5, Pose(0, 0, 90), 1.0) == good  # a lying face is as good as an upright one
