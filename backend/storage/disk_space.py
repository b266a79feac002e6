"""Whether a disk has room for what comes next.

This module does not know what is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_FULL_BYTES = 50_000_000
_FULL_SHARE = 0.02


def full_folder(folders: Iterable[Path]) -> Path | None:
    """Return the first folder whose disk is full: room for less than one picture, or for no more files.

    That is 50 MB, or a fiftieth of a disk that is small. A folder that is not there yet, or cannot be asked, is not.
    """
    return next((folder for folder in folders if _is_full(folder)), None)


def _is_full(folder: Path) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    room, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    # Some file systems have no fixed number of files, and say 0 of 0.
    has_files = disk.f_files == 0 or disk.f_favail > 0
    return room < min(_FULL_BYTES, _FULL_SHARE * whole) or not has_files
