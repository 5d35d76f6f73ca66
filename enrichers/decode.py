"""Turns the bytes of an image file into upright sRGB pixels and facts, or refuses them with a reason."""

import hashlib
import io
import logging
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from enrichers import exif, formats
from enrichers.errors import CorruptImage, ImageRefused, ImageTooLarge, UnknownFormat, UnsupportedFormat
from enrichers.image import Facts, Pixels, fitted

# Each format's decoder is called by its class: no other decoder of Pillow's can be reached, whatever the bytes say.
_DECODERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "HEIF": pillow_heif.HeifImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}

#: what decoders raise on damaged files
_DAMAGED = (*exif.DAMAGED, struct.error, RuntimeError, MemoryError, Image.DecompressionBombError)

# Pillow keeps its pixel limit and Python its warning filters for the whole process.
_PROCESS_WIDE = threading.Lock()

#: how much longer than `max_side` a picture may stay: 2016 pixels, half of a phone's 4032, are not shrunk to 2000 for
#: nothing, since each enricher shrinks the picture to its own size anyway
SLACK = 1.1

# np.transpose and flips that make a picture upright, by EXIF orientation (EXIF 2.32, table 6)
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


def decode(
    source: bytes | Path, *, max_side: int | None = None, max_pixels: int, max_bytes: int
) -> tuple[Pixels, Facts]:
    """Decodes the first frame of an image file.

    Returns pixels of shape (h, w, 3), uint8, RGB, sRGB, upright, alpha laid over white, C-contiguous; and the facts of
    the file. With `max_side`, a picture whose longest side is longer by more than `SLACK` is shrunk to it, by libjpeg
    where that can be done while decoding; a smaller one is never enlarged. A picture whose data end early is refused,
    never guessed at.

    Raises UnknownFormat, UnsupportedFormat, CorruptImage, ImageTooLarge (before anything is decoded), and OSError
    where `source` is a path that cannot be read. Only one thread a process decodes at a time.
    """
    data = _read(source, max_bytes)
    kind = formats.recognise(data)
    if not data:
        raise UnknownFormat("The file is empty.")
    if kind is None:
        raise UnknownFormat("The file is no image in a format that enrichd knows.")
    if not kind.decoded:
        raise UnsupportedFormat(f"The file is of the kind {kind.name}, which enrichd does not read.")
    with _quiet_decoders(kind.name):
        try:
            return _decode(data, kind.name, max_side, max_pixels)
        except _DAMAGED as error:
            raise _refusal(kind.name, error) from error


def _refusal(name: str, error: BaseException) -> ImageRefused:
    """What a decoder's error means for the user."""
    detail = str(error)
    if detail.lower().startswith(_UNSUPPORTED):
        return UnsupportedFormat(f"The file is a {name} of a rare form, which enrichd does not read: {detail}.")
    if "runcated" in detail:
        return CorruptImage(f"The {name} file is damaged: it ends too early.")
    accident = error.__cause__ is not None or not isinstance(error, (OSError, SyntaxError))
    if accident or detail in _UNTELLING or detail.startswith("decoder error"):
        return CorruptImage(f"The {name} file is damaged: its data cannot be decoded.")
    return CorruptImage(f"The {name} file is damaged: {detail}.")


#: how decoders begin the message that a file is of a form which they do not read
_UNSUPPORTED = ("unsupported", "cannot handle", "unknown pixel mode", "unknown compression", "unknown data org")
#: messages of decoders that would tell a user nothing
_UNTELLING = {"", "cannot load this image", "not identified by this driver", "could not create decoder object"}


def _read(source: bytes | Path, max_bytes: int) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            if not stat.S_ISREG(source.stat().st_mode):
                raise ImageRefused(f"{source.name} is not a regular file.")
            data = file.read(max_bytes + 1)
    else:
        data = source
    if len(data) > max_bytes:
        raise ImageTooLarge(f"The file has more than the {max_bytes} bytes allowed.")
    return data


