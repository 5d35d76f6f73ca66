"""The EXIF tags of an opened file as plain types, by their names in the EXIF standard."""

import math
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image

#: what a damaged EXIF block makes Pillow raise; the picture is read all the same
DAMAGED = (ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError, OSError, EOFError, ArithmeticError)

#: longest text and longest list of numbers that are kept; longer ones are thumbnails, maker notes and the like
MAX_TEXT, MAX_NUMBERS = 1024, 64

_SKIPPED = {"MakerNote", "PrinterIM", "PrintImageMatching", "XMLPacket", "ImageResources", "InterColorProfile"}


def read(image: Image.Image) -> dict[str, Any]:
    """The tags of the main, Exif and GPS directories; GPS tags under `GPSInfo`. What is damaged is left out.

    Values are numbers, strings and tuples of numbers; bytes that are no text are left out, as are values longer
    than `MAX_TEXT` or `MAX_NUMBERS`.
    """
    try:
        exif = image.getexif()
        tags = _plain(exif, ExifTags.TAGS)
    except DAMAGED:
        return {}
    for pointer in ("ExifOffset", "GPSInfo"):
        tags.pop(pointer, None)
    for ifd, names in ((ExifTags.IFD.Exif, ExifTags.TAGS), (ExifTags.IFD.GPSInfo, ExifTags.GPSTAGS)):
        try:
            found = _plain(exif.get_ifd(ifd), names)
        except DAMAGED:
            continue
        if ifd == ExifTags.IFD.GPSInfo and found:
            tags["GPSInfo"] = found
        elif ifd == ExifTags.IFD.Exif:
            tags |= found
    return tags


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it is missing or invalid."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except DAMAGED:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _plain(tags: Mapping[int, Any], names: Mapping[int, str]) -> dict[str, Any]:
    found = {}
    for tag, value in tags.items():
        name = names.get(tag)
        if name and name not in _SKIPPED:
            plain = _value(value, name)
            if plain is not None:
                found[name] = plain
    return found


def _value(value: Any, name: str) -> Any:
    if isinstance(value, bytes):
        if name == "UserComment":  # its first eight bytes name the character code
            value = value[8:]
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            return None
        if not value.strip("\0 ").isprintable():
            return tuple(value.encode()) if len(value) <= 4 else None
    if isinstance(value, str):
        text = value.split("\0")[0].strip()
        return text[:MAX_TEXT] or None
    if isinstance(value, (tuple, list)):
        if not value or len(value) > MAX_NUMBERS:
            return None
        numbers = tuple(_number(item) for item in value)
        return None if any(number is None for number in numbers) else numbers
    return _number(value)


def _number(value: Any) -> int | float | None:
    """A finite number, whole where the file says so; None for 1/0 and the like."""
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else None
    try:
        number = float(value)
    except (ValueError, TypeError, ArithmeticError):
        return None
    return number if math.isfinite(number) else None
