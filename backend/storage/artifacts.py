"""Finished meshes as files: how they are named, and what a download needs to know of one.

This module does not know whose mesh it is, how it was made, or how long it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from backend.errors import InvalidFormat
from backend.storage.files import FileStore, new_name, require_name

_MEDIA_TYPES = {
    "glb": "model/gltf-binary",
    "stl": "model/stl",
    "obj": "model/obj",
    "ply": "application/octet-stream",  # PLY has no registered type
}


@dataclass(frozen=True)
class Artifact:
    """A mesh ready to be sent.

    stream : seekable, to be closed by whoever got it; size : bytes; etag : strong, without its quotes
    """

    name: str
    stream: BinaryIO
    size: int
    media_type: str
    etag: str


class ArtifactStore:
    """The meshes of the service; a file never changes under its name."""

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def write(self, data: bytes, format: str) -> str:
        """Keep a mesh and return the name it got, which nobody can guess.

        Raises InvalidFormat, StorageFull, ArtifactStoreUnavailable; then nothing is left.
        """
        media_type(format)
        name = new_name(format)
        self._files.put(name, data)
        return name

    def open(self, name: str) -> Artifact:
        """Open a mesh by its name, whatever that is. Raises ArtifactNotFound, ArtifactStoreUnavailable."""
        stem, _, format = require_name(name).partition(".")
        size = self._files.size(name)
        return Artifact(name, self._files.open(name), size, _MEDIA_TYPES.get(format, "application/octet-stream"), stem)

    def size(self, name: str) -> int:
        """Return the bytes of a mesh. Raises ArtifactNotFound, ArtifactStoreUnavailable."""
        return self._files.size(require_name(name))

    def delete(self, name: str) -> None:
        """Remove a mesh; one that is gone is no error. Raises ArtifactNotFound for a name that is none of ours."""
        self._files.delete(name)

    def older_than(self, time: datetime) -> Iterator[str]:
        """Return the names of files written before a time, half-written ones too."""
        return self._files.older_than(time)


def media_type(format: str) -> str:
    """Return the media type of this format. Raises InvalidFormat."""
    if format not in _MEDIA_TYPES:
        raise InvalidFormat
    return _MEDIA_TYPES[format]
