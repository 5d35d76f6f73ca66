"""What a file and its pixels say without any model: size, camera, time, place, colours, brightness, sharpness, hash."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

from enrichers import colours
from enrichers.contract import Enricher, Failure, Form, Loader, Result
from enrichers.image import Facts, Image, Pixels, fitted

#: longest side in pixels at which sharpness is measured, so that it does not depend on the size of the file
SHARPNESS_SIDE = 512
#: longest side in pixels at which colours, brightness and contrast are measured
COLOUR_SIDE = 128
#: longest side in pixels of the picture that the perceptual hash is made of, before it is shrunk to 32×32
HASH_SIDE = 256

_MIME = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "HEIF": "image/heif",
    "AVIF": "image/avif",
}
_DATE = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_OFFSET = re.compile(r"[+-]\d\d:\d\d")


class Properties(Enricher):
    """Needs no model. Takes about 3 ms a picture of 640 pixels."""

    name = "properties"
    version = 1

    @property
    def form(self) -> Form:
        return Form(SHARPNESS_SIDE)

    @property
    def max_batch(self) -> int:
        return 32

    def load(self, loader: Loader) -> None:
        """There is nothing to load."""

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        return [Result({**file_properties(image.facts), **pixel_properties(image)}) for image in images]


def file_properties(facts: Facts) -> dict[str, Any]:
    """What the file says of itself; docs/documents.md lists the fields."""
    tags = facts.exif
    return {
        "format": facts.format,
        "mime_type": _MIME[facts.format],
        "width": facts.width,
        "height": facts.height,
        "megapixels": round(facts.width * facts.height / 1e6, 3),
        "aspect_ratio": round(facts.width / facts.height, 4),
        "bytes": facts.bytes,
        "sha256": facts.sha256,
        "orientation": facts.orientation,
        "frames": facts.frames,
        "has_alpha": facts.has_alpha,
        "bits": facts.bits,
        "colour_model": facts.mode,
        "colour_space": _colour_space(facts),
        "truncated": facts.truncated,
        "camera": camera(tags),
        "taken_at": taken_at(tags),
        "taken_offset": _taken_offset(tags),
        "location": location(tags.get("GPSInfo", {})),
        "altitude_m": altitude(tags.get("GPSInfo", {})),
        "description": _text(tags, "ImageDescription"),
        "artist": _text(tags, "Artist"),
        "copyright": _text(tags, "Copyright"),
        "software": _text(tags, "Software"),
    }


def _colour_space(facts: Facts) -> str | None:
    """The embedded profile's description, else what EXIF says; None where the file says nothing (sRGB is assumed)."""
    if facts.icc_profile:
        return facts.icc_profile
    if facts.exif.get("InteropIndex") == "R03":  # EXIF 2.32, 4.6.7: the Adobe RGB option file
        return "Adobe RGB"
    return "sRGB" if facts.exif.get("ColorSpace") == 1 else None


def camera(tags: Mapping[str, Any]) -> dict[str, Any] | None:
    """Make, model, lens and exposure of EXIF tags; None where there is none of them."""
    aperture, shutter = _number(tags, "ApertureValue"), _number(tags, "ShutterSpeedValue")  # APEX: EXIF 2.32, annex C
    flash = tags.get("Flash")
    found = {
        "make": _text(tags, "Make"),
        "model": _text(tags, "Model"),
        "lens": _text(tags, "LensModel"),
        "exposure_s": _positive(tags, "ExposureTime") or (_power(-shutter) if shutter is not None else None),
        "f_number": _positive(tags, "FNumber") or (_power(aperture / 2) if aperture is not None else None),
        "iso": _positive(tags, "ISOSpeedRatings") or _positive(tags, "PhotographicSensitivity"),
        "focal_length_mm": _positive(tags, "FocalLength"),
        "focal_length_35mm": _positive(tags, "FocalLengthIn35mmFilm"),
        "flash": bool(flash & 1) if isinstance(flash, int) else None,
    }
    return found if any(value is not None for value in found.values()) else None


