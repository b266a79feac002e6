"""Uploads are read in little memory, refused by name, and stored as plain pictures."""

from __future__ import annotations

import errno
import hashlib
import io
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image

from backend.api import uploads
from backend.api.forms import read_form
from backend.api.multipart import Form, FormFile, FormLimits
from backend.api.uploads import UploadLimits, check, check_and_store, images_of
from backend.config import Settings
from backend.errors import (
    ArtifactStoreUnavailable,
    FileTooLarge,
    InvalidForm,
    InvalidImage,
    MissingImage,
    ServiceError,
    StorageFull,
    TooFewImages,
    TooManyImages,
    UnknownField,
    UnsupportedImage,
)
from backend.hunyuan3d.image.open_image import ImageLimits, open_image
from backend.storage.files import LocalFiles
from tests.support.hostile import BOUNDARY, FORM, Part, encode_form
from tests.support.hostile_pictures import good_png, png_chunk
from tests.support.picture_files import encode

BATCH = FormLimits("images", 10)
IMAGES = ImageLimits()
MEGABYTE = 1 << 20
FAR = datetime(2100, 1, 1, tzinfo=UTC)


def parse(body: bytes, limits: FormLimits = BATCH) -> Form:
    return read_form(io.BytesIO(body), FORM, limits)


def image_part(content: bytes, filename: str | None = "cat.png") -> Part:
    return Part("images", content, filename, "image/png")


@pytest.fixture
def store(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path / "inputs")


def upload_one(content: bytes) -> FormFile:
    return parse(encode_form(image_part(content))).files[0]


def stored(store: LocalFiles, name: str) -> Image.Image:
    with store.open(name) as stream, Image.open(stream) as image:
        image.load()
        return image.copy()


class LazyForm(io.RawIOBase):
    """A form of many large pictures that is made while it is read."""

    def __init__(self, images: int, size: int) -> None:
        self._pieces = self._form(images, size)
        self._ready = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._ready) < size and (piece := next(self._pieces, b"")):
            self._ready += piece
        given, self._ready = self._ready[:size], self._ready[size:]
        return given

    def _form(self, images: int, size: int) -> Iterator[bytes]:
        piece = np.random.default_rng(0).bytes(1 << 16)
        for _ in range(images):
            yield b"--" + BOUNDARY.encode() + b'\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
            for _ in range(size // len(piece)):
                yield piece
            yield b"\r\n"
        yield b"--" + BOUNDARY.encode() + b"--\r\n"


class FailingStore(LocalFiles):
    """Files that cannot be reached."""

    def put(self, name: str, data: bytes | BinaryIO) -> None:  # noqa: ARG002
        raise ArtifactStoreUnavailable


def test_fields_and_pictures_come_back_in_order() -> None:
    parts = [
        Part("seed", b"7"),
        image_part(b"one"),
        Part("seed", b"8"),
        image_part(b"two", "b.png"),
        Part("é", b"\xc3\xa9"),
    ]
    upload = parse(encode_form(*parts))
    assert dict(upload.fields) == {"seed": ("7", "8"), "é": ("é",)}
    assert [image.stream.read() for image in upload.files] == [b"one", b"two"]
    assert [image.label for image in upload.files] == ["Picture 1 (cat.png)", "Picture 2 (b.png)"]
    assert [(image.field, image.number, image.size) for image in upload.files] == [("images", 1, 3), ("images", 2, 3)]
    assert upload.files[1].digest() == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize(
    ("filename", "label"),
    [
        ("a/b\\c.png", "Picture 1 (c.png)"),
        ("..", "Picture 1 (..)"),
        ("", "Picture 1"),
        (None, "Picture 1"),
        ("/", "Picture 1"),
        ("evil\u202egnp.exe", "Picture 1 (evil?gnp.exe)"),
        ("tab\there", "Picture 1 (tab?here)"),
        ("x" * 41, f"Picture 1 ({'x' * 39}…)"),
        ("Ünïcode 猫.png", "Picture 1 (Ünïcode 猫.png)"),
    ],
)
def test_file_names_are_shown_safely(filename: str | None, label: str) -> None:
    escaped = filename and filename.replace("\\", "\\\\")
    assert parse(encode_form(image_part(b"x", escaped))).files[0].label == label


def test_files_stay_where_they_are_in_the_body() -> None:
    content = np.random.default_rng(1).bytes(MEGABYTE)
    stream = io.BytesIO(encode_form(Part("seed", b"7"), image_part(content), image_part(b"second")))
    first, second = read_form(stream, FORM, BATCH).files
    assert first.size == MEGABYTE
    assert (second.stream.read(3), first.stream.read(7), second.stream.read()) == (b"sec", content[:7], b"ond")
    assert first.stream.seek(-5, io.SEEK_END) == MEGABYTE - 5
    assert first.stream.read() == content[-5:]
    assert first.stream.read() == b""
    assert first.stream.seek(0) == 0
    assert first.stream.read() == content


def test_reading_a_form_opens_no_file() -> None:
    code = (
        "import io, sys\nfrom backend.api.forms import read_form\nfrom backend.api.multipart import FormLimits\n"
        f"stream = io.BytesIO({encode_form(image_part(b'x' * 100_000))!r})\n"
        "opened = []\nsys.addaudithook(lambda event, given: event == 'open' and opened.append(given))\n"
        f"(file,) = read_form(stream, {FORM!r}, FormLimits('images', 2)).files\n"
        "assert len(file.stream.read()) == 100_000\nsys.exit(len(opened))"
    )
    assert run_python(code) == 0


def test_ten_large_pictures_are_read_in_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "body").open("w+b") as body:
        form = LazyForm(10, 20 * MEGABYTE)
        while data := form.read(MEGABYTE):
            body.write(data)
        body.seek(0)
        tracemalloc.start()
        try:
            upload = read_form(body, FORM, BATCH)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert [image.size for image in upload.files] == [20 * MEGABYTE] * 10
    assert peak < 4 * MEGABYTE


