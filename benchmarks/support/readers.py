"""Programs of others that read our mesh files: gltf-validator, assimp, admesh, and what each says of a file.

`install-readers.sh` installs them. This module does not know how the files were made.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

INSTALL = Path(__file__).with_name("install-readers.sh")
_MODULES = Path(__file__).parents[2] / "build" / "readers" / "node_modules"
_SCRIPT = Path(__file__).with_name("readers.mjs")
_SECONDS = 120

Corner = tuple[float, float, float]


@dataclass(frozen=True)
class Measured:
    """What a reader found: faces, and the lowest and highest corner, in the file's frame and unit."""

    faces: int
    low: Corner
    high: Corner


def gltf_issues(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return gltf-validator's errors, warnings and hints, each a number, and the codes of all issues, of each file."""
    found: list[dict[str, Any]] = json.loads(run("node", _SCRIPT, _MODULES, "validate", *files))
    return found


def meshopt_rows(file: Path) -> list[NDArray[np.uint8]]:
    """Return the bytes of every view that meshoptimizer's decoder unpacks, in order."""
    (views,) = json.loads(run("node", _SCRIPT, _MODULES, "unpack", file))
    return [np.frombuffer(base64.b64decode(view), np.uint8) for view in views]


def assimp_measures(file: Path) -> Measured:
    """Return what assimp finds."""
    said = run("assimp", "info", file)
    return Measured(int(_number("Faces", said)), _corner("Minimum point", said), _corner("Maximum point", said))


def admesh_repairs(file: Path) -> dict[str, int]:
    """Return how much of each kind admesh repairs in an STL; all are 0 for a sound one."""
    said = run("admesh", file)
    kinds = (
        "Total disconnected facets", "Degenerate facets", "Edges fixed", "Facets removed", "Facets added",
        "Facets reversed", "Backwards edges", "Normals fixed",
    )  # fmt: skip
    return {kind: int(_number(kind, said)) for kind in kinds}


def run(*command: str | Path) -> str:
    """Run a program to its end; what it said on standard output. Raises RuntimeError when it failed."""
    done = subprocess.run(  # noqa: S603
        [str(part) for part in command], check=False, capture_output=True, text=True, errors="replace", timeout=_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.stdout


def _number(label: str, said: str) -> str:
    match = re.search(rf"^\s*{label}\s*:\s*(\d+)", said, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"the program did not say {label!r}")
    return match[1]


def _corner(label: str, said: str) -> Corner:
    match = re.search(rf"^{label}\s*\((\S+) (\S+) (\S+)\)", said, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"the program did not say {label!r}")
    return float(match[1]), float(match[2]), float(match[3])