@contextmanager
def _quiet_decoders(name: str) -> Iterator[None]:
    """Pillow without its warnings and log lines and without its own pixel limit, since ours is checked first; libtiff
    without its messages, which it prints to file descriptor 2."""
    log = logging.getLogger("PIL")
    with _PROCESS_WIDE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level, limit = log.level, Image.MAX_IMAGE_PIXELS
        log.setLevel(logging.CRITICAL + 1)
        Image.MAX_IMAGE_PIXELS = None
        errors = os.dup(2) if name == "TIFF" else None
        try:
            if errors is not None:
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            if errors is not None:
                os.dup2(errors, 2)
                os.close(errors)
            Image.MAX_IMAGE_PIXELS = limit
            log.setLevel(level)


def _decode(data: bytes, name: str, max_side: int | None, max_pixels: int) -> tuple[Pixels, Facts]:
    if name == "PNG":
        _check_png(data)
    image = _DECODERS[name](io.BytesIO(_repaired_avif(data) if name == "AVIF" else data))
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(f"The image has {width} × {height} pixels, more than the {max_pixels} allowed.")
    if width < 1 or height < 1:
        raise CorruptImage(f"The {name} file says that it has {width} × {height} pixels.")
    stored = exif.orientation(image)
    if name == "HEIF":  # libheif turns the picture, and pillow-heif keeps what the file said
        stored = image.info.get("original_orientation") or 1
    tags = exif.read(image)
    profile = image.info.get("icc_profile") or None
    mode, bits, has_alpha = image.mode, _bits(image, data, name), image.has_transparency_data
    if max_side and name == "JPEG":  # at 1/2, 1/4 or 1/8: the smallest whose longest side is still long enough
        image.draft(None, (max_side, 1) if width >= height else (1, max_side))
    image.load()
    turn = exif.orientation(image)  # 1 by now for TIFF and HEIF, whose decoders turn the picture themselves
    pixels = _eight_bit(image, bits, profile)
    if max_side and max(pixels.shape[:2]) > SLACK * max_side:
        pixels = fitted(pixels, max_side)
    pixels = _colour(pixels, profile)
    facts = Facts(
        format=name,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        width=height if turn >= 5 else width,
        height=width if turn >= 5 else height,
        orientation=stored,
        mode=mode,
        bits=bits,
        frames=_frames(image),
        has_alpha=has_alpha,
        icc_profile=_profile_name(profile) if profile else None,
        exif=tags,
        truncated=name == "JPEG" and data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) < 0,
    )
    return np.ascontiguousarray(_UPRIGHT[turn](pixels)), facts


def _check_png(data: bytes) -> None:
    """Refuses a PNG file whose header, palette or pixels do not have their checksum (PNG 3, 5.4); Pillow reads
    damaged pixels without a word."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if kind in (b"IHDR", b"PLTE", b"IDAT") and end + 4 <= len(data):
            (stored,) = struct.unpack_from(">I", data, end)
            if zlib.crc32(memoryview(data)[at + 4 : end]) != stored:
                raise CorruptImage(f"The PNG file is damaged: its {kind.decode()} data do not match their checksum.")
        if kind == b"IEND":
            return
        at = end + 4


def _repaired_avif(data: bytes) -> bytes:
    """An early AVIF writer (cavif before 2022) wrote one property association box an item where the standard wants one
    in all, and libavif refuses the file. A flag without a meaning makes the second box differ from the first.
    https://github.com/link-u/avif-sample-images/issues/4"""
    meta = data.find(b"meta", 0, formats.HEAD)
    end = meta - 4 + int.from_bytes(data[meta - 4 : meta], "big") if meta >= 4 else 0
    boxes = data.count(b"ipma", meta, end)
    if boxes != 2:
        return data
    second = data.rfind(b"ipma", meta, end)
    repaired = bytearray(data)
    repaired[second + 7] |= 2
    return bytes(repaired)