def test_ten_padded_pictures_are_checked_in_little_memory(store: LocalFiles) -> None:
    sound = good_png()
    padded = sound[:33] + png_chunk(b"prIv", bytes(20 * MEGABYTE)) + sound[33:]
    images = [upload_one(padded) for _ in range(10)]
    del padded
    tracemalloc.start()
    try:
        names = [check_and_store(image, store, IMAGES) for image in images]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(set(names)) == 10
    assert all(store.size(name) < 10_000 for name in names)
    assert peak < 60 * MEGABYTE


def test_a_picture_may_have_exactly_the_bytes_allowed() -> None:
    upload = parse(encode_form(image_part(b"x" * 100_000), image_part(b"x" * 100_001, "b.png")))
    limits = ImageLimits(max_bytes=100_000)
    with pytest.raises(UnsupportedImage):  # large enough to be looked at
        check(upload.files[0], limits)
    with pytest.raises(FileTooLarge) as refused:
        check(upload.files[1], limits)
    assert refused.value.message == "Picture 2 (b.png): it is larger than 100000 bytes."
    assert refused.value.details == {"field": "images", "image": 2, "max_bytes": 100_000}


def test_a_picture_that_is_too_large_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "open_image", pytest.fail)
    (file,) = parse(encode_form(image_part(bytes(MEGABYTE)))).files
    with pytest.raises(FileTooLarge):
        check(file, ImageLimits(max_bytes=100_000))


@pytest.mark.parametrize(
    ("filename", "kept"),
    [
        ("a/b\\\\c.png", "c.png"),
        ("", None),
        (None, None),
        ("/", None),
        ("evil\u202egnp.exe", "evil?gnp.exe"),
        ("n\0l.png", "n?l.png"),
        ("猫" * 300, "猫" * 255),
    ],
)
def test_the_name_that_a_picture_came_with_is_kept(filename: str | None, kept: str | None) -> None:
    content = encode_form(image_part(b"x", None if filename is None else filename.replace("\0", "\x01")))
    assert parse(content).files[0].filename == kept


def test_fields_are_bounded_in_number_and_length() -> None:
    limits = FormLimits("images", 2, max_fields=3, max_field_bytes=5)
    parts = [Part("a", b"12345")] * 3
    assert dict(parse(encode_form(*parts), limits).fields) == {"a": ("12345",) * 3}
    with pytest.raises(InvalidForm, match="more than 3 fields"):
        parse(encode_form(*parts, Part("b", b"")), limits)
    with pytest.raises(InvalidForm, match="longer than the 5 bytes"):
        parse(encode_form(Part("a", b"123456")), limits)


def test_the_first_picture_too_many_ends_the_reading() -> None:
    stream = io.BytesIO(encode_form(*[image_part(bytes(MEGABYTE))] * 12))
    with pytest.raises(TooManyImages) as refused:
        read_form(stream, FORM, FormLimits("images", 2))
    assert refused.value.details == {"field": "images", "most": 2}
    assert stream.tell() < 3 * MEGABYTE


def test_a_file_under_another_name_is_an_unknown_field() -> None:
    with pytest.raises(UnknownField) as refused:
        parse(encode_form(Part("photo", b"x", "a.png")))
    assert refused.value.details == {"field": "photo", "allowed": ["images"]}


def test_pictures_are_counted() -> None:
    upload = parse(encode_form(*[image_part(b"x")] * 3))
    assert images_of(upload, "images", 3, 3) == upload.files
    with pytest.raises(TooFewImages, match=r"3 picture.* at least 4"):
        images_of(upload, "images", 4, 10)
    with pytest.raises(TooManyImages):
        images_of(upload, "images", 1, 2)
    with pytest.raises(MissingImage) as refused:
        images_of(upload, "image", 1, 1)
    assert refused.value.details == {"field": "image", "least": 1, "most": 1}


