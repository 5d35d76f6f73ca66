"""Pictures at other sizes."""

import numpy as np
import pytest

from enrichers.image import fitted, planes, resized


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (640, 480),  # as it is
        (320, 240),  # whole factors
        (300, 300),  # a broken factor above two across, below two down
        (639, 479),  # hardly smaller
        (9, 8),  # far smaller
        (1, 1),
        (1280, 960),  # larger
        (1280, 100),  # larger across, smaller down
    ],
)
def test_a_slope_stays_a_slope(width: int, height: int) -> None:
    slope = np.repeat(np.linspace(0, 250, 640)[None, :, None], 480, axis=0).repeat(3, axis=2).astype(np.uint8)
    small = resized(slope, width, height)
    assert small.shape == (height, width, 3)
    assert small.dtype == np.uint8
    middles = (np.arange(width) + 0.5) / width * 250
    assert np.abs(small[0, :, 0] - middles).max() < 3


@pytest.mark.parametrize("size", [(320, 240), (213, 160), (200, 150), (64, 48), (9, 8)])
def test_no_pixel_is_missed(size: tuple[int, int]) -> None:
    checks = (np.indices((480, 640)).sum(axis=0) % 2 * 255).astype(np.uint8)  # grey from afar
    grey = resized(checks, *size).astype(int)
    assert np.abs(grey - 127).max() <= 16  # five of nine pixels are one colour


def test_what_fits_is_not_copied() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    assert fitted(picture, 64) is picture
    assert fitted(picture, 32).shape == (24, 32, 3)


@pytest.mark.parametrize("bgr", [False, True])
def test_planes(bgr: bool) -> None:
    picture = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    found = planes(picture, 2 / 255, -1, bgr=bgr)
    expected = picture[..., ::-1] if bgr else picture
    assert found.dtype == np.float32
    assert found == pytest.approx(expected.transpose(2, 0, 1) * 2 / 255 - 1, abs=1e-6)
