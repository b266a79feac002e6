"""Files are kept whole or not at all, under names of the server's making, in every kind of place."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3fs import S3FileSystem

from backend.api.statuses import status_of
from backend.errors import ArtifactNotFound, ArtifactStoreUnavailable, ConfigurationError, NoSurface, StorageFull
from backend.storage.files import FileStore, LocalFiles, is_temporary, new_name, open_files
from backend.storage.remote_files import RemoteFiles
from tests.support.file_places import PLACES, Failing, Place, empty_place, s3_server
from tests.support.small_disk import mounted_disk
from tests.support.store_backends import START, ManualClock

A = "a" * 32 + ".glb"
B = "b" * 32 + ".png"
TRICKS = ("../", "..\\", "/", "./", "\x00", "\n", " ", "%2e%2e%2f", "files/", "~", "C:", "//", "．", "a")
HOUR = timedelta(hours=1)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return empty_place(request.param, tmp_path)


@pytest.fixture
def files(place: Place) -> FileStore:
    return place.files


@pytest.fixture(params=["mounted", "pretended"])
def tiny_disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a folder on a disk of 256 KiB with room for two files; only pretended where none may be mounted."""
    folder = tmp_path / "disk"
    if request.param == "pretended":
        pretend_tiny(folder / "files", monkeypatch)
        yield folder
        return
    with mounted_disk(folder, "size=256k", "nr_inodes=4") as is_mounted:
        if not is_mounted:
            pretend_tiny(folder / "files", monkeypatch)
        yield folder


def pretend_tiny(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def fail_when_full(descriptor: int) -> None:
        sizes = [path.stat().st_size for path in folder.iterdir()]
        if sum(sizes) > 256 * 1024 or len(sizes) > 2:
            raise OSError(errno.ENOSPC, "full")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fail_when_full)


def read(files: FileStore, name: str) -> bytes:
    with files.open(name) as stream:
        return stream.read()


def failing(good: bytes, failure: BaseException) -> BinaryIO:
    return cast(BinaryIO, Failing(good, failure))


def names_of_any_age(files: FileStore) -> set[str]:
    return set(files.older_than(datetime.now(UTC) + HOUR))


def test_what_was_put_is_read_back(place: Place) -> None:
    place.files.put(A, b"mesh")
    place.files.put(B, io.BytesIO(b"picture"))
    assert (read(place.files, A), read(place.files, B)) == (b"mesh", b"picture")
    assert (place.files.size(A), place.files.size(B)) == (4, 7)
    assert place.names() == {A, B}


def test_a_file_may_be_empty_or_larger_than_any_buffer(files: FileStore) -> None:
    large = os.urandom(3_500_000)
    files.put(A, b"")
    files.put(B, io.BytesIO(large))
    assert (files.size(A), read(files, A)) == (0, b"")
    assert read(files, B) == large


def test_a_stream_is_kept_from_where_it_stands(files: FileStore) -> None:
    stream = io.BytesIO(b"head and body")
    stream.seek(9)
    files.put(A, stream)
    assert read(files, A) == b"body"


def test_a_file_can_be_read_from_anywhere(files: FileStore) -> None:
    files.put(A, bytes(range(256)) * 100)
    with files.open(A) as stream:
        assert stream.seekable()
        stream.seek(-3, os.SEEK_END)
        assert stream.read() == b"\xfd\xfe\xff"
        stream.seek(256)
        assert stream.read(2) == b"\x00\x01"


def test_a_file_that_is_not_there_is_not_found(files: FileStore) -> None:
    for _ in range(2):
        with pytest.raises(ArtifactNotFound):
            files.open(A)
        with pytest.raises(ArtifactNotFound):
            files.size(A)
        files.put(B, b"another")


def test_deleting_is_done_once_and_asked_for_often(place: Place) -> None:
    place.files.delete(A)
    place.files.put(A, b"1")
    place.files.put(B, b"2")
    for _ in range(2):
        place.files.delete(A)
    assert place.names() == {B}


def test_a_second_put_takes_the_first_ones_place(place: Place) -> None:
    place.files.put(A, b"first, longer")
    place.files.put(A, b"second")
    assert (read(place.files, A), place.names()) == (b"second", {A})


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_and_is_recovered_from(place: Place, code: int) -> None:
    place.files.put(B, b"kept")
    with pytest.raises(StorageFull):
        place.files.put(A, failing(b"x" * 2_000_000, OSError(code, "full")))
    with pytest.raises(StorageFull):
        place.files.put(B, failing(b"overwritten", OSError(code, "full")))
    assert (place.names(), read(place.files, B)) == ({B}, b"kept")
    place.files.put(A, b"fits")
    assert read(place.files, A) == b"fits"


def test_a_storage_that_fails_otherwise_is_unavailable(place: Place) -> None:
    with pytest.raises(ArtifactStoreUnavailable) as refused:
        place.files.put(A, failing(b"x", OSError(errno.EIO, "broken")))
    assert (status_of(refused.value), refused.value.code) == (503, "STORAGE_UNAVAILABLE")
    assert place.names() == set()


