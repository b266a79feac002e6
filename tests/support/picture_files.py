"""Picture files put together by hand, where no encoder would make them: headers that promise what is not there.

This module does not know how they are refused.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

Tag = tuple[int, int, int, int]
"""A TIFF's tag: its number, its type, how many values, and the first, or where they are."""


def ramp(mode: str = "RGB") -> Image.Image:
    """Return a small picture whose colours rise to the right and downwards."""
    rows, columns = np.mgrid[0:24, 0:32]
    values = np.stack([rows * 10, columns * 8, (rows + columns) * 4], axis=-1).astype(np.uint8)
    return Image.fromarray(values).convert(mode)


def noise() -> Image.Image:
    """Return a small picture that no encoder makes much smaller."""
    return Image.fromarray(np.random.default_rng(5).integers(0, 255, (48, 64, 3), dtype=np.uint8))


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    """Return a picture as a file's bytes."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def damaged_copies(whole: bytes, seed: int, files: int, most: int, reach: int | None = None) -> Iterator[bytes]:
    """Give copies of a file with some bytes changed at random, the same for a seed.

    files : how many; most : fewer bytes than that are changed in each; reach : of the first so many, None for all
    """
    random = np.random.default_rng(seed)
    end = len(whole) if reach is None else min(len(whole), reach)
    for _ in range(files):
        data = bytearray(whole)
        for place in random.integers(0, end, random.integers(1, most)):
            data[place] = random.integers(0, 256)
        yield bytes(data)


def marked() -> np.ndarray:
    """Return a picture (24, 40, 3) that looks another way however it is turned."""
    image = np.zeros((24, 40, 3), np.uint8)
    image[:8, :8] = 255
    return image


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return how an image (h, w, 3) looks that EXIF says lies in this orientation, 1 to 8."""
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90,
    }
    return turns[orientation](image)


def gif(
    screen: tuple[int, int] = (32, 24), frame: tuple[int, int] = (32, 24), notes: bytes = b"", pixels: bytes = b"\0"
) -> bytes:
    """Return a GIF. notes : what stands before its only frame."""
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + notes + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02" + pixels + b"\0;"


def bmp(width: int, height: int, *, compression: int = 0, pixels: bytes = b"") -> bytes:
    """Return a BMP of 8 bits a pixel; the pixels are its caller's affair."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(pixels), 0, 0, 256, 0)
    start = 14 + len(info) + 1024
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + bytes(1024) + pixels


def tiff(
    width: int,
    height: int,
    *,
    tile: tuple[int, int] | None = None,
    rows_per_strip: int | None = None,
    level: int = 0,
    big: bool = False,
    more: Sequence[Tag] = (),
) -> bytes:
    """Return a grey TIFF whose pixels, all at one level, are there only as far as they are few.

    tile : width and height of its tiles; it is in strips without. big : as a BigTIFF. more : further tags
    """
    start = 16 if big else 8
    across, down = (-(-width // tile[0]), -(-height // tile[1])) if tile else (1, 1)
    piece = (tile[0] * tile[1] if tile else width * height) if width * height <= 1 << 16 else 0
    piece = piece if piece <= 1 << 16 else 0
    pieces = across * down if piece else 1
    pixels = bytes([level]) * (piece * pieces)
    place_width = 8 if big else 4
    places = b"".join((start + piece * k).to_bytes(place_width, "little") for k in range(pieces))
    sizes = piece.to_bytes(place_width, "little") * pieces
    at = start + len(pixels)
    where = [at, at + len(places)] if pieces > 1 else [start, piece]
    kind = 16 if big else 4
    tags: list[Tag] = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    if tile:
        tags += [(277, 3, 1, 1), (322, 4, 1, tile[0]), (323, 4, 1, tile[1])]
        tags += [(324, kind, pieces, where[0]), (325, kind, pieces, where[1])]
    else:
        tags += [(273, kind, 1, start), (277, 3, 1, 1)]
        tags += [(278, 4, 1, height if rows_per_strip is None else rows_per_strip), (279, kind, 1, piece)]
    tags += more
    entry = "<HHQQ" if big else "<HHII"
    directory = struct.pack("<Q" if big else "<H", len(tags)) + b"".join(struct.pack(entry, *tag) for tag in tags)
    first = at + len(places) + len(sizes)
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else struct.pack("<2sHI", b"II", 42, first)
    return head + pixels + places + sizes + directory + bytes(8 if big else 4)
