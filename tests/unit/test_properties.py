"""Properties of files and pixels."""

import io
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from enrichers import colours
from enrichers.decode import decode
from enrichers.image import Facts, Image, Pixels
from enrichers.properties import Properties, altitude, camera, hamming, location, phash, taken_at


def as_image(pixels: Pixels, **facts: Any) -> Image:
    height, width = pixels.shape[:2]
    base: dict[str, Any] = {"format": "PNG", "bytes": 1, "sha256": "0", "width": width, "height": height}
    return Image(0, pixels, width, height, Facts(**(base | facts)))


def answer(image: Image) -> dict[str, Any]:
    [result] = Properties({}).enrich([image])
    return dict(result.answer)  # type: ignore[union-attr]


def plain(*colour: int, size: tuple[int, int] = (40, 60)) -> Pixels:
    return np.full((*size, 3), colour, np.uint8)


def of_file(data: bytes | Path) -> dict[str, Any]:
    pixels, facts = decode(data, max_side=512, max_pixels=10**8, max_bytes=10**8)
    return answer(Image(0, pixels, facts.width, facts.height, facts))


def test_a_file_with_exif() -> None:
    tags = Pillow.Exif()
    tags[0x010F], tags[0x0110], tags[0x0112] = "ACME ", "One", 6
    detail = tags.get_ifd(0x8769)
    detail[0x9003], detail[0x9011] = "2024:02:29 23:59:58", "+05:30"
    detail[0x829A], detail[0x829D], detail[0x8827], detail[0x920A] = 0.004, 1.8, 125, 35.0
    gps = tags.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4], gps[5], gps[6] = "S", (33.0, 51.0, 54.5), "W", (70.0, 30.0, 0.0), b"\1", 12.5
    buffer = io.BytesIO()
    Pillow.new("RGB", (80, 60), "red").save(buffer, "JPEG", exif=tags)
    found = of_file(buffer.getvalue())
    assert (found["format"], found["mime_type"], found["orientation"]) == ("JPEG", "image/jpeg", 6)
    assert (found["width"], found["height"], found["megapixels"]) == (60, 80, 0.005)
    assert found["bytes"] == len(buffer.getvalue())
    assert found["camera"] == {
        "make": "ACME",
        "model": "One",
        "lens": None,
        "exposure_s": pytest.approx(0.004),
        "f_number": pytest.approx(1.8),
        "iso": 125,
        "focal_length_mm": 35,
        "focal_length_35mm": None,
        "flash": None,
    }
    assert found["taken_at"] == datetime(2024, 2, 29, 23, 59, 58)
    assert found["taken_offset"] == "+05:30"
    assert found["location"]["type"] == "Point"
    assert found["location"]["coordinates"] == pytest.approx([-70.5, -33.8651389])
    assert found["altitude_m"] == -12.5
    assert found["colours"][0]["name"] == "red"


def test_a_file_without_exif() -> None:
    found = answer(as_image(plain(0, 0, 0)))
    for name in ("camera", "taken_at", "taken_offset", "location", "altitude_m", "colour_space"):
        assert found[name] is None


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"DateTimeOriginal": "2021:01:02 03:04:05"}, datetime(2021, 1, 2, 3, 4, 5)),
        ({"DateTimeOriginal": "2021-01-02T03:04:05"}, datetime(2021, 1, 2, 3, 4, 5)),  # some phones write it so
        ({"DateTimeOriginal": "0000:00:00 00:00:00"}, None),  # not known
        ({"DateTimeOriginal": "    :  :     :  :  "}, None),  # not known either
        ({"DateTimeOriginal": "x", "DateTimeDigitized": "2021:01:02 03:04:05"}, datetime(2021, 1, 2, 3, 4, 5)),
        ({"DateTime": "2021:01:02 03:04:05"}, None),  # when the file was changed, which is another time
    ],
)
def test_taken_at(tags: dict[str, Any], expected: datetime | None) -> None:
    assert taken_at(tags) == expected


@pytest.mark.parametrize(
    ("gps", "expected"),
    [
        ({"GPSLatitude": (10, 30, 0), "GPSLongitude": (20, 0, 36)}, [20.01, 10.5]),  # without references: north, east
        ({"GPSLatitude": (10.5,), "GPSLongitude": 20.01}, [20.01, 10.5]),  # decimal degrees
        ({"GPSLatitude": (91, 0, 0), "GPSLongitude": (20, 0, 0)}, None),  # out of range
        ({"GPSLatitude": (0, 0, 0), "GPSLongitude": (0, 0, 0)}, None),  # no fix
        ({"GPSLatitude": (1, 0, 0), "GPSLongitude": (1, 0, 0), "GPSStatus": "V"}, None),  # void
        ({"GPSLatitude": (1, 0, 0)}, None),
        ({"GPSLatitude": "north", "GPSLongitude": (1, 0, 0)}, None),
        ({}, None),
    ],
)
def test_location(gps: dict[str, Any], expected: list[float] | None) -> None:
    found = location(gps)
    assert (found["coordinates"] if found else None) == (pytest.approx(expected) if expected else None)