@pytest.mark.parametrize("failure", [NoSurface(), KeyboardInterrupt()])
def test_a_source_that_gives_up_leaves_nothing(place: Place, failure: BaseException) -> None:
    with pytest.raises(type(failure)):
        place.files.put(A, failing(b"half", failure))
    assert place.names() == set()


def test_a_really_full_disk_is_named_and_recovered_from(tiny_disk: Path) -> None:
    files = LocalFiles(tiny_disk / "files")
    files.put(A, b"a" * 150_000)
    with pytest.raises(StorageFull) as full:
        files.put(B, b"b" * 150_000)
    assert (status_of(full.value), full.value.code) == (507, "STORAGE_FULL")
    assert [path.name for path in (tiny_disk / "files").iterdir()] == [A]
    assert read(files, A) == b"a" * 150_000
    files.delete(A)
    files.put(B, b"b" * 150_000)
    assert read(files, B) == b"b" * 150_000


def test_a_disk_without_room_for_another_name_is_full(tiny_disk: Path) -> None:
    files = LocalFiles(tiny_disk / "files")
    files.put(A, b"1")
    files.put(B, b"2")
    third = new_name("stl")
    with pytest.raises(StorageFull):
        files.put(third, b"3")
    assert {path.name for path in (tiny_disk / "files").iterdir()} == {A, B}
    files.delete(A)
    files.put(third, b"3")


def test_a_bucket_without_room_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoRoom(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # with it, the client is told to go on and send its body

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"<Error><Code>XMinioStorageFull</Code><Message>drive full</Message></Error>"
            self.send_response(507)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with ThreadingHTTPServer(("127.0.0.1", 0), NoRoom) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        filesystem = S3FileSystem(key="k", secret="s", endpoint_url=f"http://127.0.0.1:{server.server_port}")  # noqa: S106
        try:
            with pytest.raises(StorageFull):
                RemoteFiles(filesystem, "bucket/files").put(A, b"mesh")
        finally:
            server.shutdown()


def test_a_folder_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file where the folder should be")
    files = LocalFiles(tmp_path / "files")
    with pytest.raises(ArtifactStoreUnavailable):
        files.put(A, b"mesh")
    for ask in (files.open, files.size, files.delete):
        with pytest.raises(ArtifactStoreUnavailable):
            ask(A)
    with pytest.raises(ArtifactStoreUnavailable):
        next(files.older_than(START))


def test_a_folder_that_cannot_be_flushed_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    flush = os.fsync
    calls: list[int] = []

    def fail_at_second(descriptor: int) -> None:  # the file's own flush goes well, the folder's does not
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "full")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fail_at_second)
    with pytest.raises(StorageFull):
        files.put(A, b"mesh")
    assert list(tmp_path.iterdir()) == []
    files.put(A, b"mesh")
    assert read(files, A) == b"mesh"


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "new" / "folder")
    files.put(A, b"mesh")
    assert (tmp_path / "new" / "folder").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "folder" / A).stat().st_mode & 0o777 == 0o600


def test_age_is_told_by_the_time_of_writing(files: FileStore) -> None:
    assert names_of_any_age(files) == set()
    files.put(A, b"1")
    files.put(B, b"2")
    assert names_of_any_age(files) == {A, B}
    assert set(files.older_than(datetime.now(UTC) - HOUR)) == set()


def test_age_in_a_folder_goes_by_the_clock_given(tmp_path: Path) -> None:
    clock = ManualClock(START.replace(microsecond=0))
    files = LocalFiles(tmp_path, clock)
    files.put(A, b"1")
    clock.advance(1)
    files.put(B, b"2")
    assert list(files.older_than(clock() - timedelta(seconds=1))) == []
    assert list(files.older_than(clock())) == [A]
    assert set(files.older_than(clock() + timedelta(microseconds=1))) == {A, B}


def test_what_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    for name in ("README", "orfeas.sqlite3", A.upper(), f"{A}.part", f"{A}.{'0' * 15}.part"):
        (tmp_path / name).touch()
    assert names_of_any_age(files) == set()


