"""A program in a Python of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping


def printed(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what a program prints. environment : in place of this process's. Raises CalledProcessError."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout  # noqa: S603
