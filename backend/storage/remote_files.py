"""Files in a storage that fsspec can reach: S3-compatible buckets, other clouds, SFTP, memory.

This module does not know which storage it is: it relies on nothing but that a name is moved as a whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from backend.errors import ArtifactNotFound, ArtifactStoreUnavailable, ConfigurationError, ServiceError, StorageFull
from backend.storage.files import is_ours, named, require_name, stream_of, temporary_name

_WRITTEN_AT = ("LastModified", "last_modified", "mtime", "created")
"""Where listings say when a file was written: S3, Azure, Google and SFTP, memory."""

_NO_ROOM = 507


class RemoteFiles:
    """Keep files below one prefix of an fsspec file system. Open it after a fork, not before."""

    def __init__(self, filesystem: AbstractFileSystem, prefix: str) -> None:
        """Connect to nothing yet.

        prefix : bucket and folder, as the file system writes its paths; without a slash at the end
        """
        self._filesystem = filesystem
        self._prefix = prefix

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        """As FileStore says."""
        final = self._path(require_name(name))
        temporary = self._path(temporary_name(name))
        with _translated():
            try:
                self._write(temporary, stream_of(data))
                self._filesystem.mv(temporary, final)
            except BaseException:
                with suppress(Exception):  # what stays is removed once it is old
                    self._filesystem.rm_file(temporary)
                raise

    def open(self, name: str) -> BinaryIO:
        """As FileStore says."""
        with _translated(missing=ArtifactNotFound):
            return cast(BinaryIO, self._filesystem.open(self._path(require_name(name)), "rb"))

    def size(self, name: str) -> int:
        """As FileStore says."""
        with _translated(missing=ArtifactNotFound):
            return int(self._filesystem.size(self._path(require_name(name))))

    def delete(self, name: str) -> None:
        """As FileStore says."""
        path = self._path(require_name(name, temporary=True))
        with _translated(), suppress(FileNotFoundError):
            self._filesystem.rm_file(path)

    def older_than(self, time: datetime) -> Iterator[str]:
        """As FileStore says; the age is by the storage's own clock."""
        with _translated():
            self._filesystem.invalidate_cache()
            for path, entry in self._filesystem.find(self._prefix, maxdepth=1, detail=True).items():
                name = path.rpartition("/")[2]
                if is_ours(name) and self._written_at(path, entry) < time:
                    yield name

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _write(self, path: str, source: BinaryIO) -> None:
        with self._create(path) as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def _create(self, path: str) -> BinaryIO:
        try:
            return cast(BinaryIO, self._filesystem.open(path, "wb"))
        except FileNotFoundError:  # a storage with real folders; a bucket that is missing is never made
            with suppress(FileExistsError):
                self._filesystem.mkdir(self._prefix, create_parents=False)
            return cast(BinaryIO, self._filesystem.open(path, "wb"))

    def _written_at(self, path: str, entry: Mapping[str, Any]) -> datetime:
        found = next((entry[key] for key in _WRITTEN_AT if key in entry), None) or self._filesystem.modified(path)
        time = found if isinstance(found, datetime) else datetime.fromtimestamp(float(found), UTC)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


def open_remote_files(url: str, part: str) -> RemoteFiles:
    """Open the store of one kind of files below an fsspec URL. Raises ConfigurationError."""
    scheme = url.partition("://")[0]
    try:
        filesystem, root = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError, TypeError) as error:  # the URL itself is not shown: it may carry a password
        raise ConfigurationError(
            f"FILES_URL names a storage that cannot be used here ({scheme}://): {error}"
        ) from error
    return RemoteFiles(filesystem, f"{root.rstrip('/')}/{part}")


@contextmanager
def _translated(missing: type[ServiceError] = ArtifactStoreUnavailable) -> Iterator[None]:
    """Translate the block's errors; missing : what it means that a file is not there."""
    try:
        yield
    except ServiceError:
        raise
    except FileNotFoundError as error:
        raise missing from error
    except Exception as error:  # each storage's client library has errors of its own
        if _says_full(error):
            raise StorageFull from error
        raise (named(error) if isinstance(error, OSError) else ArtifactStoreUnavailable()) from error


def _says_full(error: BaseException | None) -> bool:
    """Return whether an S3-compatible server answered that it has no room: MinIO by the status, Ceph by the code."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return bool(status == _NO_ROOM or response.get("Error", {}).get("Code") == "QuotaExceeded")
        error = error.__cause__
    return False
