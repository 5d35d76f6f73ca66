"""The demo's photos: real files of installed packages, and copies that differ from them."""

from pathlib import Path

import numpy as np
from PIL import Image

from daemon.demo_photos import MEGAPIXEL, PEOPLE, originals, write_megapixels, write_photos


def test_every_original_is_in_an_installed_package() -> None:
    found = originals()
    assert len(found) == 8
    for file, package in found.values():
        assert Image.open(file).size > (100, 100), package


def test_the_two_people_have_copies_that_are_no_doubles(tmp_path: Path) -> None:
    photos = write_photos(tmp_path)
    assert len({photo.file.read_bytes() for photo in photos}) == len(photos) == 18
    for person in PEOPLE:
        copies = [photo for photo in photos if photo.file.stem.startswith(f"{person}_")]
        assert len(copies) == 5
        assert all(photo.copy for photo in copies)


def test_relighting_changes_the_light_and_nothing_else(tmp_path: Path) -> None:
    write_photos(tmp_path)
    original = np.asarray(Image.open(tmp_path / "grace_hopper.jpg").convert("RGB"), np.float64)
    dark, warm, lamp = (
        np.asarray(Image.open(tmp_path / f"grace_hopper_{name}.jpg"), np.float64) for name in ("dark", "warm", "lamp")
    )
    assert dark.shape == original.shape
    assert dark.mean() < 0.9 * original.mean()
    assert warm[..., 0].mean() > original[..., 0].mean() and warm[..., 2].mean() < original[..., 2].mean()
    half = original.shape[1] // 2
    assert lamp[:, :half].mean() > original[:, :half].mean() and lamp[:, half:].mean() < original[:, half:].mean()


def test_megapixels_have_a_megapixel_and_are_all_different(tmp_path: Path) -> None:
    files = list(write_megapixels(tmp_path, 9))  # one more than there are originals
    assert len({file.read_bytes() for file in files}) == 9
    for file in files:
        width, height = Image.open(file).size
        assert abs(width * height - MEGAPIXEL) < 0.01 * MEGAPIXEL
