"""What kind of file some bytes are: the formats that enrichd decodes, and the names of those that it refuses."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

#: formats that are decoded, by the name that `Facts.format` gives
DECODED = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "HEIF", "AVIF")

#: bytes at the start of a file that are looked at for text and containers
HEAD = 4096

# Signatures at the start of a file: https://www.garykessler.net/library/file_sigs.html and the formats' own
# specifications. Longer ones stand before their prefixes.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"II\xbc", "JPEG XR"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript (EPS)"),
    (b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (b"II\x1a\x00\x00\x00HEAPCCDR", "camera RAW (Canon CRW)"),
    (b"FUJIFILMCCD-RAW", "camera RAW (Fujifilm RAF)"),
    (b"IIU\x00", "camera RAW (Panasonic RW2)"),
    (b"IIRO", "camera RAW (Olympus ORF)"),
    (b"IIRS", "camera RAW (Olympus ORF)"),
    (b"MMOR", "camera RAW (Olympus ORF)"),
    (b"\x00MRM", "camera RAW (Minolta MRW)"),
    (b"FOVb", "camera RAW (Sigma X3F)"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"qoif", "QOI"),
    (b"DDS ", "DirectDraw Surface (DDS)"),
    (b"BLP1", "Blizzard texture (BLP)"),
    (b"BLP2", "Blizzard texture (BLP)"),
    (b"FTEX", "FTEX texture"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"\x00\x00\x01\x00", "Windows icon (ICO)"),
    (b"\x00\x00\x02\x00", "Windows cursor (CUR)"),
    (b"icns", "Apple icon (ICNS)"),
    (b"\x01\xda", "Silicon Graphics image (SGI)"),
    (b"\x59\xa6\x6a\x95", "Sun raster image"),
    (b"\x0a\x05\x01", "PCX"),
    (b"\x0a\x02\x01", "PCX"),
    (b"\x0a\x03\x01", "PCX"),
    (b"\xb1\x68\xde\x3a", "DCX"),
    (b"DanM", "Microsoft Paint (MSP)"),
    (b"LinS", "Microsoft Paint (MSP)"),
    (b"SIMPLE  =", "FITS"),
    (b"\xd7\xcd\xc6\x9a", "Windows metafile (WMF)"),
    (b"\x01\x00\x09\x00", "Windows metafile (WMF)"),
    (b"AT&TFORM", "DjVu"),
    (b"\x8aMNG\r\n\x1a\n", "MNG animation"),
    (b"\x8bJNG\r\n\x1a\n", "JNG"),
    (b"/* XPM */", "XPM"),
    (b"! XPM2", "XPM"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Microsoft compound file (Office document, FlashPix)"),
    (b"PK\x03\x04", "ZIP archive or Office document"),
    (b"PK\x05\x06", "ZIP archive or Office document"),
    (b"\x1f\x8b", "gzip archive"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ\x00", "xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip archive"),
    (b"Rar!\x1a\x07", "RAR archive"),
    (b"\x1aE\xdf\xa3", "video (Matroska or WebM)"),
    (b"FLV\x01", "video (Flash)"),
    (b"\x00\x00\x01\xba", "video (MPEG)"),
    (b"\x00\x00\x01\xb3", "video (MPEG)"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video (Windows Media)"),
    (b"ID3", "audio (MP3)"),
    (b"OggS", "audio or video (Ogg)"),
    (b"fLaC", "audio (FLAC)"),
    (b"\x7fELF", "program"),
    (b"MZ", "program"),
    (b"{\\rtf", "RTF document"),
)

_RIFF = {b"WEBP": "WEBP", b"AVI ": "video (AVI)", b"WAVE": "audio (WAV)", b"ACON": "Windows animated cursor (ANI)"}

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_BRANDS = {b"crx ": "camera RAW (Canon CR3)", b"jp2 ": "JPEG 2000", b"jxl ": "JPEG XL", b"M4A ": "audio (M4A)"}

_TIFF_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">", b"II+\x00": "<", b"MM\x00+": ">"}
_TAG_COMPRESSION, _TAG_PHOTOMETRIC, _TAG_MAKE, _TAG_SUB_IFDS, _TAG_DNG = 259, 262, 271, 330, 50706
#: PhotometricInterpretation of a sensor's mosaic and of linear sensor data (TIFF/EP, DNG 1.6)
_RAW_PHOTOMETRIC = {32803, 34892}
#: Compression values that only camera makers write: Sony ARW, Nikon NEF, Pentax PEF, Kodak, Samsung SRW
_RAW_COMPRESSION = {32767, 34713, 65535, 65000, 32770}
_MAKERS = {
    "NIKON": "Nikon NEF",
    "SONY": "Sony ARW",
    "CANON": "Canon CR2",
    "PENTAX": "Pentax PEF",
    "RICOH": "Pentax PEF",
    "SAMSUNG": "Samsung SRW",
    "HASSELBLAD": "Hasselblad 3FR",
    "PHASE ONE": "Phase One IIQ",
    "LEAF": "Leaf MOS",
    "EASTMAN KODAK": "Kodak DCR",
    "KODAK": "Kodak DCR",
    "EPSON": "Epson ERF",
    "MAMIYA": "Mamiya MEF",
}
#: directories and entries of a TIFF file that are looked at; real ones have fewer
_MAX_IFDS, _MAX_ENTRIES = 16, 512

_TEXT_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_PNM = re.compile(rb"P[1-7fF][\s#]")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is: one of `DECODED`, or the name of something that is refused."""

    name: str

    @property
    def decoded(self) -> bool:
        return self.name in DECODED