@pytest.mark.parametrize("filename", ["b.png", "", None])
def test_an_empty_picture_is_named(filename: str | None) -> None:
    upload = parse(encode_form(image_part(b"x"), image_part(b"", filename)))
    with pytest.raises(InvalidImage, match=r"Picture 2.*: it is empty") as refused:
        check(images_of(upload, "images", 2, 10)[1], IMAGES)
    assert refused.value.details == {"field": "images", "image": 2}


def test_a_full_disk_is_told_when_a_picture_is_written_anew(store: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("backend.storage.files.shutil.copyfileobj", write)
    with pytest.raises(StorageFull):
        check_and_store(upload_one(good_png()), store, IMAGES)
    assert list(store.older_than(FAR)) == []


def test_a_picture_is_stored_as_it_looks(store: LocalFiles) -> None:
    values = np.random.default_rng(0).integers(0, 255, (20, 30, 4), dtype=np.uint8)
    name = check_and_store(
        upload_one(encode(Image.fromarray(values), "WEBP", lossless=True, exact=True)), store, IMAGES
    )
    assert name.endswith(".png")
    assert np.array_equal(np.asarray(stored(store, name)), values)


def test_what_is_stored_is_what_the_pipeline_would_open(store: LocalFiles) -> None:
    notes = Image.Exif()
    notes[0x0112] = 8
    content = encode(Image.linear_gradient("L").resize((48, 32)).convert("CMYK"), "JPEG", exif=notes)
    name = check_and_store(upload_one(content), store, IMAGES)
    assert np.array_equal(np.asarray(stored(store, name)), np.asarray(open_image(content)))
    assert stored(store, name).size == (32, 48)


def test_names_of_stored_pictures_are_not_repeated(store: LocalFiles) -> None:
    names = {check_and_store(upload_one(good_png()), store, IMAGES) for _ in range(3)}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (
            good_png()[:60],
            InvalidImage,
            "Picture 1 (cat.png): it is damaged or truncated: it breaks off in its chunk IDAT.",
        ),
        (
            b"<html>",
            UnsupportedImage,
            "Picture 1 (cat.png): its content is not that of a picture that is taken; "
            "send PNG, JPEG, MPO, WebP, AVIF, GIF, BMP, TIFF or HEIC.",
        ),
    ],
)
def test_a_refused_picture_is_named_and_leaves_nothing(
    content: bytes, error: type[ServiceError], message: str, tmp_path: Path, store: LocalFiles
) -> None:
    with pytest.raises(error) as refused:
        check_and_store(upload_one(content), store, IMAGES)
    assert refused.value.message == message
    assert refused.value.details["image"] == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_pixels_are_bounded_by_the_limits(store: LocalFiles) -> None:
    limits = ImageLimits(max_pixels=24 * 32 - 1)
    with pytest.raises(InvalidImage, match="more than 767 pixels"):
        check_and_store(upload_one(good_png()), store, limits)


def test_a_store_that_is_away_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactStoreUnavailable):
        check_and_store(upload_one(good_png()), FailingStore(tmp_path), IMAGES)


def test_two_pictures_are_decoded_at_once(store: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, changing = 0, 0, threading.Lock()
    together, third_came = threading.Barrier(2, timeout=10), threading.Event()

    def slow_open(*_arguments: object, **_options: object) -> object:
        nonlocal running, most
        with changing:
            running += 1
            most = max(most, running)
            if running > 2:
                third_came.set()
        together.wait()
        third_came.wait(0.05)
        with changing:
            running -= 1
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(uploads, "open_image", slow_open)
    images = [upload_one(good_png()) for _ in range(8)]
    threads = [threading.Thread(target=check_and_store, args=(image, store, IMAGES)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2
    assert len(list(store.older_than(FAR))) == 8


@pytest.mark.parametrize(("operation", "expected"), [("generate", ("image", 1, 1)), ("batch", ("images", 2, 10))])
def test_limits_follow_the_settings(operation: str, expected: tuple[str, int, int], tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, max_image_bytes=12_345, max_pixels=54_321)
    limits = UploadLimits.from_settings(settings, operation)
    assert (limits.form.file_field, limits.fewest, limits.form.max_files) == expected
    assert (limits.image.max_bytes, limits.image.max_pixels) == (12_345, 54_321)


@pytest.mark.parametrize("module", ["backend.api.uploads", "backend.validation", "backend.api.multipart"])
def test_reading_uploads_does_not_load_torch(module: str) -> None:
    assert run_python(f"import sys, {module}; sys.exit('torch' in sys.modules)") == 0


def run_python(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], check=False).returncode  # noqa: S603
