"""Pictures of every kind and every kind of bad file, each with its one named error."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from backend.errors import InvalidImage, InvalidParameter, MissingImage, ServiceError, UnsupportedImage
from backend.hunyuan3d.image import file_formats
from backend.hunyuan3d.image.open_image import ImageLimits, open_image
from tests.support.picture_files import damaged_copies, marked, turned


def _ramp(height: int = 24, width: int = 32) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns * 7, rows * 9, (rows + columns) * 4], axis=-1).astype(np.uint8)


def _encode(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, pixels: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", zlib.compress(pixels)) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_lossless_pixels_come_back_from_bytes_and_path(form: str, tmp_path: Path) -> None:
    data = _encode(Image.fromarray(_ramp()), form, lossless=True)
    path = tmp_path / "named.txt"  # content decides, not the name
    path.write_bytes(data)
    for source in (data, bytearray(data), memoryview(data), path, str(path)):
        opened = open_image(source)
        assert opened.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(opened), _ramp())


def test_jpeg_is_decoded() -> None:
    opened = open_image(_encode(Image.fromarray(_ramp()), "JPEG", quality=95))
    assert np.abs(np.asarray(opened, dtype=int) - _ramp()).mean() < 8


def test_alpha_is_kept() -> None:
    rgba = np.dstack([_ramp(), np.full((24, 32), 77, np.uint8)])
    opened = open_image(_encode(Image.fromarray(rgba), "PNG"))
    assert opened.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(opened), rgba)


def test_palette_with_transparency_becomes_rgba() -> None:
    paletted = Image.fromarray(_ramp()).quantize(8)
    paletted.info["transparency"] = 3
    opened = open_image(_encode(paletted, "PNG", transparency=3))
    np.testing.assert_array_equal(np.asarray(opened)[..., 3] == 0, np.asarray(paletted) == 3)


def test_palette_with_bytes_of_transparency_becomes_rgba() -> None:
    paletted = Image.fromarray(_ramp()).quantize(4)
    opened = open_image(_encode(paletted, "PNG", transparency=bytes([0, 85, 170, 255])))
    np.testing.assert_array_equal(np.asarray(opened)[..., 3], np.asarray(paletted) * 85)


def test_opaque_palette_becomes_rgb() -> None:
    paletted = Image.fromarray(_ramp()).quantize(16)
    opened = open_image(_encode(paletted, "PNG"))
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(paletted.convert("RGB")))


@pytest.mark.parametrize(("mode", "expected"), [("L", "RGB"), ("1", "RGB"), ("LA", "RGBA"), ("CMYK", "RGB")])
def test_other_modes_are_brought_to_rgb(mode: str, expected: str) -> None:
    image = Image.fromarray(_ramp()).convert(mode)
    opened = open_image(_encode(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert (opened.mode, opened.size) == (expected, (32, 24))
    assert opened.info == {}


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "RGBX", "La", "RGBa", "PA", "LAB"])
def test_modes_of_images_in_memory(mode: str) -> None:
    via = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, "RGB")
    source = Image.new(mode, (32, 24)) if mode == "LAB" else Image.fromarray(_ramp()).convert(via).convert(mode)
    assert open_image(source).mode == ("RGBA" if mode in ("La", "RGBa", "PA") else "RGB")


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(np.uint16)
    opened = open_image(_encode(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(np.asarray(opened)[..., 0], np.rint(grey / 257))


def test_sixteen_bit_colour_is_scaled() -> None:
    deep = (_ramp().astype(np.uint16) * 257)[..., ::-1]
    opened = open_image(cv2.imencode(".png", deep)[1].tobytes())
    np.testing.assert_array_equal(np.asarray(opened), _ramp())


def test_sixteen_bit_grey_with_a_transparent_value() -> None:
    values = np.full((16, 16), 30000, ">u2")
    values[4:8] = 512
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    data = _png(16, 16, rows, depth=16, colour=0)
    data = data.replace(_png_chunk(b"IDAT", zlib.compress(rows)), _png_chunk(b"tRNS", b"\x02\x00") + _png_chunk(
        b"IDAT", zlib.compress(rows)
    ))  # fmt: skip
    alpha = np.asarray(open_image(data))[..., 3]
    assert (alpha[4:8] == 0).all()
    assert (alpha[8:] == 255).all()


@pytest.mark.parametrize(
    ("array", "level"),
    [
        (np.full((16, 16), 0.5), 128),
        (np.full((16, 16, 3), 128.0, np.float32), 128),
        (np.full((16, 16, 1), 32896, np.uint16), 128),
        (np.full((16, 16), True), 255),
        (np.full((16, 16, 4), 128, np.uint8), 128),
        (np.full((16, 16, 2), 128, np.int64), 128),
    ],
)
def test_arrays_are_scaled_by_their_type(array: np.ndarray, level: int) -> None:
    opened = open_image(array)
    assert opened.mode == ("RGBA" if array.ndim == 3 and array.shape[2] in (2, 4) else "RGB")
    assert set(np.unique(np.asarray(opened))) == {level}


def test_float_image_in_memory_is_scaled() -> None:
    opened = open_image(Image.fromarray(np.full((16, 16), 0.25, np.float32)))
    assert np.asarray(opened).max() == 64


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 16, 3), np.uint8),
        np.zeros((16, 16, 5), np.uint8),
        np.zeros((16,), np.uint8),
        np.zeros((2, 16, 16, 3), np.uint8),
        np.full((16, 16), np.nan),
        np.full((16, 16), np.inf),
        np.full((16, 16), -1.0),
        np.full((16, 16), 256.0),
        np.full((16, 16), 1 + 1j),
        np.full((16, 16), "a"),
    ],
)
def test_unfit_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InvalidImage):
        open_image(array)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_orientation_is_applied(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = np.asarray(open_image(_encode(Image.fromarray(marked()), form, exif=exif)))
    expected = turned(marked(), orientation)
    assert opened.shape == expected.shape
    assert np.abs(opened.astype(int) - expected).mean() < 12


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_orientation_notes_are_ignored(exif: bytes) -> None:
    assert open_image(_encode(Image.fromarray(_ramp()), "JPEG", exif=exif)).size == (32, 24)


def test_colour_profile_is_applied() -> None:
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = Image.fromarray(_ramp())
    for profile in (swapped, lab, srgb, b"x" * 200, b""):  # of another kind, the same, or broken: nothing to do
        opened = open_image(_encode(plain, "PNG", icc_profile=profile))
        np.testing.assert_array_equal(np.asarray(opened), _ramp())


def test_wide_gamut_colours_are_converted_and_alpha_kept() -> None:
    # The sRGB profile with its red and blue primaries exchanged: conversion must exchange the channels.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[:] = profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    profile[:] = profile.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be")).replace(b"sRGB", b"xRGB")
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[...] = (220, 40, 30, 90)
    opened = np.asarray(open_image(_encode(Image.fromarray(rgba), "PNG", icc_profile=bytes(profile))))
    assert np.abs(opened[0, 0].astype(int) - (30, 40, 220, 90)).max() <= 6


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_first_frame_of_an_animation_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    data = _encode(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
    assert np.asarray(open_image(data))[0, 0, 0] == 200


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_files_are_refused_by_name(form: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    data = _encode(Image.fromarray(noise), form)
    path = tmp_path / "half.bin"
    path.write_bytes(data[: max(16, int(len(data) * share))])
    with pytest.raises(InvalidImage, match=r"^half\.bin: ") as caught:
        open_image(path)
    assert str(tmp_path) not in str(caught.value) + str(caught.value.details)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_random_damage_gives_an_image_or_a_named_error(form: str) -> None:
    whole = _encode(Image.fromarray(_ramp()), form, exif=Image.Exif(), icc_profile=b"\0" * 200)
    refused = 0
    for data in damaged_copies(whole, seed=2, files=300, most=8):
        try:
            assert open_image(data).mode in ("RGB", "RGBA")
        except ServiceError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    "data",
    [
        b"just words",
        b"GIF88a" + bytes(64),
        b"BM" + bytes(64),
        b"II\0*" + bytes(64),
        b"%PDF-1.7",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"\0",
    ],
)
def test_other_formats_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImage):
        open_image(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a" + bytes(64),
        b"II*\0" + bytes(64),
        b"RIFF\x04\0\0\0WEBP",
        b"RIFF\x16\0\0\0WEBPVP8X" + bytes(10),
        _png(0, 16),
        _png(1, 1, b"\0abc"),
        _png(16, 7, bytes(49 * 7)),
        _png(16, 16, b"\0" * 100),
        _png(2000, 20, bytes(6001 * 20)),
    ],
)
def test_unusable_files_are_invalid(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        open_image(data)


@pytest.mark.parametrize("side", [9000, 2**31 - 1])
def test_decompression_bombs_are_refused_before_decoding(side: int) -> None:
    with pytest.raises(InvalidImage, match="more than 64000000 pixels"):
        open_image(_png(side, side))


def test_webp_is_measured_before_its_canvas_is_laid_out() -> None:
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\x00" + b"\xff\xff\x00"
    with pytest.raises(InvalidImage, match="65536×65536"):
        open_image(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_file_gives_the_same_image_as_its_bytes(form: str, tmp_path: Path) -> None:
    data = _encode(Image.fromarray(_ramp()), form)
    (tmp_path / "picture").write_bytes(data)
    with (tmp_path / "picture").open("rb") as file:
        file.seek(5)
        assert np.array_equal(np.asarray(open_image(file)), np.asarray(open_image(data)))
        assert not file.closed


def test_files_are_bounded_and_refused_like_bytes() -> None:
    with pytest.raises(InvalidImage, match="cat: it is empty"):
        open_image(io.BytesIO(), name="cat")
    with pytest.raises(InvalidImage, match="larger than 10 bytes"):
        open_image(io.BytesIO(_encode(Image.fromarray(_ramp()), "PNG")), limits=ImageLimits(max_bytes=10))
    with pytest.raises(UnsupportedImage):
        open_image(io.BytesIO(b"%PDF-1.7" + bytes(100)))


def test_all_sixteen_bit_values_are_rounded() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(512, 128)
    expected = np.rint(values / 65535 * 255).astype(np.uint8)
    for given in (values, Image.fromarray(values), values.astype(">u2")):
        assert np.array_equal(np.asarray(open_image(given))[..., 0], expected)


@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
def test_scans_are_counted_across_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_formats, "_PIECE_BYTES", piece)
    assert file_formats.count_scans(io.BytesIO(b"\xff\xd8\xff\xda\xff\xff\xda\0\xda\xff\xda")) == 3


def test_jpeg_with_endless_scans_is_refused() -> None:
    data = _encode(Image.fromarray(_ramp()), "JPEG")
    with pytest.raises(InvalidImage, match="scans"):
        open_image(data[:-2] + b"\xff\xda\x00\x08" * 200 + data[-2:])


def test_text_bomb_in_png_is_refused_or_harmless() -> None:
    text = _png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * (80 << 20), 9))
    plain = _encode(Image.fromarray(_ramp()), "PNG")
    with pytest.raises(InvalidImage):
        open_image(plain[:33] + text + plain[33:])


def test_limits_are_options() -> None:
    data = _encode(Image.fromarray(_ramp()), "PNG")
    for limits in (
        ImageLimits(max_pixels=700),
        ImageLimits(min_side=25),
        ImageLimits(max_bytes=50),
        ImageLimits(max_aspect=1.2),
    ):
        with pytest.raises(InvalidImage):
            open_image(data, limits=limits)
    with pytest.raises(InvalidImage):
        open_image(_ramp(), limits=ImageLimits(max_pixels=700))
    with pytest.raises(InvalidImage):
        open_image(Image.fromarray(_ramp()), limits=ImageLimits(max_pixels=700))
    with pytest.raises(InvalidParameter):
        ImageLimits(max_pixels=0)


def test_large_images_are_shrunk() -> None:
    opened = open_image(np.full((100, 300, 3), 9, np.uint8), limits=ImageLimits(shrink_to=150))
    assert opened.size == (150, 50)


def test_missing_files_and_directories(tmp_path: Path) -> None:
    with pytest.raises(MissingImage, match=r"^none\.png: "):
        open_image(tmp_path / "none.png")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(MissingImage):
        open_image(tmp_path / "file" / "below.png")
    with pytest.raises(InvalidImage, match="directory"):
        open_image(tmp_path)
    for path in ("nul\0byte.png", "x" * 5000):
        with pytest.raises(InvalidImage) as caught:
            open_image(path)
        assert len(caught.value.message) < 200


def test_devices_and_pipes_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(InvalidImage, match="regular file"):
            open_image(path)


def test_messages_show_no_control_characters() -> None:
    with pytest.raises(InvalidImage, match=r"^a\?\[31mb\.png: it is empty"):
        open_image(b"", name="../../etc/a\x1b[31mb.png")


@pytest.mark.parametrize("source", [None, 3, ["a.png"], {"image": b""}])
def test_other_kinds_of_source_are_refused(source: object) -> None:
    with pytest.raises(InvalidImage, match="cannot be a"):
        open_image(source)  # type: ignore[arg-type]


def test_lazily_opened_image_is_decoded_and_left_alone() -> None:
    noise = np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)
    data = _encode(Image.fromarray(noise), "PNG")
    with pytest.raises(InvalidImage, match="truncated"):
        open_image(Image.open(io.BytesIO(data[: len(data) // 2])))
    source = Image.fromarray(noise)
    opened = open_image(source)
    opened.putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(np.asarray(source), noise)
