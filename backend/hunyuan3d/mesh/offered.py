"""What this installation can write: some formats and compressions need a package that is not always there.

Nothing is imported to find out. This module does not know how a file is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Literal

from backend.errors import InvalidCompress, InvalidFormat
from backend.limits import COMPRESSIONS, FORMATS, ColorMode, Compression, MeshFormat

_NEEDED = {"usdz": ("pxr", "orfeas[usd]"), "draco": ("DracoPy", "orfeas[draco]")}
"""The package that a format or compression needs, and what to install for it."""

_CARRIED: Mapping[MeshFormat, tuple[Literal["vertex", "texture"], ...]] = {
    "glb": ("vertex", "texture"),
    "usdz": ("vertex", "texture"),
    "obj": ("vertex",),
    "ply": ("vertex",),
    "3mf": ("vertex",),
    "stl": (),
}
"""The colors that each format carries, the best last."""


@cache
def is_offered(name: str) -> bool:
    """Return whether a format or compression can be written here."""
    return name not in _NEEDED or find_spec(_NEEDED[name][0]) is not None


def offered_formats() -> tuple[MeshFormat, ...]:
    """Return the formats that can be written here."""
    return tuple(format for format in FORMATS if is_offered(format))


def offered_compressions() -> tuple[Compression, ...]:
    """Return the compressions that can be written here."""
    return tuple(name for name in COMPRESSIONS if is_offered(name))


def carried_color(format: MeshFormat, color: ColorMode) -> Literal["none", "vertex", "texture"]:
    """Return which colors a file of this format has when these are asked for: what it cannot carry is left out."""
    carried = _CARRIED[format]
    if color == "auto":
        return carried[-1] if carried else "none"
    return color if color in carried else "none"


def require_format(format: MeshFormat) -> None:
    """Raise InvalidFormat for one that cannot be written here."""
    if not is_offered(format):
        raise InvalidFormat(_missing(format), details={"field": "format", "allowed": ", ".join(offered_formats())})


def require_compression(name: Compression) -> None:
    """Raise InvalidCompress for one that cannot be written here."""
    if not is_offered(name):
        allowed = ", ".join(offered_compressions())
        raise InvalidCompress(_missing(name), details={"field": "compress", "allowed": allowed})


def _missing(name: str) -> str:
    return f"{name} is not offered here: whoever runs the service can add it (pip install '{_NEEDED[name][1]}')."
