"""Containers that understate their pictures, and those that are put together wrongly."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from PIL import Image

from backend.errors import ServiceError
from backend.hunyuan3d.image.coded_sizes import UnreadableStream, av1_sizes, hevc_sizes
from backend.hunyuan3d.image.heif_boxes import as_still, check_container, recognise_brands
from backend.hunyuan3d.image.open_image import open_image
from backend.hunyuan3d.image.unfit import UnfitFile
from tests.support.picture_files import damaged_copies, encode, ramp

HEIC = (Path(__file__).parent / "heic" / "ramp.heic").read_bytes()
LARGE = Image.new("RGB", (640, 480), (200, 30, 30))


def size_box(width: int, height: int) -> bytes:
    """Return what an ispe box says."""
    return struct.pack(">II", width, height)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def container(items: bytes, places: bytes, properties: bytes = b"") -> bytes:
    """Return a container of one meta box. items : infe boxes; places : what iloc has after its widths."""
    count = items.count(b"infe")
    meta = box(b"iinf", struct.pack(">IH", 0, count) + items) + box(b"iloc", struct.pack(">IBB", 0, 0x44, 0) + places)
    meta += box(b"iprp", box(b"ipco", properties))
    return box(b"ftyp", b"avif\0\0\0\0avif") + box(b"meta", bytes(4) + meta)


def item(kind: bytes, number: int = 1) -> bytes:
    return box(b"infe", struct.pack(">IHH4s", 2 << 24, number, 0, kind) + b"\0")


@pytest.mark.parametrize("animated", [False, True])
def test_an_avif_is_measured_by_what_is_coded_in_it(animated: bool) -> None:
    more = {"save_all": True, "append_images": [LARGE]} if animated else {}
    whole = as_still(encode(LARGE, "AVIF", **more))
    check_container(whole, 640 * 480)
    small = whole.replace(size_box(640, 480), size_box(64, 64))
    assert small != whole
    # Its reader would decode all of it, and shrink that to what the container says.
    assert open_image(small).size == (64, 64)
    with pytest.raises(UnfitFile, match="is more than 10000 pixels"):
        check_container(small, 10_000)


def test_a_heic_is_measured_by_what_is_coded_in_it() -> None:
    small = HEIC.replace(size_box(96, 64), size_box(16, 16)).replace(size_box(64, 64), size_box(16, 16))
    assert small != HEIC
    check_container(small, 96 * 64)
    with pytest.raises(UnfitFile, match="more than 3000 pixels together"):
        check_container(small, 1000)


def test_many_parts_are_added_up() -> None:
    # Sequence header of 64 × 64: profile 0, still, reduced, level 0, 6 bits each, 63 and 63.
    header = b"\x0a\x05\x18\x15\x7f\xfc\0"
    assert list(av1_sizes(header)) == [(64, 64)]
    start = len(container(item(b"av01") * 40, bytes(2 + 40 * 14))) + 8
    places = b"".join(struct.pack(">HHHII", k + 1, 0, 1, start + 7 * k, 7) for k in range(40))
    data = container(b"".join(item(b"av01", k + 1) for k in range(40)), struct.pack(">H", 40) + places)
    data += box(b"mdat", header * 40)
    check_container(data, 64 * 64 * 14)
    with pytest.raises(UnfitFile, match="pixels together"):
        check_container(data, 64 * 64 * 13)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (box(b"ftyp", b"avif\0\0\0\0avif"), "no still picture"),
        (box(b"ftyp", b"avif\0\0\0\0avif") + box(b"meta", bytes(4)), "no still picture"),
        (container(item(b"unci"), b"\0\0"), "of a kind that is not read"),
        (container(item(b"iovl"), b"\0\0"), "of a kind that is not read"),
        (container(item(b"av01"), struct.pack(">HHHHII", 1, 1, 0, 1, 10, 2**31)), "damaged or truncated"),
        (container(item(b"av01"), struct.pack(">HHHHII", 1, 1, 0, 1, 10, 0)), "does not say how large"),
        (container(item(b"av01"), struct.pack(">HHH", 1, 1, 0)), "damaged or truncated"),
        (container(item(b"mime") * 5000, b"\0\0"), "more parts than"),
        (container(item(b"av01"), b"\xff\xff"), "more parts than"),
        (container(item(b"mime"), b"\0\0", box(b"ispe", bytes(4) + size_box(2**32 - 1, 2**32 - 1))), "more than"),
        (box(b"ftyp", b"avif\0\0\0\0avif") + box(b"meta", bytes(4) + struct.pack(">I4s", 4, b"iinf")), "damaged"),
    ],
)
def test_containers_that_make_no_sense_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnfitFile, match=reason):
        check_container(data, 1000)


def test_a_grid_is_measured_by_its_canvas() -> None:
    canvas = struct.pack(">BBBBHH", 0, 0, 0, 0, 60_000, 60_000)
    # Version 1 says where the bytes are: 1 is idat.
    placed = box(b"iloc", struct.pack(">IBB", 1 << 24, 0x44, 0) + struct.pack(">HHHHHII", 1, 1, 1, 0, 1, 0, 8))
    meta = box(b"iinf", struct.pack(">IH", 0, 1) + item(b"grid")) + placed + box(b"iprp", box(b"ipco", b""))
    data = box(b"ftyp", b"heic\0\0\0\0heic") + box(b"meta", bytes(4) + meta + box(b"idat", canvas))
    with pytest.raises(UnfitFile, match="60000×60000 is more than"):
        check_container(data, 64_000_000)


def test_random_damage_of_a_heic_gives_an_image_or_a_named_error() -> None:
    refused = 0
    for data in damaged_copies(HEIC, seed=6, files=150, most=6):
        try:
            assert open_image(data).mode in ("RGB", "RGBA")
        except ServiceError:
            refused += 1
    assert refused > 10


def test_streams_are_followed_to_their_end() -> None:
    with pytest.raises(UnreadableStream, match="too many units"):
        list(av1_sizes(b"\x12\x00" * 5000))
    with pytest.raises(UnreadableStream, match="too many units"):
        list(hevc_sizes(b"\x00\x01a" * 5000, 2))
    for damaged in (b"\x0a\xff", b"\x0a\x80", b"\x0a\x01\x18", b"\x80", b"\x0a" + b"\xff" * 9):
        with pytest.raises(UnreadableStream):
            list(av1_sizes(damaged))
    with pytest.raises(UnreadableStream):
        list(hevc_sizes(b"\x00\x09B", 2))


def test_brands_tell_the_format() -> None:
    for brands, form in (
        (b"avif\0\0\0\0mif1", "AVIF"),
        (b"mif1\0\0\0\0mif1avif", "AVIF"),
        (b"heic\0\0\0\0mif1heic", "HEIC"),
        (b"mif1\0\0\0\0mif1heix", "HEIC"),
        (b"isom\0\0\0\0isomiso2", None),
    ):
        assert recognise_brands(box(b"ftyp", brands)) == form
    assert recognise_brands(encode(ramp(), "AVIF")[:300]) == "AVIF"
