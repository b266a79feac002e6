"""Every hostile upload gets its one answer, and whatever it says nothing is written outside the data folder."""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from backend.api.forms import read_form
from backend.api.multipart import Form, FormLimits
from backend.api.statuses import status_of
from backend.api.uploads import UploadLimits, check_and_store, images_of
from backend.errors import ServiceError
from backend.hunyuan3d.image.open_image import ImageLimits
from backend.storage.files import LocalFiles
from backend.validation import BatchFields, GenerateFields, read_fields
from tests.support.hostile import HostileUpload, hostile_uploads

MAX_BYTES = 2_000_000
LIMITS = {
    "generate": UploadLimits(FormLimits("image", 1), 1, ImageLimits(max_bytes=MAX_BYTES)),
    "batch": UploadLimits(FormLimits("images", 10), 2, ImageLimits(max_bytes=MAX_BYTES)),
}
FIELDS: dict[str, type[GenerateFields | BatchFields]] = {"generate": GenerateFields, "batch": BatchFields}
UPLOADS = hostile_uploads(MAX_BYTES)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ONE_PATH = ("os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.truncate", "os.chmod")


class Watch:
    """Notes what this process opens for writing, makes, renames or removes, while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.paths: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if writes or event in _ONE_PATH:
            self._keep(arguments[0])
        elif event in ("os.rename", "os.link"):
            self._keep(arguments[0])
            self._keep(arguments[1])
        elif event in ("subprocess.Popen", "os.system", "os.exec", "socket.connect"):
            self.paths.append(event)

    def _keep(self, path: object) -> None:
        if isinstance(path, str | bytes):
            self.paths.append(os.fsdecode(path))

    @contextmanager
    def watching(self) -> Iterator[list[str]]:
        self.paths = []
        self.on = True
        try:
            yield self.paths
        finally:
            self.on = False


WATCH = Watch()


def handle(hostile: HostileUpload, body: bytes, folder: Path) -> tuple[str, ...]:
    """Do what the service does with a form, up to where a job would begin; return the names of stored images."""
    limits, store = LIMITS[hostile.operation], LocalFiles(folder / "inputs")
    form = read_form(io.BytesIO(body), hostile.content_type, limits.form)
    read_fields(FIELDS[hostile.operation], form.fields)
    return _store(form, store, limits)


def _store(form: Form, store: LocalFiles, limits: UploadLimits) -> tuple[str, ...]:
    names: list[str] = []
    try:
        for image in images_of(form, limits.form.file_field, limits.fewest, limits.form.max_files):
            names.append(check_and_store(image, store, limits.image))
    except ServiceError:
        for name in names:
            store.delete(name)
        raise
    return tuple(names)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("hostile", UPLOADS, ids=lambda hostile: hostile.name)
def test_each_upload_gets_its_answer_and_leaves_nothing_else(
    hostile: HostileUpload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    body: bytes = hostile.body
    names: tuple[str, ...] = ()
    with WATCH.watching() as touched:
        try:
            names, answer, said = handle(hostile, body, data), (202, ""), ""
        except ServiceError as error:
            answer, said = (status_of(error), error.code), f"{error.message} {error.details}"
    assert answer == (hostile.status, hostile.code), said
    assert [path for path in touched if not _belongs(path, data)] == []
    assert files_below(tmp_path) == sorted(f"data/inputs/{name}" for name in names)
    assert str(tmp_path) not in said
    assert said.isprintable()
    assert len(said) < 1000


def _belongs(path: str, data: Path) -> bool:
    # Modules that are loaded on first use may be compiled by the way.
    return Path(path).resolve().is_relative_to(data) or "__pycache__" in path


@pytest.mark.parametrize(
    "hostile", [upload for upload in UPLOADS if upload.status == 202], ids=lambda hostile: hostile.name
)
def test_what_is_stored_holds_a_picture_and_nothing_else(hostile: HostileUpload, tmp_path: Path) -> None:
    names = handle(hostile, hostile.body, tmp_path)
    assert names
    for name in names:
        content = (tmp_path / "inputs" / name).read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            assert image.mode in ("RGB", "RGBA")
            assert image.info == {}
        assert content.endswith(b"IEND\xaeB`\x82")
        assert b"<script>" not in content
        assert b"<?php" not in content


def test_there_are_many_kinds_of_upload() -> None:
    codes = Counter(upload.code for upload in UPLOADS)
    assert sum(codes.values()) - codes[""] >= 60
    assert {upload.operation for upload in UPLOADS} == set(LIMITS)
    assert all(upload.body == upload.body for upload in UPLOADS)


def test_the_watch_sees_a_file_written_elsewhere(tmp_path: Path) -> None:
    with WATCH.watching() as touched:
        (tmp_path / "evil").write_bytes(b"x")
    assert touched == [str(tmp_path / "evil")]