def recognise(data: bytes) -> Kind | None:
    """What kind of file `data` is by its content, never by a file name; None if nothing is known about it."""
    name = _recognise(data)
    return Kind(name) if name else None


def _recognise(data: bytes) -> str | None:
    if data[:4] in _TIFF_ORDERS:
        raw = _tiff_raw(data)
        return f"camera RAW ({raw})" if raw else "TIFF"
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _base_media(data)
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:2] == b"BM" and len(data) >= 26 and (data[6:10] == bytes(4) or data[14] in _BMP_HEADERS):
        return "BMP"
    if data[4:8] in (b"moov", b"mdat", b"wide") or data[4:12] == b"free\x00\x00":
        return "video (QuickTime)"
    if data[4:6] in (b"\x11\xaf", b"\x12\xaf"):
        return "FLIC animation"
    if data[257:262] == b"ustar":
        return "tar archive"
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[40:44] == b" EMF":
        return "Windows metafile (EMF)"
    if _PNM.match(data):
        return "Netpbm image (PBM, PGM, PPM)"
    if data[-18:-2] == b"TRUEVISION-XFILE":
        return "Targa (TGA)"
    return _text(data[:HEAD])


#: sizes of the header that follows a BMP file header: OS/2 1 and 2, Windows 3, 4, 5 and their variants
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}


def _base_media(data: bytes) -> str | None:
    """ISO base media files by their brands (ISO/IEC 14496-12, 23008-12)."""
    size = min(struct.unpack_from(">I", data)[0], HEAD, len(data))
    major = data[8:12]
    brands = {major} | {data[at : at + 4] for at in range(16, size - 3, 4)}
    if major in _AVIF_BRANDS or (brands & _AVIF_BRANDS and major in {b"mif1", b"msf1"}):
        return "AVIF"
    if brands & _HEIF_BRANDS:
        return "HEIF"
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return _BRANDS.get(major, "video (MP4, QuickTime)")


def _text(head: bytes) -> str | None:
    if not head or _TEXT_CONTROLS.search(head):
        return None
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not merely a character cut in two at the end of the head
            return None
        text = head[: error.start].decode("utf-8-sig")
    start = text.lstrip().lower()
    if "<svg" in start:
        return "SVG"
    if start.startswith(("<!doctype html", "<html")):
        return "HTML page"
    if start.startswith("<?xml"):
        return "XML text"
    return "text"


def _tiff_raw(data: bytes) -> str | None:
    """The kind of camera RAW file that a TIFF container holds, or None for an ordinary TIFF file."""
    if data[:2] == b"II" and data[8:10] == b"CR":
        return "Canon CR2"
    maker, raw = "", False
    for tags in _directories(data):
        if _TAG_DNG in tags:
            return "DNG"
        maker = maker or _ascii(data, tags.get(_TAG_MAKE)).strip().upper()
        photometric, compression = (_first(tags.get(tag)) for tag in (_TAG_PHOTOMETRIC, _TAG_COMPRESSION))
        raw = raw or photometric in _RAW_PHOTOMETRIC or compression in _RAW_COMPRESSION
    if not raw:
        return None
    return next((name for start, name in _MAKERS.items() if maker.startswith(start)), maker.title() or "unknown camera")


Entry = tuple[int, tuple[int, ...]]  # type and values; for text its offset and length


def _directories(data: bytes) -> Iterator[dict[int, Entry]]:
    """The tags of the first directory of a TIFF file and of those below it. A damaged one ends the search."""
    order = _TIFF_ORDERS[data[:4]]
    big = data[2:4] in (b"+\x00", b"\x00+")
    count_format, entry_size, inline = (order + "Q", 20, 8) if big else (order + "H", 12, 4)
    offset_format = order + ("Q" if big else "I")
    try:
        queue, seen = [struct.unpack_from(offset_format, data, 8 if big else 4)[0]], set[int]()
        while queue and len(seen) < _MAX_IFDS:
            at = queue.pop(0)
            if at in seen:
                continue
            seen.add(at)
            (count,) = struct.unpack_from(count_format, data, at)
            at += struct.calcsize(count_format)
            tags: dict[int, Entry] = {}
            for index in range(min(count, _MAX_ENTRIES)):
                entry = at + index * entry_size
                tag, kind, length = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, entry)
                width = {1: 1, 2: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}.get(kind)
                if width is None or tag not in _LOOKED_AT:
                    continue
                value = entry + entry_size - inline
                if length * width > inline:
                    (value,) = struct.unpack_from(offset_format, data, value)
                if kind == 2:
                    tags[tag] = (kind, (value, length))
                else:
                    code = {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
                    tags[tag] = (kind, struct.unpack_from(f"{order}{min(length, _MAX_IFDS)}{code}", data, value))
            yield tags
            queue += tags.get(_TAG_SUB_IFDS, (0, ()))[1]
    except (struct.error, OverflowError):
        return


_LOOKED_AT = {_TAG_COMPRESSION, _TAG_PHOTOMETRIC, _TAG_MAKE, _TAG_SUB_IFDS, _TAG_DNG}


def _first(entry: Entry | None) -> int | None:
    return entry[1][0] if entry and entry[1] else None


def _ascii(data: bytes, entry: Entry | None) -> str:
    if not entry or entry[0] != 2:
        return ""
    start, length = entry[1]
    return data[start : start + min(length, 64)].split(b"\0")[0].decode("ascii", "replace")
