"""What was made for jobs as files: how they are named, and what a download needs to know of one.

This module does not know whose file it is, how it was made, or how long it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final

from backend.errors import InvalidFormat
from backend.storage.files import FileStore, put_new, require_name

MEDIA_TYPES: Final[Mapping[str, str]] = {
    "glb": "model/gltf-binary",
    "stl": "model/stl",
    "obj": "model/obj",
    "ply": "application/octet-stream",  # PLY has no registered type
    "3mf": "model/3mf",
    "usdz": "model/vnd.usdz+zip",
    "png": "image/png",
    "webp": "image/webp",
    "tiff": "image/tiff",
    "npz": "application/octet-stream",  # what meshes are encoded from
}
"""What a file of each format is sent as."""


@dataclass(frozen=True)
class Artifact:
    """A file ready to be sent.

    stream : seekable, to be closed by whoever got it; size : bytes; etag : strong, without its quotes
    """

    name: str
    stream: BinaryIO
    size: int
    media_type: str
    etag: str


class ArtifactStore:
    """What the service made; a file never changes under its name."""

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def write(self, data: bytes, format: str) -> str:
        """Keep a file and return the name it got, which nobody can guess.

        Raises InvalidFormat, StorageFull, ArtifactStoreUnavailable; then nothing is left.
        """
        media_type(format)
        return put_new(self._files, format, data)

    def open(self, name: str) -> Artifact:
        """Open a file by its name, whatever that is. Raises ArtifactNotFound, ArtifactStoreUnavailable."""
        return open_artifact(self._files, name)

    def read(self, name: str) -> bytes:
        """Return what is in a file. Raises ArtifactNotFound, ArtifactStoreUnavailable."""
        with self._files.open(name) as stream:
            return stream.read()

    def size(self, name: str) -> int:
        """Return the bytes of a mesh. Raises ArtifactNotFound, ArtifactStoreUnavailable."""
        return self._files.size(require_name(name))

    def delete(self, name: str) -> None:
        """Remove a file; one that is gone is no error. Raises ArtifactNotFound for a name that is none of ours."""
        self._files.delete(name)

    def older_than(self, time: datetime) -> Iterator[str]:
        """Return the names of files written before a time, half-written ones too."""
        return self._files.older_than(time)


def open_artifact(files: FileStore, name: str) -> Artifact:
    """Open a file of any store to be sent. Raises ArtifactNotFound, ArtifactStoreUnavailable."""
    stem, _, format = require_name(name).partition(".")
    size = files.size(name)
    return Artifact(name, files.open(name), size, MEDIA_TYPES.get(format, "application/octet-stream"), stem)


def media_type(format: str) -> str:
    """Return the media type of this format. Raises InvalidFormat."""
    if format not in MEDIA_TYPES:
        raise InvalidFormat
    return MEDIA_TYPES[format]