@pytest.mark.parametrize(
    ("gps", "expected"),
    [
        ({"GPSAltitude": 30.5}, 30.5),
        ({"GPSAltitude": 30.5, "GPSAltitudeRef": (1,)}, -30.5),
        ({"GPSAltitude": 1e9}, None),
        ({}, None),
    ],
)
def test_altitude(gps: dict[str, Any], expected: float | None) -> None:
    assert altitude(gps) == expected


def test_exposure_from_apex_values() -> None:
    found = camera({"ApertureValue": 4.0, "ShutterSpeedValue": 7.0, "ISOSpeedRatings": (200, 0), "Flash": 25})
    assert found is not None
    assert found["f_number"] == 4.0
    assert found["exposure_s"] == pytest.approx(1 / 128, abs=1e-6)
    assert found["iso"] == 200
    assert found["flash"] is True


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 0, 0), "red"),
        ((0, 128, 0), "green"),
        ((30, 60, 200), "blue"),
        ((255, 255, 255), "white"),
        ((0, 0, 0), "black"),
        ((10, 10, 12), "black"),
        ((128, 128, 128), "grey"),
        ((255, 165, 0), "orange"),
        ((250, 240, 30), "yellow"),
        ((120, 20, 130), "purple"),
        ((255, 105, 180), "pink"),
        ((101, 67, 33), "brown"),
        ((64, 224, 208), "turquoise"),
        ((135, 206, 235), "blue"),  # the sky
        ((222, 184, 135), "beige"),
    ],
)
def test_colour_names(colour: tuple[int, int, int], expected: str) -> None:
    assert colours.name(*colour) == expected


def test_dominant_colours() -> None:
    pixels = plain(200, 0, 0, size=(100, 100))
    pixels[:, :30] = (0, 0, 200)
    pixels[0, :2] = (0, 255, 0)  # too few to count
    found = answer(as_image(pixels))["colours"]
    assert [colour["name"] for colour in found] == ["red", "blue"]
    assert [colour["hex"] for colour in found] == ["#c80000", "#0000c8"]
    assert found[0]["share"] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(
    ("pixels", "brightness", "contrast"),
    [
        (plain(0, 0, 0), 0, 0),
        (plain(255, 255, 255), 1, 0),
        (
            np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((8, 8)))[..., None].repeat(3, 2).astype(np.uint8) * 255,
            0.5,
            0.5,
        ),
    ],
)
def test_brightness_and_contrast(pixels: Pixels, brightness: float, contrast: float) -> None:
    found = answer(as_image(pixels))
    assert found["brightness"] == pytest.approx(brightness, abs=0.01)
    assert found["contrast"] == pytest.approx(contrast, abs=0.01)


def noise(side: int = 300, seed: int = 3) -> Pixels:
    small = np.random.default_rng(seed).integers(0, 255, (side // 10, side // 10, 3), dtype=np.uint8)
    return np.asarray(Pillow.fromarray(small).resize((side, side), Pillow.Resampling.BICUBIC))


def test_sharpness_falls_with_blur() -> None:
    blurred = np.asarray(Pillow.fromarray(noise()).resize((30, 30)).resize((300, 300)))
    assert answer(as_image(blurred))["sharpness"] < answer(as_image(noise()))["sharpness"] / 2


def test_phash_of_near_duplicates() -> None:
    original = phash(noise())
    shrunk = np.asarray(Pillow.fromarray(noise()).resize((100, 100)))
    brighter = np.clip(noise().astype(int) + 20, 0, 255).astype(np.uint8)
    assert len(original) == 16
    assert hamming(original, phash(shrunk)) <= 4
    assert hamming(original, phash(brighter)) <= 6
    assert hamming(original, phash(noise(seed=4))) > 16


def test_phash_is_the_published_one() -> None:
    """The formula of the `imagehash` library, written out with SciPy's transform."""
    from scipy.fft import dctn

    grey = np.asarray(Pillow.fromarray(noise(200)).convert("L").resize((32, 32), Pillow.Resampling.LANCZOS), float)
    low = dctn(grey, type=2)[:8, :8]
    bits = "".join("1" if bit else "0" for bit in (low > np.median(low)).ravel())
    assert phash(noise(200)) == f"{int(bits, 2):016x}"


def test_one_pixel() -> None:
    found = answer(as_image(plain(1, 2, 3, size=(1, 1))))
    assert found["sharpness"] == 0
    assert found["colours"][0]["share"] == 1


def test_evaluation_camera_files(eval_data: Path) -> None:
    found = of_file(eval_data / "exif_samples/jpg/gps/DSCN0010.jpg")
    assert found["camera"]["make"] == "NIKON"
    assert found["taken_at"] == datetime(2008, 10, 22, 16, 28, 39)
    assert found["location"]["coordinates"] == pytest.approx([11.885, 43.467], abs=0.001)


def test_evaluation_near_duplicates(eval_data: Path) -> None:
    """One photo under PDQ's edits, against another photo."""
    hashes = {path.stem: of_file(path)["phash"] for path in (eval_data / "neardup_bridge").glob("*.jpg")}
    original = hashes.pop("aaa-orig")
    for edit, value in hashes.items():
        assert hamming(original, value) <= 12, edit
