"""Decoding: every format read right, everything else refused with a reason."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from enrichers import formats
from enrichers.decode import decode
from enrichers.errors import CorruptImage, ImageRefused, ImageTooLarge, UnknownFormat, UnsupportedFormat
from enrichers.image import Facts, Pixels

LIMITS: dict[str, Any] = {"max_pixels": 100_000_000, "max_bytes": 200_000_000}


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth picture whose four corners differ, so that every turn of it is another picture."""
    y, x = np.mgrid[0:height, 0:width]
    levels = np.stack([255 * x / width, 255 * y / height, 128 + 60 * np.sin(x / 9)], axis=-1)
    return Image.fromarray(levels.astype(np.uint8))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if format == "HEIF":
        pillow_heif.from_pillow(image).save(buffer, quality=95, **options)
    else:
        image.save(buffer, format, **options)
    return buffer.getvalue()


def read(data: bytes | Path, **options: Any) -> tuple[Pixels, Facts]:
    return decode(data, **(LIMITS | {"max_side": None} | options))


def difference(pixels: Pixels, expected: Any) -> float:
    return float(np.abs(pixels.astype(int) - np.asarray(expected)).mean())


@pytest.mark.parametrize(
    ("format", "tolerance", "options"),
    [
        ("JPEG", 3, {"quality": 95}),
        ("JPEG", 3, {"quality": 95, "progressive": True}),
        ("PNG", 0, {}),
        ("GIF", 6, {}),  # 256 colours
        ("BMP", 0, {}),
        ("TIFF", 0, {}),
        ("TIFF", 0, {"compression": "tiff_lzw"}),
        ("WEBP", 0, {"lossless": True}),
        ("WEBP", 4, {"quality": 95}),
        ("AVIF", 4, {"quality": 95}),
        ("HEIF", 4, {}),
    ],
)
def test_reads_each_format(format: str, tolerance: float, options: dict[str, Any]) -> None:
    data = encoded(picture(), format, **options)
    pixels, facts = read(data)
    assert difference(pixels, picture()) <= tolerance
    assert (facts.format, facts.width, facts.height, facts.bytes) == (format, 96, 64, len(data))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_reads_a_path_as_it_reads_bytes(tmp_path: Path) -> None:
    data = encoded(picture(), "PNG")
    (tmp_path / "a.jpg").write_bytes(data)  # the name does not matter, the content does
    pixels, facts = read(tmp_path / "a.jpg")
    assert facts.format == "PNG"
    assert np.array_equal(pixels, read(data)[0])


def test_a_missing_path_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing.jpg")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_every_exif_orientation_upright(orientation: int, format: str) -> None:
    upright = picture()
    # the turn that undoes each orientation's own turn
    stored = {
        1: lambda im: im,
        2: lambda im: im.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda im: im.transpose(Image.Transpose.ROTATE_180),
        4: lambda im: im.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda im: im.transpose(Image.Transpose.TRANSPOSE),
        6: lambda im: im.transpose(Image.Transpose.ROTATE_90),
        7: lambda im: im.transpose(Image.Transpose.TRANSVERSE),
        8: lambda im: im.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    tags = Image.Exif()
    tags[0x0112] = orientation
    if format == "HEIF":
        heif = pillow_heif.from_pillow(stored)
        heif.info["exif"] = tags.tobytes()
        buffer = io.BytesIO()
        heif.save(buffer, quality=95)
        data = buffer.getvalue()
    else:
        data = encoded(stored, format, exif=tags)
    pixels, facts = read(data)
    assert (facts.width, facts.height) == (96, 64)
    assert difference(pixels, upright) < 5
    if format != "HEIF":  # its encoder turns EXIF orientation into its own
        assert facts.orientation == orientation


@pytest.mark.parametrize("value", [0, 9, 65535])  # not in the standard: as it is stored
def test_an_invalid_orientation_turns_nothing(value: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = value
    pixels, facts = read(encoded(picture(), "JPEG", exif=tags, quality=95))
    assert facts.orientation == 1
    assert difference(pixels, picture()) < 3


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 100, (100, 100, 100)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),  # transparent: the white below it
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (0, 128), (127, 127, 127)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 25700, (100, 100, 100)),
    ],
)
def test_every_pixel_form_of_png(mode: str, colour: Any, expected: tuple[int, int, int]) -> None:
    pixels, facts = read(encoded(Image.new(mode, (4, 4), colour), "PNG"))
    assert np.abs(pixels[0, 0].astype(int) - expected).max() <= 1
    assert facts.has_alpha == (mode in ("RGBA", "LA"))
    assert facts.bits == {"1": 1, "I;16": 16}.get(mode, 8)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),  # shares
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),  # 8-bit levels
        (np.array([[0.0, 25700.0, 65535.0]], np.float32), [0, 100, 255]),  # 16-bit levels
        (np.array([[-10.0, 0.0, 10.0]], np.float32), [0, 128, 255]),  # from lowest to highest
        (np.array([[np.nan, np.inf, 1.0]], np.float32), [0, 0, 255]),  # no numbers
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 0, 1]], np.int32), [0, 0, 1]),  # whole levels are never shares
    ],
)
def test_float_and_whole_grey_levels(levels: Any, expected: list[int]) -> None:
    pixels, _ = read(encoded(Image.fromarray(levels), "TIFF"))
    assert pixels[0, :, 0].tolist() == expected