def _bits(image: ImageFile.ImageFile, data: bytes, name: str) -> int:
    """Bits a channel, as stored."""
    if name == "PNG":
        return data[24]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        stored = image.tag_v2.get(258, (1,))
        return int(max(stored)) if isinstance(stored, tuple) else int(stored)
    if name == "HEIF":
        return int(image.info.get("bit_depth", 8))
    if name == "AVIF":  # AV1 codec configuration box, third byte: … high_bitdepth twelve_bit … (AV1-ISOBMFF 2.3.3)
        at = data.find(b"av1C")
        flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
        return (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    return 1 if image.mode == "1" else 8


def _eight_bit(image: Image.Image, bits: int, profile: bytes | None) -> Pixels:
    """The picture as (h, w) grey or (h, w, 3) RGB, 8 bits, alpha laid over white, in the file's own colour space
    (CMYK and Lab are converted, with the embedded profile where there is one)."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.float32)
        full = 2**bits - 1 if 8 < bits < 16 else 65535
        grey: Pixels = np.clip(levels * (255 / full) + 0.5, 0, 255).astype(np.uint8)
        key = image.info.get("transparency")
        if isinstance(key, int):
            grey[levels == key] = 255
        return grey
    if image.mode in ("I", "F"):
        return _stretched(np.asarray(image))
    if image.has_transparency_data:
        key = image.info.get("transparency")
        if image.mode == "RGB" and bits == 16 and isinstance(key, tuple):  # the colour is 16-bit, the pixels are 8-bit
            image.info["transparency"] = tuple(level >> 8 for level in key)
        over = image.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB"))
    if image.mode in ("1", "L"):
        return np.asarray(image if image.mode == "L" else image.convert("L"))
    if image.mode == "CMYK" and profile and (transform := _transform(profile, "CMYK")):
        return np.asarray(transform.apply(image))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _stretched(levels: NDArray[Any]) -> Pixels:
    """Whole and floating-point grey levels of unknown range as 8 bits: floating-point ones are taken as shares if all
    lie in 0…1; any as 8-bit or 16-bit levels if they fit, else from the lowest to the highest."""
    fulls = (255.0, 65535.0) if np.issubdtype(levels.dtype, np.integer) else (1.0, 255.0, 65535.0)
    levels = np.nan_to_num(levels.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(levels.min()), float(levels.max())
    if low >= 0:
        low, high = 0.0, next((full for full in fulls if high <= full), high)
    scale = 255 / (high - low) if high > low else 0.0
    return np.asarray((levels - low) * scale + 0.5, dtype=np.uint8)


def _colour(pixels: Pixels, profile: bytes | None) -> Pixels:
    """Grey or RGB in the colour space of `profile` → RGB in sRGB."""
    mode = "L" if pixels.ndim == 2 else "RGB"
    if profile and (transform := _transform(profile, mode)):
        return np.asarray(transform.apply(Image.fromarray(pixels)))
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), dtype=np.uint8) if mode == "L" else pixels


#: largest difference of an 8-bit channel at which a profile is taken for sRGB itself
_SAME_COLOUR = 2


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From an embedded profile to sRGB, perceptually; None where it changes nothing, does not fit the picture's
    `mode` or is damaged (the picture is then taken as sRGB, as browsers do)."""
    space = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[mode]
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != space:
            return None
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB")
    except (ImageCms.PyCMSError, *_DAMAGED):
        return None
    if mode == "CMYK":
        return transform
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    if mode == "L":
        colours = steps[None]
        plain = np.repeat(colours[..., None], 3, axis=2)
    else:
        plain = colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    turned = np.asarray(transform.apply(Image.fromarray(colours)))
    return transform if np.abs(turned.astype(int) - plain).max() > _SAME_COLOUR else None


@lru_cache(maxsize=16)
def _profile_name(profile: bytes) -> str | None:
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, *_DAMAGED):
        return None
    return name.strip()[: exif.MAX_TEXT] or None


def _frames(image: ImageFile.ImageFile) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except _DAMAGED:
        return 1
