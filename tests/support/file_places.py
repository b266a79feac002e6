"""The places that the file stores' tests run in, each empty: a folder, and three kinds of storage behind fsspec."""

from __future__ import annotations

import atexit
import io
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fsspec

from backend.storage.files import FileStore, LocalFiles
from backend.storage.remote_files import RemoteFiles
from tests.support.s3 import S3Server

PLACES = ("folder", "memory", "folder behind fsspec", "bucket")


@dataclass(frozen=True)
class Place:
    """A store, and what really lies there, temporary files and all."""

    files: FileStore
    names: Callable[[], set[str]]


@cache
def s3_server() -> S3Server:
    """Return this process's server, started at the first use and ended with the process."""
    server = S3Server()
    atexit.register(server.stop)
    return server


def empty_place(kind: str, folder: Path) -> Place:
    """Return a place of this kind with nothing in it."""
    if kind == "folder":
        return Place(LocalFiles(folder / "files"), lambda: {path.name for path in (folder / "files").glob("*")})
    if kind == "memory":
        filesystem, prefix = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}/files"
    elif kind == "bucket":
        filesystem, prefix = s3_server().filesystem(), f"{s3_server().new_bucket()}/some/files"
    else:
        filesystem, prefix = fsspec.filesystem("file", use_listings_cache=False), str(folder / "files")
    return Place(RemoteFiles(filesystem, prefix), lambda: {path.rpartition("/")[2] for path in filesystem.find(prefix)})


class Failing(io.RawIOBase):
    """A stream that gives some bytes and then raises."""

    def __init__(self, good: bytes, failure: BaseException) -> None:
        self._parts: Iterator[bytes] = iter((good,))
        self._failure = failure

    def readable(self) -> bool:
        return True

    def read(self, _size: int = -1, /) -> bytes:
        for part in self._parts:
            return part
        raise self._failure