def test_a_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    pixels, facts = read(encoded(image, "PNG", transparency=0))
    assert pixels[0].tolist() == [[255, 255, 255], [200, 100, 50]]
    assert facts.has_alpha


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    pixels, facts = read(encoded(frames[0], format, save_all=True, append_images=frames[1:]))
    assert pixels[0, 0, 0] > 230
    assert pixels[0, 0, 2] < 25
    assert facts.frames == 3


def test_cmyk_jpeg() -> None:
    pixels, facts = read(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert facts.mode == "CMYK"
    assert pixels[0, 0, 0] > 240  # no cyan, full magenta and yellow: red
    assert pixels[0, 0, 1:].max() < 15


def swapped_profile() -> bytes:
    """sRGB with the primaries of red and green exchanged, so that a conversion shows."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    at = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile)


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    pixels, facts = read(encoded(image, "PNG", icc_profile=swapped_profile()))
    assert pixels[0, 0, 1] > 200  # what the profile calls red is sRGB's green
    assert pixels[0, 0, 0] < 60
    assert facts.icc_profile


@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),  # sRGB itself changes nothing
        b"no profile at all",  # damaged: taken as sRGB
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),  # of another colour space
    ],
)
def test_a_profile_without_effect(profile: bytes) -> None:
    pixels, _ = read(encoded(picture(), "PNG", icc_profile=profile))
    assert np.array_equal(pixels, np.asarray(picture()))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("max_side", "expected"),
    [
        (100, (75, 100)),
        (400, (300, 400)),
        (350, (262, 350)),  # a half is too much
        (800, (600, 800)),  # just the size
        (2000, (600, 800)),  # never enlarged
    ],
)
def test_max_side(format: str, max_side: int, expected: tuple[int, int]) -> None:
    data = encoded(picture(800, 600), format)
    pixels, facts = read(data, max_side=max_side)
    assert pixels.shape[:2] == expected
    assert (facts.width, facts.height) == (800, 600)
    whole = cv2.resize(np.asarray(picture(800, 600)), expected[::-1], interpolation=cv2.INTER_AREA)
    assert difference(pixels, whole) < 4


def test_a_jpeg_that_is_hardly_too_large_stays() -> None:
    pixels, _ = read(encoded(picture(800, 600), "JPEG"), max_side=390)
    assert pixels.shape[:2] == (300, 400)  # libjpeg's half


def test_a_turned_jpeg_is_shrunk_by_its_longest_side() -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    pixels, facts = read(encoded(picture(800, 600), "JPEG", exif=tags), max_side=200)
    assert pixels.shape[:2] == (200, 150)
    assert (facts.width, facts.height) == (600, 800)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<svg/>", "SVG"),
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (b"just some words\n", "text"),
        ("ein bißchen Text ".encode() * 400, "text"),  # a character may be cut in two at the end of what is looked at
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"\0\0\0\x18ftypmp42" + bytes(12), "video"),
        (b"\x1aE\xdf\xa3" + bytes(20), "video"),
        (b"\0\0\0\x18ftypcrx " + bytes(12), "Canon CR3"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "Canon CR2"),
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm RAF"),
        (b"IIU\0" + bytes(20), "Panasonic RW2"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20), "JPEG 2000"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"P6\n1 1\n255\n\0\0\0", "Netpbm"),
        (b"PK\3\4" + bytes(20), "ZIP"),
    ],
)
def test_known_kinds_are_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        read(data)


def tiff_raw(tags: dict[int, tuple[int, int]], make: bytes = b"") -> bytes:
    """A TIFF header with one directory of the given tags (type, value)."""
    entries = dict(tags)
    offset = 8 + 2 + 12 * (len(entries) + bool(make)) + 4
    body = b""
    for tag in sorted([*entries, *([271] if make else [])]):
        if tag == 271:
            body += struct.pack("<HHII", tag, 2, len(make), offset)
        else:
            kind, value = entries[tag]
            body += struct.pack("<HHII", tag, kind, 1, value)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", body.__len__() // 12) + body + bytes(4) + make


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (tiff_raw({50706: (1, 4)}), "DNG"),
        (tiff_raw({262: (3, 32803)}, b"NIKON CORPORATION\0"), "Nikon NEF"),
        (tiff_raw({259: (3, 32767)}, b"SONY\0"), "Sony ARW"),
        (tiff_raw({262: (3, 32803)}, b"Some Maker\0"), "Some Maker"),
        (tiff_raw({262: (3, 32803)}), "unknown camera"),
    ],
)
def test_tiff_based_raw_files_are_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        read(data)


def test_an_ordinary_tiff_is_no_raw_file() -> None:
    kind = formats.recognise(encoded(picture(), "TIFF"))
    assert kind is not None
    assert kind.name == "TIFF"


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"\x80\x81\x82\x00", bytes(range(256))])
def test_unknown_bytes(data: bytes) -> None:
    with pytest.raises(UnknownFormat):
        read(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("max_side", [None, 50])
def test_a_truncated_file_is_refused(format: str, share: float, max_side: int | None) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (128, 128, 3), dtype=np.uint8))
    data = encoded(noise, format)
    with pytest.raises(CorruptImage):
        read(data[: int(len(data) * share)], max_side=max_side)


def test_a_progressive_jpeg_without_its_last_scans_is_refused() -> None:
    data = encoded(picture(400, 300), "JPEG", progressive=True)
    with pytest.raises(CorruptImage):
        read(data[: data.rfind(b"\xff\xda")])


def test_a_png_whose_pixels_do_not_match_their_checksum_is_refused() -> None:
    data = bytearray(encoded(picture(), "PNG"))
    at = data.find(b"IDAT") + 4 + struct.unpack_from(">I", data, data.find(b"IDAT") - 4)[0]
    data[at] ^= 1
    with pytest.raises(CorruptImage, match="checksum"):
        read(bytes(data))


def bomb(width: int, height: int) -> bytes:
    """A PNG file that says it is as large as told and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (bomb(50_000, 50_000), {}),
        (bomb(101, 100), {"max_pixels": 10_000}),
        (encoded(picture(), "JPEG"), {"max_pixels": 96 * 64 - 1}),
        (encoded(picture(), "JPEG"), {"max_bytes": 100}),
    ],
)
def test_too_large_is_refused(data: bytes, options: dict[str, int]) -> None:
    with pytest.raises(ImageTooLarge):
        read(data, **options)


