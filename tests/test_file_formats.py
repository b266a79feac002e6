"""Every format of picture files that is taken: whole, cut, damaged, in its odd forms, and as a bomb."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.errors import InvalidImage, ServiceError, UnsupportedImage
from backend.hunyuan3d.image import file_formats
from backend.hunyuan3d.image.file_formats import taken_formats
from backend.hunyuan3d.image.open_image import ImageLimits, open_image
from tests.support.picture_files import bmp, damaged_copies, encode, gif, marked, noise, ramp, tiff, turned

HEIC = Path(__file__).parent / "heic"
SAMPLES: dict[str, tuple[str, dict[str, object]]] = {
    "AVIF": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    "GIF": ("GIF", {}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_deflate"}),
    "TIFF, JPEG": ("TIFF", {"compression": "jpeg", "quality": 95}),
    "BigTIFF": ("TIFF", {"big_tiff": True}),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_pixels_come_back_whatever_the_file_is_called(name: str, tmp_path: Path) -> None:
    form, options = SAMPLES[name]
    path = tmp_path / "named.png"
    path.write_bytes(encode(ramp(), form, **options))
    opened = open_image(path)
    assert (opened.mode, opened.info) == ("RGB", {})
    assert np.abs(np.asarray(opened).astype(int) - np.asarray(ramp())).mean() < 4


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.95])
def test_truncated_files_are_refused(name: str, share: float) -> None:
    form, options = SAMPLES[name]
    data = encode(noise(), form, **options)
    with pytest.raises(InvalidImage, match=r"^cut: "):
        open_image(data[: max(20, int(len(data) * share))], name="cut")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SAMPLES)
def test_random_damage_gives_an_image_or_a_named_error(name: str) -> None:
    form, options = SAMPLES[name]
    whole = encode(ramp(), form, **options)
    refused = 0
    # Where the headers are, mostly.
    for data in damaged_copies(whole, seed=4, files=150, most=6, reach=400):
        try:
            assert open_image(data).mode in ("RGB", "RGBA")
        except ServiceError:
            refused += 1
    assert refused > 10


def test_an_mpo_is_read_as_its_first_picture() -> None:
    data = encode(ramp(), "MPO", save_all=True, append_images=[Image.new("RGB", (80, 60))], quality=95)
    opened = open_image(data)
    assert opened.size == ramp().size
    assert np.abs(np.asarray(opened).astype(int) - np.asarray(ramp())).mean() < 4


@pytest.mark.parametrize("form", ["GIF", "TIFF", "AVIF"])
def test_the_first_of_several_frames_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (32, 24), color) for color in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    opened = open_image(encode(frames[0], form, save_all=True, append_images=frames[1:]))
    assert np.abs(np.asarray(opened)[0, 0].astype(int) - (200, 0, 0)).max() < 8


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "P", "RGBA", "LA", "I;16", "F", "YCbCr"])
@pytest.mark.parametrize("compression", [None, "tiff_deflate"])
def test_every_kind_of_tiff_is_brought_to_srgb(mode: str, compression: str | None) -> None:
    source = ramp("RGB").convert("L") if mode in ("I;16", "F") else ramp("RGB").convert(mode)
    if mode == "I;16":
        source = Image.fromarray(np.asarray(source).astype(np.uint16) * 257)
    if mode == "F":
        source = Image.fromarray(np.asarray(source).astype(np.float32) / 255)
    opened = open_image(encode(source, "TIFF", compression=compression))
    assert opened.mode == ("RGBA" if mode in ("RGBA", "LA") else "RGB")
    expected = ramp().convert("L") if mode in ("I;16", "F") else source
    assert np.abs(np.asarray(opened.convert("RGB")).astype(int) - np.asarray(expected.convert("RGB"))).max() <= 1


def test_floats_that_are_no_colours_are_refused() -> None:
    for values in (np.full((16, 16), np.nan, np.float32), np.full((16, 16), 9000.0, np.float32)):
        with pytest.raises(InvalidImage, match="values"):
            open_image(encode(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("form", ["TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = np.asarray(open_image(encode(Image.fromarray(marked()), form, exif=exif)))
    assert opened.shape == turned(marked(), orientation).shape
    assert np.abs(opened.astype(int) - turned(marked(), orientation)).mean() < 12


def test_transparency_of_gif_and_avif_is_kept() -> None:
    clear = Image.new("RGBA", (32, 24), (200, 20, 20, 255))
    clear.paste((0, 0, 0, 0), (0, 0, 16, 24))
    for form in ("GIF", "AVIF"):
        alpha = np.asarray(open_image(encode(clear, form)).getchannel("A"))
        assert (alpha[:, :14] < 8).all()
        assert (alpha[:, 18:] > 247).all()


def test_tiled_tiff_is_read() -> None:
    opened = open_image(tiff(40, 24, tile=(16, 16), level=90))
    assert opened.size == (40, 24)
    assert set(np.unique(np.asarray(opened))) == {90}


BOMBS = {
    "GIF canvas": gif(screen=(60_000, 60_000)),
    "GIF frame beyond its canvas": gif(screen=(32, 24), frame=(60_000, 60_000)),
    "BMP": bmp(60_000, 60_000),
    "BMP upside down": bmp(60_000, -60_000),
    "BMP of no width": bmp(-32, 24),
    "TIFF": tiff(60_000, 60_000),
    "TIFF of one long strip": tiff(60_000, 60_000, rows_per_strip=2**32 - 1),
    "TIFF whose tiles are larger than it is": tiff(40, 24, tile=(60_000, 60_000)),
    "BigTIFF": tiff(60_000, 60_000, big=True),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_their_reader_sees_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(file_formats, "_READERS", dict.fromkeys(("GIF", "BMP", "TIFF"), opened.append))
    with pytest.raises(InvalidImage, match=r"more than 64000000 pixels|header is damaged"):
        open_image(BOMBS[name])
    assert opened == []


def test_what_a_reader_would_work_through_is_bounded() -> None:
    costly = {
        "more notes than": gif(notes=b"!\xfe" + b"\x01a" * 100_000 + b"\0"),
        "more tags than": tiff(40, 24, more=[(tag, 1, 1, 0) for tag in range(40_000, 42_000)]),
        "more numbers than": tiff(40, 24, more=[(33_000, 3, 1 << 20, 0)]),
        "run-length coded and larger": bmp(4000, 4000, compression=1, pixels=bytes(5 << 20)),
    }
    for reason, data in costly.items():
        with pytest.raises(InvalidImage, match=reason):
            open_image(data)


def test_limits_hold_for_every_format() -> None:
    small = ImageLimits(max_pixels=700)
    files = {name: encode(ramp(), form, **options) for name, (form, options) in SAMPLES.items()}
    files["MPO"] = encode(ramp(), "MPO", save_all=True, append_images=[ramp()])
    files["HEIC"] = (HEIC / "ramp.heic").read_bytes()
    for name, data in files.items():
        with pytest.raises(InvalidImage, match="is more than 700 pixels"):
            open_image(data, limits=small, name=name)
        with pytest.raises(InvalidImage, match="is too small"):
            open_image(data, limits=ImageLimits(min_side=200), name=name)


def test_heic_is_read_where_its_package_is() -> None:
    opened = open_image(HEIC / "ramp.heic")
    rows, columns = np.mgrid[0:64, 0:96]
    expected = np.stack([columns * 2, rows * 3, rows + columns], axis=-1)
    assert np.abs(np.asarray(opened).astype(int) - expected).mean() < 4
    assert open_image(HEIC / "turned.heic").size == (64, 96)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_heic_is_refused(share: float) -> None:
    data = (HEIC / "ramp.heic").read_bytes()
    with pytest.raises(InvalidImage):
        open_image(data[: int(len(data) * share)])


def test_heic_is_unsupported_by_name_where_its_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_formats, "find_spec", lambda _name: None)
    assert "HEIC" not in taken_formats()
    with pytest.raises(UnsupportedImage, match="HEIC is not read here; send PNG, JPEG, MPO, WebP, AVIF") as refused:
        open_image(HEIC / "ramp.heic")
    assert refused.value.details["allowed"] == list(taken_formats())


def test_other_formats_are_told_what_is_taken() -> None:
    for data in (
        b"%PDF-1.7",
        b"BM" + bytes(64),
        b"BMW is a make of cars, not a bitmap",
        b"\0\0\0\x08ftyp",
    ):
        with pytest.raises(UnsupportedImage, match="send PNG, JPEG, MPO, WebP, AVIF, GIF, BMP, TIFF or HEIC"):
            open_image(data)