def taken_at(tags: Mapping[str, Any]) -> datetime | None:
    """When the picture was taken, in the camera's local time, without a time zone."""
    for name in ("DateTimeOriginal", "DateTimeDigitized"):
        if match := _DATE.match(_text(tags, name) or ""):
            try:
                return datetime(*(int(part) for part in match.groups()))  # type: ignore[arg-type]
            except ValueError:  # 0000:00:00 stands for "not known"
                continue
    return None


def _taken_offset(tags: Mapping[str, Any]) -> str | None:
    for name in ("OffsetTimeOriginal", "OffsetTimeDigitized"):
        if _OFFSET.fullmatch(offset := _text(tags, name) or ""):
            return offset
    return None


def location(gps: Mapping[str, Any]) -> dict[str, Any] | None:
    """A GeoJSON point, longitude first, in degrees of WGS 84. None where there is no position, it is out of range, or
    the receiver had none: status V, or exactly 0° 0°, which cameras write without a fix."""
    latitude = _degrees(gps.get("GPSLatitude"), gps.get("GPSLatitudeRef"), "S", 90)
    longitude = _degrees(gps.get("GPSLongitude"), gps.get("GPSLongitudeRef"), "W", 180)
    if latitude is None or longitude is None or (latitude, longitude) == (0, 0) or gps.get("GPSStatus") == "V":
        return None
    return {"type": "Point", "coordinates": [longitude, latitude]}


def altitude(gps: Mapping[str, Any]) -> float | None:
    """Metres above sea level, negative below it."""
    metres = _number(gps, "GPSAltitude")
    if metres is None or not -12_000 < metres < 100_000:  # below the deepest sea, above the air: not a height
        return None
    below = gps.get("GPSAltitudeRef") in (1, (1,), "1", "\x01")
    return -metres if below else metres


def _degrees(value: Any, reference: Any, negative: str, limit: float) -> float | None:
    parts = value if isinstance(value, tuple) else (value,)
    if not 1 <= len(parts) <= 3 or not all(isinstance(part, (int, float)) for part in parts):
        return None
    degrees = sum(part / 60**index for index, part in enumerate(parts))
    if str(reference).upper().startswith(negative):
        degrees = -degrees
    return round(degrees, 7) if -limit <= degrees <= limit else None  # 7 decimals: a centimetre


def _text(tags: Mapping[str, Any], name: str) -> str | None:
    value = tags.get(name)
    return value.strip() or None if isinstance(value, str) else None


def _number(tags: Mapping[str, Any], name: str) -> float | None:
    value = tags.get(name)
    if isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, (int, float)) else None


def _positive(tags: Mapping[str, Any], name: str) -> float | None:
    value = _number(tags, name)
    return value if value is not None and value > 0 else None


def _power(exponent: float) -> float | None:
    return round(2**exponent, 6) if -30 < exponent < 30 else None


def pixel_properties(image: Image) -> dict[str, Any]:
    """What the pixels say; docs/documents.md lists the fields."""
    medium = fitted(image.pixels, SHARPNESS_SIDE)
    small = fitted(medium, COLOUR_SIDE)
    grey, light = (cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) for pixels in (medium, small))
    return {
        "brightness": round(float(light.mean()) / 255, 4),
        "contrast": round(float(light.std()) / 255, 4),
        "sharpness": round(float(cv2.Laplacian(grey, cv2.CV_32F).var()), 2),
        "colours": colours.dominant(small),
        "phash": phash(medium),
    }


#: the eight lowest frequencies of a cosine transform (type II, not normalised) of 32 samples
_COSINES = 2 * np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(32) + 1) / 64)


def phash(pixels: Pixels) -> str:
    """The 64-bit perceptual hash of a picture as 16 hex digits: grey, 32×32, cosine transform, its 8×8 lowest
    frequencies against their median. Near-duplicates differ in few bits.

    Source: C. Zauner, Implementation and benchmarking of perceptual image hash functions, 2010 (pHash), in the form of
    the `imagehash` library, whose hashes it equals but for bits near the median where the picture was shrunk before.
    """
    grey = np.asarray(
        Pillow.fromarray(fitted(pixels, HASH_SIDE)).convert("L").resize((32, 32), Pillow.Resampling.LANCZOS), np.float64
    )
    low = _COSINES @ grey @ _COSINES.T
    bits = (low > np.median(low)).ravel()
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"


def hamming(one: str, other: str) -> int:
    """Bits in which two perceptual hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()
