"""A program in a Python of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping


def printed(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What a program prints; raises CalledProcessError when it fails. environment : in place of this process's."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout  # noqa: S603