def test_just_the_allowed_pixels_are_read() -> None:
    read(encoded(picture(), "JPEG"), max_pixels=96 * 64)


def test_too_many_bytes_of_a_path_are_refused(tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(bytes(1000))
    with pytest.raises(ImageTooLarge):
        read(tmp_path / "big.bin", max_bytes=999)


def test_exif_as_plain_types() -> None:
    tags = Image.Exif()
    tags[0x010F] = "ACME"
    tags.get_ifd(0x8769)[0x829D] = 2.8
    tags.get_ifd(0x8769)[0x8827] = 400
    tags.get_ifd(0x8825)[1] = "N"
    tags.get_ifd(0x8825)[2] = (48.0, 12.0, 30.5)
    _, facts = read(encoded(picture(), "JPEG", exif=tags))
    assert facts.exif["Make"] == "ACME"
    assert facts.exif["FNumber"] == pytest.approx(2.8)
    assert facts.exif["ISOSpeedRatings"] == 400
    assert facts.exif["GPSInfo"]["GPSLatitude"] == pytest.approx((48, 12, 30.5))
    assert type(facts.exif["FNumber"]) is float


def test_damaged_exif_does_not_refuse_the_picture() -> None:
    _, facts = read(encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    assert facts.exif == {}


def test_no_warning_and_no_setting_of_pillows_is_left_behind() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(encoded(Image.new("1", (20_000, 6_000)), "PNG"), max_pixels=200_000_000)  # more than Pillow warns at
    assert limit == Image.MAX_IMAGE_PIXELS


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("folder", ["formats", "pngsuite", "avif", "corrupt", "exif_samples"])
def test_evaluation_files_are_read_or_refused(eval_data: Path, folder: str, capfd: pytest.CaptureFixture[str]) -> None:
    for path in files(eval_data / folder):
        try:
            pixels, facts = read(path)
        except ImageRefused as error:
            assert str(error), path
            continue
        assert pixels.shape == (facts.height, facts.width, 3), path
        assert facts.format in formats.DECODED
    assert capfd.readouterr().err == ""


def test_evaluation_orientations_look_the_same(eval_data: Path) -> None:
    for shape in ("Landscape", "Portrait"):
        upright = read(eval_data / "exif_orientation" / f"{shape}_1.jpg", max_side=300)[0]
        for orientation in range(9):
            pixels, facts = read(eval_data / "exif_orientation" / f"{shape}_{orientation}.jpg", max_side=300)
            assert facts.orientation == (orientation or 1)
            assert pixels.shape == upright.shape
            assert difference(pixels, upright) < 12, (shape, orientation)  # a wrong turn differs by 60 and more


def test_evaluation_png_suite(eval_data: Path) -> None:
    """Its broken files begin with x; the others are compared with OpenCV's decoder where that has a say."""
    for path in files(eval_data / "pngsuite"):
        if path.suffix != ".png":
            continue
        if path.name.startswith("x"):
            with pytest.raises(ImageRefused):
                read(path)
            continue
        pixels, _ = read(path)
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if stored.dtype == np.uint16:
            stored = (stored / 257 + 0.5).astype(np.uint8)
        if stored.ndim == 3 and stored.shape[2] == 4:
            alpha = stored[..., 3:] / 255
            stored = (stored[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)
        colour = cv2.cvtColor(stored, cv2.COLOR_GRAY2RGB) if stored.ndim == 2 else stored[..., ::-1]
        if path.name != "exif2c08.png" and not path.name.startswith("tbbn0g04"):
            assert np.abs(pixels.astype(int) - colour).max() <= 1, path.name
