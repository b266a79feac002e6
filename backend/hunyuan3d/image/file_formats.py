"""The formats of picture files that are taken: told by their content, measured, then opened by their reader.

Everything that a reader would lay out or work through before a picture's size is known is checked here first. This
module does not know what becomes of the pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import BinaryIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    TiffTags,
    WebPImagePlugin,
)

from backend.hunyuan3d.image.heif_boxes import as_still, check_container, recognise_brands
from backend.hunyuan3d.image.plain_headers import BMP_HEADS, Size, bmp_size, gif_size, tiff_size
from backend.hunyuan3d.image.png_check import DamagedPng, check_png
from backend.hunyuan3d.image.unfit import UnfitFile
from backend.limits import IMAGE_FORMATS, OPTIONAL_IMAGE_FORMATS

HEAD_BYTES = 300
"""As much of a file's start as tells every format: a container lists its brands."""

_HEIF_PACKAGES = ("pi_heif", "pillow_heif")
_STARTS: Mapping[str, tuple[bytes, ...]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
# A progressive JPEG names at most a few dozen scans; each costs a pass over the whole picture.
_MOST_SCANS = 100
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class MeasuredFile:
    """A file whose header was looked at.

    size : width and height, where they were learned without its reader; open : gives the reader, with nothing decoded;
    check : sees that the file is whole, where its reader would not notice that it isn't
    """

    size: Size | None
    open: Callable[[], ImageFile.ImageFile]
    check: Callable[[], None] = lambda: None


def heif_reader() -> str | None:
    """Return the name of the installed package that reads HEIC, or None."""
    return next((name for name in _HEIF_PACKAGES if find_spec(name) is not None), None)


def taken_formats() -> tuple[str, ...]:
    """Return the names of the formats that are read here."""
    return (*IMAGE_FORMATS, *(OPTIONAL_IMAGE_FORMATS if heif_reader() else ()))


def recognise(head: bytes) -> str | None:
    """Return the format of a file that starts so, also where it is not read here; None for any other."""
    for form, starts in _STARTS.items():
        if head.startswith(starts):
            return form
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in BMP_HEADS:
        return "BMP"
    return recognise_brands(head)


def measure(form: str, stream: BinaryIO, head: bytes, file_bytes: int, most_pixels: int) -> MeasuredFile:
    """Look at a file of a format that is taken. Raises UnfitFile."""
    if form in ("AVIF", "HEIC"):
        return _measure_container(form, stream, most_pixels)
    if form == "JPEG" and count_scans(stream) > _MOST_SCANS:
        raise UnfitFile("it has more scans than a photograph needs")
    size: Size | None = None
    if form == "WebP":
        # Its reader lays out the whole canvas when opened.
        size = webp_size(head, file_bytes)
    elif form == "GIF":
        size = gif_size(stream)
    elif form == "BMP":
        size = bmp_size(stream, file_bytes)
    elif form == "TIFF":
        size = tiff_size(stream, file_bytes, most_pixels)
    reader = _READERS[form]
    check = partial(_check_png, stream) if form == "PNG" else None
    return MeasuredFile(size, lambda: reader(stream), check or (lambda: None))


def _measure_container(form: str, stream: BinaryIO, most_pixels: int) -> MeasuredFile:
    stream.seek(0)
    data = as_still(stream.read())
    check_container(data, most_pixels)
    reader = AvifImagePlugin.AvifImageFile if form == "AVIF" else _open_heic
    return MeasuredFile(None, lambda: reader(io.BytesIO(data)))


def _open_tiff(stream: BinaryIO) -> ImageFile.ImageFile:
    """Open a TIFF. What it notes is read now, but for further directories: decoding would follow them, and warn."""
    image = TiffImagePlugin.TiffImageFile(stream)
    notes = image.getexif()
    for directory in TiffTags.TAGS_V2_GROUPS:
        if directory in notes:
            del notes[directory]
    return image


_READERS: Mapping[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": _open_tiff,
}


def _open_heic(stream: BinaryIO) -> ImageFile.ImageFile:
    """Open a HEIC with the package that is installed, which registers nothing with Pillow."""
    package = import_module(f"{heif_reader()}.as_plugin")
    reader: Callable[[BinaryIO], ImageFile.ImageFile] = package.HeifImageFile
    return reader(stream)


def _check_png(stream: BinaryIO) -> None:
    """See that a PNG is whole, which its reader does not; leave the stream where it is. Raises UnfitFile."""
    position = stream.tell()
    try:
        check_png(stream)
    except DamagedPng as error:
        raise UnfitFile(f"it is damaged or truncated: {error}") from error
    stream.seek(position)


def count_scans(stream: BinaryIO) -> int:
    """Return how often a JPEG's bytes say that a scan starts (ITU-T T.81, marker SOS)."""
    stream.seek(0)
    count, last = 0, b""
    while piece := stream.read(_PIECE_BYTES):
        count += piece.count(b"\xff\xda") + (last == b"\xff" and piece[:1] == b"\xda")
        last = piece[-1:]
    return count


def webp_size(start: bytes, size: int) -> Size:
    """Read the canvas size from the first chunk (RFC 9649, sections 2.5 to 2.7). Raises UnfitFile."""
    head = start[12:30].ljust(18, b"\0")
    kind, body = head[:4], head[8:]
    if int.from_bytes(start[4:8], "little") + 8 > size:
        raise UnfitFile("it is truncated")
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise UnfitFile("its WebP header is damaged")
