"""Programs of the system that tests and benchmarks run: installed where that may be, asked for where not.

This module does not know what the programs are for.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_CANNOT_INSTALL = 3


class ProgramsMissing(RuntimeError):
    """Programs are missing and cannot be installed from here; the message says what to install."""


def require(script: Path) -> None:
    """Run a script that installs what is missing. Raises ProgramsMissing where it may not.

    script : ends with 3, and a sentence on standard error, where it may not
    """
    done = subprocess.run([script], check=False, stderr=subprocess.PIPE, text=True)  # noqa: S603
    if done.returncode == _CANNOT_INSTALL:
        raise ProgramsMissing(done.stderr.strip())
    if done.returncode:
        raise RuntimeError(f"{script.name} ended with {done.returncode}: {done.stderr.strip()}")
