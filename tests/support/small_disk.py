"""A folder on a small disk of its own, which a test can fill; where none may be mounted, as without root, none."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted_disk(folder: Path, *options: str) -> Iterator[bool]:
    """Make a folder and mount memory there while the block runs; give whether that could be.

    options : as mount takes them, such as size=256k
    """
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:  # noqa: S603
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """As mounted_disk; skips the test, saying so, where there can be none."""
    with mounted_disk(folder, f"size={size}") as is_mounted:
        if not is_mounted:
            pytest.skip("a disk can be filled only where a small one may be mounted, which takes root")
        yield folder
