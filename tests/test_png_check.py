"""PNGs that are not as their encoder left them are refused, wherever the damage is, and sound ones are not."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from backend.errors import InvalidImage
from backend.hunyuan3d.image.open_image import open_image
from backend.hunyuan3d.image.png_check import DamagedPng, check_png
from tests.support.hostile_pictures import good_png, png, png_chunk
from tests.support.picture_files import encode

NOISE = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Return each chunk's name, where its data begin, and their length."""
    found, position = [], 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        found.append((data[position + 4 : position + 8], position + 8, length))
        position += length + 12
    return found


def put_together(*parts: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in parts)


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def noise(**options: object) -> bytes:
    return encode(Image.fromarray(NOISE), "PNG", **options)


def body_of(data: bytes) -> tuple[bytes, bytes]:
    """Return a PNG's header and all its compressed pixels."""
    parts = [(kind, data[start : start + length]) for kind, start, length in chunks(data)]
    return parts[0][1], b"".join(body for kind, body in parts if kind == b"IDAT")


def sound() -> Iterator[bytes]:
    yield good_png()
    yield noise()
    yield encode(Image.fromarray(NOISE).convert("P"), "PNG")
    yield encode(Image.fromarray(NOISE).convert("1"), "PNG")
    yield encode(Image.fromarray(NOISE).convert("LA"), "PNG", dpi=(72, 72))
    header, body = body_of(noise())
    yield put_together((b"IHDR", header), *((b"IDAT", body[k : k + 7]) for k in range(0, len(body), 7)), (b"IEND", b""))
    yield put_together((b"IHDR", header), (b"IDAT", b""), (b"IDAT", body), (b"tEXt", b"a\0b"), (b"IEND", b"")) + b"more"


@pytest.mark.parametrize("data", list(sound()))
def test_a_sound_png_is_opened(data: bytes) -> None:
    check_png(io.BytesIO(data))
    with Image.open(io.BytesIO(data)) as image:
        assert open_image(data).size == image.size


def test_an_interlaced_png_is_opened() -> None:
    # Adam7 of 9 x 9 grey pixels: seven small pictures, each row behind its filter byte.
    columns = [range(0, 9, 8), range(4, 9, 8), range(0, 9, 4), range(2, 9, 4), range(0, 9, 2), range(1, 9, 2), range(9)]
    rows = [
        range(0, 9, 8),
        range(0, 9, 8),
        range(4, 9, 8),
        range(0, 9, 4),
        range(2, 9, 4),
        range(0, 9, 2),
        range(1, 9, 2),
    ]
    pixels = b"".join(b"\0" + bytes(len(across)) for across, down in zip(columns, rows, strict=True) for _ in down)
    header = struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 1)
    data = put_together((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    check_png(io.BytesIO(data))
    assert open_image(data).size == (9, 9)


def test_every_bit_of_the_critical_chunks_is_guarded() -> None:
    data = good_png()
    for kind, start, length in chunks(data):
        for position in range(start - 4, start + length + 4):
            with pytest.raises(DamagedPng):
                check_png(io.BytesIO(flipped(data, position)))
        assert kind in (b"IHDR", b"IDAT", b"IEND")


def test_a_png_ends_with_its_last_chunk() -> None:
    data = good_png()
    for size in range(33, len(data)):
        with pytest.raises(DamagedPng, match=r"breaks off|checksum"):
            check_png(io.BytesIO(data[:size]))


@pytest.mark.parametrize(("kind", "words"), [(b"IHDR", "header"), (b"IDAT", "chunk IDAT"), (b"IEND", "chunk IEND")])
def test_the_refusal_says_where_the_damage_is(kind: bytes, words: str) -> None:
    data = noise()
    position = next(start + length for name, start, length in chunks(data) if name == kind)
    with pytest.raises(InvalidImage, match=words):
        open_image(flipped(data, position), name="mug.png")


def test_pixels_whose_own_checksum_is_wrong_are_refused() -> None:
    header, body = body_of(noise())
    data = put_together((b"IHDR", header), (b"IDAT", flipped(body, len(body) - 1)), (b"IEND", b""))
    with pytest.raises(InvalidImage, match=r"mug.png: it is damaged or truncated: its pixels are damaged"):
        open_image(data, name="mug.png")


@pytest.mark.parametrize("missing", [1, 4, 5, 100])
def test_pixels_that_break_off_inside_sound_chunks_are_refused(missing: int) -> None:
    header, body = body_of(noise())
    data = put_together((b"IHDR", header), (b"IDAT", body[:-missing]), (b"IEND", b""))
    with pytest.raises(InvalidImage, match="its pixels break off"):
        open_image(data)


def test_chunks_that_may_be_left_out_are_not_regarded_behind_the_pixels() -> None:
    data = put_together(
        (b"IHDR", body_of(noise())[0]), (b"IDAT", body_of(noise())[1]), (b"tEXt", b"a\0b"), (b"IEND", b"")
    )
    text = next(start for kind, start, _ in chunks(data) if kind == b"tEXt")
    check_png(io.BytesIO(flipped(data, text)))


def test_data_beyond_the_pixels_are_not_inflated() -> None:
    rows = (b"\0" + bytes(16)) * 16
    data = png(16, 16, pixels=rows + bytes(40_000_000))
    assert open_image(data).size == (16, 16)


def test_pieces_of_any_size_are_read_alike() -> None:
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)), "PNG")
    starts = [start for kind, start, _ in chunks(data) if kind == b"IDAT"]
    assert all(later > earlier for earlier, later in pairwise(starts))
    check_png(io.BytesIO(data))
    with pytest.raises(DamagedPng, match=r"damaged|chunk IDAT is wrong"):
        check_png(io.BytesIO(flipped(data, starts[-1] + 9)))
