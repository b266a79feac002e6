"""What must be known of GIF, BMP and TIFF files before a reader opens them: their size, and that they are no bombs.

Forms: CompuServe's GIF89a; Microsoft's bitmap headers; Adobe's TIFF 6.0, and BigTIFF. This module does not know how
pixels are decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from backend.hunyuan3d.image.unfit import UnfitFile

Size = tuple[int, int]

_MOST_GIF_NOTES = 1 << 20
"""Bytes before a GIF's first frame: its reader joins them one block at a time."""

_MOST_RLE_BYTES = 4 << 20
"""Bytes of a run-length coded BMP, whose runs are read one by one in Python."""

BMP_HEADS = (12, 40, 52, 56, 64, 108, 124)
_RLE = (1, 2)

_TIFF_WHOLE_NUMBER_BYTES = {1: 1, 3: 2, 4: 4, 16: 8}
_TIFF_UNITS = (1, 2, 6, 7)
"""Types of single bytes, which are kept as they are; of all others each becomes a number."""

_MOST_TIFF_TAGS = 1024
_MOST_TIFF_NUMBERS = 1 << 18
"""Numbers of one tag, as the places of strips: a row of the narrowest picture may be a strip of its own."""

_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323


def gif_size(stream: BinaryIO) -> Size:
    """Return the canvas that the first frame needs. Raises UnfitFile."""
    stream.seek(6)
    width, height, flags = struct.unpack("<HHB", _exactly(stream, 5))
    stream.seek(13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0))
    notes = 0
    while (kind := _exactly(stream, 1)) != b",":
        if kind == b"!":
            stream.seek(1, 1)
            while size := _exactly(stream, 1)[0]:
                stream.seek(size, 1)
                # A block costs its reader the more the smaller it is.
                notes += max(size, 32)
                if notes > _MOST_GIF_NOTES:
                    raise UnfitFile("it has more notes than a picture needs")
        elif kind == b";":
            raise UnfitFile("it has no picture")
        else:
            notes += 32
            if notes > _MOST_GIF_NOTES:
                raise UnfitFile("it is damaged or truncated")
    left, top, frame_width, frame_height = struct.unpack("<HHHH", _exactly(stream, 8))
    return max(width, left + frame_width), max(height, top + frame_height)


def bmp_size(stream: BinaryIO, file_bytes: int) -> Size:
    """Return the size that the header says. Raises UnfitFile."""
    stream.seek(14)
    head = int.from_bytes(_exactly(stream, 4), "little")
    if head == 12:
        width, height = struct.unpack("<HH", _exactly(stream, 4))
        return width, height
    width, height = struct.unpack("<ii", _exactly(stream, 8))
    compression = int.from_bytes(_exactly(stream, 8)[4:], "little")
    if compression in _RLE and file_bytes > _MOST_RLE_BYTES:
        raise UnfitFile(f"it is run-length coded and larger than {_MOST_RLE_BYTES} bytes")
    if width < 0:
        raise UnfitFile("its header is damaged")
    return width, abs(height)


@dataclass(frozen=True)
class _Tag:
    """What a directory says of one tag. value : its whole number, where it has a single one; else without meaning."""

    kind: int
    count: int
    value: int


def tiff_size(stream: BinaryIO, file_bytes: int, most_pixels: int) -> Size:
    """Return the size of the first picture. Raises UnfitFile."""
    tags = _tiff_tags(stream, file_bytes)
    for tag in tags.values():
        if tag.kind not in _TIFF_UNITS and tag.count > _MOST_TIFF_NUMBERS:
            raise UnfitFile("a tag has more numbers than a picture needs")
    width, height = (tags[name].value if name in tags else 0 for name in (_WIDTH, _HEIGHT))
    tile = [tags[name].value for name in (_TILE_WIDTH, _TILE_HEIGHT) if name in tags]
    # A tile is decoded whole, however little of it lies in the picture.
    if len(tile) == 2 and tile[0] * tile[1] > most_pixels:
        raise UnfitFile(f"its tiles of {tile[0]}×{tile[1]} are more than {most_pixels} pixels")
    return width, height


def _tiff_tags(stream: BinaryIO, file_bytes: int) -> Mapping[int, _Tag]:
    """Return the first directory. Of a tag that is there twice the first counts, as for its reader."""
    stream.seek(0)
    order = "<" if _exactly(stream, 2) == b"II" else ">"
    is_big = struct.unpack(f"{order}H", _exactly(stream, 2))[0] == 43
    if is_big:
        stream.seek(8)
    (at,) = struct.unpack(f"{order}{'Q' if is_big else 'L'}", _exactly(stream, 8 if is_big else 4))
    if at >= file_bytes:
        raise UnfitFile("it is truncated")
    stream.seek(at)
    (count,) = struct.unpack(f"{order}{'Q' if is_big else 'H'}", _exactly(stream, 8 if is_big else 2))
    if count > _MOST_TIFF_TAGS:
        raise UnfitFile("it has more tags than a picture needs")
    entry = struct.Struct(f"{order}{'HHQ8s' if is_big else 'HHL4s'}")
    tags: dict[int, _Tag] = {}
    for _ in range(count):
        name, kind, number, raw = entry.unpack(_exactly(stream, entry.size))
        value = int.from_bytes(raw[: _TIFF_WHOLE_NUMBER_BYTES.get(kind, 0)], "little" if order == "<" else "big")
        tags.setdefault(name, _Tag(kind, number, value))
    return tags


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise UnfitFile("it is truncated")
    return data
