"""Files that are written whole or not at all: under a temporary name beside their own until the last byte is on disk.

Nothing but the standard library. This module does not know what is in a file, and raises only the system's own OSError.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

FolderFlush = Literal["required", "attempted", "skipped"]
"""Whether the folder is flushed too, so that the name itself survives a power cut, and whether failing at it counts."""

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # Windows would translate line ends without it


@contextmanager
def atomic_file(
    path: Path, *, temporary: Path | None = None, private: bool = False, folder_flush: FolderFlush = "attempted"
) -> Iterator[BinaryIO]:
    """Open a new file to write and seek in; once the block has ended it takes the place of `path`.

    temporary : its name until then, one beside `path` when not given; private : only its owner may read it
    Raises OSError. Whatever the block raises, nothing is left of the new file and an older one of that name stays;
    only a required flush of the folder can fail when the new one is already in place.
    """
    temporary = temporary or temporary_beside(path)
    descriptor = os.open(temporary, _NEW, 0o600 if private else 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if folder_flush != "skipped":
        with contextlib.suppress(*(() if folder_flush == "required" else (OSError,))):
            flush_folder(path.parent)


def write_file(path: Path, data: bytes, *, private: bool = False, folder_flush: FolderFlush = "attempted") -> None:
    """Write bytes to `path`, whole or not at all. Raises OSError; see `atomic_file`."""
    with atomic_file(path, private=private, folder_flush=folder_flush) as stream:
        stream.write(data)


def temporary_beside(path: Path) -> Path:
    """Return a hidden name in the same folder that no other file has, short enough for any file system."""
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.part")


def flush_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut. Raises OSError; not every system can do it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
