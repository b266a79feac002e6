"""What is in a backup: files copied with their checksums, and the list of them, `manifest.json`.

This module does not know what the files are for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from backend.command import CommandError
from backend.storage.files import is_ours
from orfeas_client.atomic_file import write_file

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
AGENTS: Final = "agents.json"
AUDIT: Final = "audit"
PARTS: Final[tuple[Literal["inputs", "artifacts"], ...]] = ("inputs", "artifacts")
_CHUNK = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class BackupError(CommandError):
    """A backup cannot be made, or not be restored."""


@dataclass(frozen=True)
class Entry:
    """A file of a backup, as it was copied."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a backup holds.

    version : of the program that made it; made_at : ISO 8601
    database : `sqlite`, `postgresql`, or none; revision : of its schema
    files : every file but the manifest, by its path in the folder
    """

    version: str
    made_at: str
    database: str | None
    revision: str | None
    files: Mapping[str, Entry]

    def write(self, folder: Path) -> None:
        """Put it into a folder. Raises OSError."""
        files = {name: {"bytes": entry.bytes, "sha256": entry.sha256} for name, entry in sorted(self.files.items())}
        told = {"format": FORMAT, **vars(self), "files": files}
        write_file(folder / MANIFEST, (json.dumps(told, indent=1) + "\n").encode(), private=True)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's. Raises BackupError for a folder that is none of ours, or one of a later release."""
        try:
            told: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
            if told.pop("format") != FORMAT:
                raise BackupError(f"{folder} is a backup of a later release: restore it with that one.")
            files = {_safe(name): Entry(**entry) for name, entry in told.pop("files").items()}
            return cls(**told, files=files)
        except FileNotFoundError as error:
            raise BackupError(f"{folder} is no backup: it has no {MANIFEST}.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackupError(f"{folder / MANIFEST} is damaged ({error!r}): take another backup.") from error


def copy_in(stream: BinaryIO, target: Path) -> Entry:
    """Copy what is left of a stream into a new file, its owner's alone, and flush it. Raises OSError."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.open(target, _NEW, 0o600), "wb") as copy:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    return Entry(size, digest.hexdigest())


def entry_of(path: Path) -> Entry:
    """Return the entry of a file as it lies there. Raises OSError."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    return Entry(path.stat().st_size, digest.hexdigest())


def expect_whole(folder: Path, manifest: Manifest) -> None:
    """See that every file of a backup is there as it was copied. Raises BackupError."""
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file() or entry_of(path) != entry:
            raise BackupError(f"{path} is missing or was changed since the backup was made: take another backup.")


def _safe(name: str) -> str:
    """Return a path that leads to a file of a backup. Raises ValueError for one that leads elsewhere."""
    folder, _, file = name.rpartition("/")
    is_plain = file not in ("", ".", "..") and "\0" not in file
    if not is_plain or folder not in ("", AUDIT, *PARTS) or (folder in PARTS and not is_ours(file)):
        raise ValueError(name)
    return name