def test_a_killed_writer_leaves_only_what_is_found_as_old(tmp_path: Path) -> None:
    script = f"""
import io, sys, time
from pathlib import Path
from backend.storage.files import LocalFiles

class Slow(io.RawIOBase):
    def readable(self): return True
    def read(self, size=-1):
        if self.tell_once():
            return b"x" * 3_000_000
        print("half", flush=True)
        time.sleep(600)
    def tell_once(self, told=[]):
        told.append(1)
        return len(told) == 1

files = LocalFiles(Path({str(tmp_path / "files")!r}))
files.put({A!r}, b"whole")
files.put({B!r}, Slow())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as writer:  # noqa: S603
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        writer.kill()
    files = LocalFiles(tmp_path / "files")
    assert read(files, A) == b"whole"
    with pytest.raises(ArtifactNotFound):
        files.open(B)
    left = names_of_any_age(files) - {A}
    assert [is_temporary(name) for name in left] == [True]
    for name in left:
        with pytest.raises(ArtifactNotFound):  # half a file is nothing to read
            files.open(name)
        files.delete(name)
    assert [path.name for path in (tmp_path / "files").iterdir()] == [A]


def test_a_reader_sees_a_whole_file_or_none(files: FileStore) -> None:
    names = [new_name("glb") for _ in range(6)]

    def look(name: str) -> bytes:
        while True:
            try:
                return read(files, name)
            except ArtifactNotFound:
                continue

    with ThreadPoolExecutor(2) as pool:
        for name in names:
            looking = pool.submit(look, name)
            pool.submit(files.put, name, io.BytesIO(name.encode() * 6000)).result()
            assert looking.result() == name.encode() * 6000


def test_writers_do_not_disturb_one_another(place: Place) -> None:
    names = [new_name("glb") for _ in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: place.files.put(name, name.encode() * 1000), names))
    assert place.names() == set(names)
    assert all(read(place.files, name) == name.encode() * 1000 for name in names)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../" + A, "/" + A, A + "\n", A.upper(), A[1:], A + "xy", A.replace(".", ""), "٧" * 32 + ".glb"],
)
def test_names_that_the_server_did_not_make_are_not_found(place: Place, name: str) -> None:
    place.files.put(A, b"mesh")
    for ask in (place.files.open, place.files.size, place.files.delete, lambda n: place.files.put(n, b"evil")):
        with pytest.raises(ArtifactNotFound):
            ask(name)
    assert place.names() == {A}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder between files that must neither be read nor written."""
    root = tmp_path_factory.mktemp("guarded")
    (root / "files" / "files").mkdir(parents=True)
    for folder in (root, root / "files" / "files"):
        (folder / A).write_text("secret")
    return root


@given(
    st.one_of(
        st.text(max_size=60),
        st.builds(
            lambda before, name, after: "".join([*before, name, *after]),
            st.lists(st.sampled_from(TRICKS), max_size=4),
            st.sampled_from((A, B, "", "etc/passwd", f"{A}.{'0' * 16}.part")),
            st.lists(st.sampled_from(TRICKS), max_size=3),
        ),
    )
)
def test_no_name_leads_out_of_the_folder(guarded: Path, name: str) -> None:
    files = LocalFiles(guarded / "files")
    for ask in (files.open, files.size):
        with pytest.raises(ArtifactNotFound):
            ask(name)
    for change in (files.delete, lambda n: files.put(n, b"evil")):
        try:
            change(name)
        except ArtifactNotFound:
            continue
        assert re.fullmatch(r"[a-f0-9]{32}\.[a-z]{3,4}(\.[a-f0-9]{16}\.part)?", name)
        files.delete(name)
    assert sorted(str(path.relative_to(guarded)) for path in guarded.rglob("*")) == sorted(
        [A, "files", "files/files", f"files/files/{A}"]
    )


def test_new_names_are_ours_and_cannot_be_guessed(tmp_path: Path) -> None:
    names = {new_name("png") for _ in range(1000)}
    assert len(names) == 1000
    LocalFiles(tmp_path).put(names.pop(), b"fits the rule")


@pytest.mark.parametrize("address", ["{}", "file://{}"])
def test_a_path_is_opened_as_a_folder(address: str, tmp_path: Path) -> None:
    root = tmp_path / "some place"
    place = address.format(root if address == "{}" else str(root).replace(" ", "%20"))
    open_files(place, "inputs").put(A, b"picture")
    open_files(place, "artifacts").put(A, b"mesh")
    assert (root / "inputs" / A).read_bytes() == b"picture"
    assert (root / "artifacts" / A).read_bytes() == b"mesh"


def test_a_bucket_is_opened_by_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    server = s3_server()
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    bucket = server.new_bucket()
    open_files(f"s3://{bucket}/deep/prefix/", "inputs").put(A, b"picture")
    assert server.filesystem().find(bucket) == [f"{bucket}/deep/prefix/inputs/{A}"]
    with pytest.raises(ArtifactStoreUnavailable):
        open_files("s3://no-such-bucket/prefix", "inputs").put(A, b"picture")
    assert not server.filesystem().exists("no-such-bucket")


def test_the_place_itself_is_never_made_behind_a_url(tmp_path: Path) -> None:
    files = RemoteFiles(fsspec.filesystem("file"), str(tmp_path / "not mounted" / "files"))
    with pytest.raises(ArtifactStoreUnavailable):
        files.put(A, b"mesh")
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_is_not_known_or_not_installed_is_refused() -> None:
    for url in ("nosuch://user:secret@host/files", "gs://bucket/files"):
        with pytest.raises(ConfigurationError, match=url.partition(":")[0]) as refused:
            open_files(url, "inputs")
        assert "secret" not in refused.value.message
