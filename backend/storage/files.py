"""Files under server-made names, whole or not at all: the store of images and of meshes, in a folder or behind a URL.

Names from outside reach no path: one that the server could not have made is a file that isn't there. This module does
not know what is in a file or which job it belongs to.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Literal, Protocol
from urllib.parse import unquote, urlsplit

from backend.errors import ArtifactNotFound, ArtifactStoreUnavailable, ServiceError, StorageFull
from backend.periodic import utc_now
from orfeas_client.atomic_file import atomic_file, flush_folder

_NAME = re.compile(r"[a-f0-9]{32}\.[a-z0-9]{3,4}")
_TEMPORARY = re.compile(r"[a-f0-9]{32}\.[a-z0-9]{3,4}\.[a-f0-9]{16}\.part")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger(__name__)


class FileStore(Protocol):
    """Files that every process and machine of the service shares. Any thread may use it."""

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        """Keep bytes, or what is left of a stream, under a name; a reader sees all of it or no file.

        When this returns the file survives a power cut. Raises StorageFull, ArtifactStoreUnavailable, and
        ArtifactNotFound for a name that the server did not make; then nothing is left.
        """
        ...

    def open(self, name: str) -> BinaryIO:
        """Open the file to read and seek in; the caller closes it.

        Raises ArtifactNotFound, ArtifactStoreUnavailable.
        """
        ...

    def size(self, name: str) -> int:
        """Return its size in bytes. Raises ArtifactNotFound, ArtifactStoreUnavailable."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file, or a temporary one that older_than named; one that is gone is no error.

        Raises ArtifactNotFound for a name that the server did not make, ArtifactStoreUnavailable.
        """
        ...

    def older_than(self, time: datetime) -> Iterator[str]:
        """Yield the names of files last written before a time (aware), half-written temporary ones too, in no order.

        Files may come and go meanwhile. Raises ArtifactStoreUnavailable.
        """
        ...


class Deletes(Protocol):
    """Where files can be deleted: a FileStore, or what keeps files in one."""

    def delete(self, name: str) -> None:
        """Remove a file; one that is gone is no error. Raises ServiceError."""
        ...


def discard(store: Deletes, *names: str) -> None:
    """Remove files that no job needs; what cannot be removed now is logged, and the janitor finds it later."""
    for name in filter(None, names):
        try:
            store.delete(name)
        except ServiceError as error:
            _log.warning("The file %s stays, which no job needs: %s", name, error.message)


def new_name(extension: str) -> str:
    """Return a name that nobody can guess, for a file with this extension (3 or 4 small letters or digits, no dot)."""
    return f"{secrets.token_hex(16)}.{extension}"


def put_new(files: FileStore, extension: str, data: bytes | BinaryIO) -> str:
    """Keep bytes, or what is left of a stream, under a new name; return that. Raises what FileStore.put raises."""
    name = new_name(extension)
    files.put(name, data)
    return name


def require_name(name: str, *, temporary: bool = False) -> str:
    """Return the name, when the server can have made it. Raises ArtifactNotFound.

    temporary : a temporary name will do
    """
    if _NAME.fullmatch(name) or (temporary and is_temporary(name)):
        return name
    raise ArtifactNotFound


def is_ours(name: str) -> bool:
    """Return whether a file of this name was written by a store, temporary ones included."""
    return bool(_NAME.fullmatch(name)) or is_temporary(name)


def is_temporary(name: str) -> bool:
    """Return whether this is the name of a file that was being written."""
    return bool(_TEMPORARY.fullmatch(name))


def temporary_name(name: str) -> str:
    """Return a name to write under before the file gets its own."""
    return f"{name}.{secrets.token_hex(8)}.part"


def stream_of(data: bytes | BinaryIO) -> BinaryIO:
    """Return bytes as a stream, and a stream as it stands."""
    return io.BytesIO(data) if isinstance(data, bytes) else data


def named(error: OSError) -> ServiceError:
    """Return the ServiceError for a failure of the operating system."""
    return StorageFull() if error.errno in _FULL else ArtifactStoreUnavailable()


class LocalFiles:
    """Keep files in one folder, which may be a network share; the folder is made with the first file."""

    def __init__(self, folder: Path, clock: Callable[[], datetime] = utc_now) -> None:
        """Make nothing yet.

        clock : says when a file was written, so that its age does not hang on the file server's clock
        """
        self._folder = folder
        self._clock = clock

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        """As FileStore says."""
        final = self._folder / require_name(name)
        temporary = self._folder / temporary_name(name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic_file(final, temporary=temporary, private=True, folder_flush="skipped") as target:
                shutil.copyfileobj(stream_of(data), target, 1 << 20)
                target.flush()
                now = self._clock().timestamp()
                os.utime(target.fileno(), (now, now))
            self._flush_folder(final)
        except OSError as error:
            raise named(error) from error

    def open(self, name: str) -> BinaryIO:
        """As FileStore says."""
        with _reading():
            return (self._folder / require_name(name)).open("rb")

    def size(self, name: str) -> int:
        """As FileStore says."""
        with _reading():
            return (self._folder / require_name(name)).stat().st_size

    def delete(self, name: str) -> None:
        """As FileStore says."""
        path = self._folder / require_name(name, temporary=True)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise named(error) from error

    def older_than(self, time: datetime) -> Iterator[str]:
        """As FileStore says."""
        limit = time.timestamp()
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if is_ours(entry.name) and _written_before(entry, limit):
                        yield entry.name
        except FileNotFoundError:  # nothing was ever put here
            return
        except OSError as error:
            raise named(error) from error

    def _flush_folder(self, written: Path) -> None:
        """Make the new name last; when that fails the file goes again, for the caller learns that it isn't kept."""
        try:
            flush_folder(self._folder)
        except BaseException:
            written.unlink(missing_ok=True)
            raise


def open_files(url: str, part: Literal["inputs", "artifacts"]) -> FileStore:
    """Open the store of one kind of files below FILES_URL.

    url : a folder, `file://PATH`, or an fsspec URL (`s3://BUCKET/PREFIX`)

    Nothing is connected to or made yet. Call it after a fork, not before. Raises ConfigurationError.
    """
    if "://" not in url:
        return LocalFiles(Path(url).expanduser() / part)
    if url.startswith("file://"):
        return LocalFiles(Path(unquote(urlsplit(url).path)) / part)
    from backend.storage.remote_files import open_remote_files

    return open_remote_files(url, part)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactNotFound from error
    except OSError as error:
        raise named(error) from error


def _written_before(entry: os.DirEntry[str], limit: float) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_mtime < limit
    except FileNotFoundError:  # removed since it was listed
        return False
