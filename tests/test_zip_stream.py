"""A zip that is made while it is read: what every reader makes of it, whole, in parts, and past four gigabytes."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from backend.storage.zip_stream import ZipMember, ZipStream

WHEN = datetime(2026, 3, 4, 5, 6, 8, tzinfo=UTC)
CONTENTS = {"batch.json": b"{}", "Tasse Ä 猫.glb": bytes(range(256)) * 3000, "empty.stl": b"", "a/b.ply": b"x" * 70_000}


class Source(io.BytesIO):
    """A file that knows whether it is open."""

    open_now = 0
    most_open = 0

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        Source.open_now += 1
        Source.most_open = max(Source.most_open, Source.open_now)

    def close(self) -> None:
        if not self.closed:
            Source.open_now -= 1
        super().close()


def member(name: str, content: bytes) -> ZipMember:
    def opened() -> BinaryIO:
        return Source(content)

    return ZipMember(name, len(content), opened, WHEN)


@pytest.fixture
def stream() -> ZipStream:
    Source.open_now = Source.most_open = 0
    return ZipStream([member(name, content) for name, content in CONTENTS.items()])


def test_the_standard_library_reads_it(stream: ZipStream) -> None:
    data = stream.read()
    assert len(data) == stream.size
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == CONTENTS
        for info in archive.infolist():
            assert (info.compress_type, info.date_time) == (zipfile.ZIP_STORED, (2026, 3, 4, 5, 6, 8))
            assert info.external_attr >> 16 == 0o100644
            assert info.flag_bits == 1 << 11


def test_other_programs_read_it(stream: ZipStream, tmp_path: Path) -> None:
    path = tmp_path / "batch.zip"
    path.write_bytes(stream.read())
    program = shutil.which("bsdtar") or shutil.which("unzip")
    if program is None:
        pytest.skip("neither bsdtar nor unzip is installed")
    arguments = ["-tf"] if program.endswith("bsdtar") else ["-tq"]
    subprocess.run([program, *arguments, path], check=True, capture_output=True)  # noqa: S603


def test_any_part_is_the_same_as_of_the_whole(stream: ZipStream) -> None:
    whole, chosen = stream.read(), random.Random(1)
    for _ in range(200):
        start, size = chosen.randrange(stream.size), chosen.choice((1, 7, 100, 70_000))
        stream.seek(start)
        part = b""
        while len(part) < size and (piece := stream.read(size - len(part))):
            part += piece
        assert part == whole[start : start + size]
    assert stream.seek(-3, io.SEEK_END) == stream.size - 3
    assert stream.read() == whole[-3:]
    assert stream.read() == b""


def test_one_file_is_open_at_a_time_and_none_at_the_end(stream: ZipStream) -> None:
    while stream.read(5000):
        assert Source.open_now <= 1
    assert Source.most_open == 1
    stream.close()
    assert Source.open_now == 0


def test_no_file_is_opened_to_know_the_size(stream: ZipStream) -> None:
    assert stream.size > sum(map(len, CONTENTS.values()))
    assert Source.most_open == 0


def test_a_zip_of_nothing_is_one() -> None:
    with zipfile.ZipFile(io.BytesIO(ZipStream([]).read())) as archive:
        assert archive.namelist() == []


def test_a_file_that_became_shorter_ends_the_reading() -> None:
    stream = ZipStream([ZipMember("a", 10, lambda: io.BytesIO(b"short"), WHEN)])
    with pytest.raises(EOFError, match="shorter"):
        stream.read()


def test_a_file_that_cannot_be_opened_ends_the_reading() -> None:
    def missing() -> BinaryIO:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        ZipStream([ZipMember("a", 10, missing, WHEN)]).read()


class Hole(io.RawIOBase):
    """So many zeros, which take no room."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._left, self._size = size, size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET
        self._left = self._size - offset
        return offset

    def read(self, size: int = -1) -> bytes:
        given = min(size, self._left)
        self._left -= given
        return bytes(given)


def hole(size: int) -> Callable[[], BinaryIO]:
    return lambda: cast(BinaryIO, Hole(size))


def test_sizes_and_places_past_four_gigabytes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    large = 5 << 30
    members = [
        ZipMember("large.ply", large, hole(large), WHEN),
        member("small.glb", b"glb" * 100),
    ]
    # The checksums of five gigabytes take a while, and are not what is looked at.
    checksums = (0, zlib.crc32(b"glb" * 100))
    monkeypatch.setattr(ZipStream, "_checksum", lambda _, index: checksums[index])
    stream = ZipStream(members)
    with zipfile.ZipFile(cast(BinaryIO, io.BufferedReader(stream))) as archive:
        first, second = archive.infolist()
        assert (first.file_size, second.file_size) == (large, 300)
        assert second.header_offset > large
        assert archive.read(second) == b"glb" * 100
        with archive.open(first) as opened:
            assert opened.read(5) == bytes(5)


def test_more_files_fit_than_the_old_form_can_count() -> None:
    many = ZipStream([member(f"{k}.obj", b"") for k in range(70_000)])
    with zipfile.ZipFile(io.BytesIO(many.read())) as archive:
        assert len(archive.namelist()) == 70_000
