"""Meshes as files: in the format's frame and unit, in color where it carries any, written whole or not at all.

Frames and units. The mesh's world frame has Y up. GLB, USDZ, OBJ and PLY keep it; STL and 3MF, which are for printers,
have Z up: (x, y, z) becomes (x, -z, y). The longest side is scale_mm millimetres. glTF's and USD's unit is the metre,
so that a mesh of 80 mm is 0.08 there; the others have no unit of their own, or millimetres, and say 80. Without a
scale, None, every format has the model's unit (the box reaches from -1.01 to 1.01).

This module does not know how a mesh was made, or who will fetch it. How each kind of file is built is writers'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh

from backend.errors import ExportError, InvalidFormat
from backend.hunyuan3d.mesh.appearance import Appearance
from backend.hunyuan3d.mesh.offered import carried_color
from backend.hunyuan3d.mesh.ops import Point, check_scale_mm, require_usable, scale_to_mm
from backend.hunyuan3d.mesh.topology import is_closed, nudge_coincident
from backend.hunyuan3d.mesh.writers.glb import glb_bytes
from backend.hunyuan3d.mesh.writers.plain import obj_bytes, ply_bytes, stl_bytes
from backend.hunyuan3d.mesh.writers.surface import Surface, plain_name
from backend.hunyuan3d.mesh.writers.threemf import threemf_bytes
from backend.hunyuan3d.mesh.writers.usdz import usdz_bytes
from backend.limits import (
    DEFAULT_COLOR,
    DEFAULT_COMPRESSION,
    DEFAULT_SCALE_MM,
    FORMATS,
    ColorMode,
    Compression,
    MeshFormat,
)
from orfeas_client.atomic_file import write_file

Unit = Literal["model", "mm", "m"]

_IN_METRES: tuple[MeshFormat, ...] = ("glb", "usdz")
_Z_UP: tuple[MeshFormat, ...] = ("stl", "3mf")
_ENCODERS: Mapping[MeshFormat, Callable[[Surface], bytes]] = {
    "stl": stl_bytes,
    "obj": obj_bytes,
    "ply": ply_bytes,
    "3mf": threemf_bytes,
    "usdz": usdz_bytes,
}


def check_format(name: str) -> MeshFormat:
    """Return a format's name without case and leading dot. Raises InvalidFormat for anything but FORMATS."""
    plain = name.strip().lower().removeprefix(".")
    for format in FORMATS:
        if plain == format:
            return format
    raise InvalidFormat(f"The format must be one of {', '.join(FORMATS)}, not {name!r}.")


def export_mesh(
    mesh: trimesh.Trimesh,
    format: str,
    *,
    appearance: Appearance | None = None,
    color: ColorMode = DEFAULT_COLOR,
    scale_mm: float | None = DEFAULT_SCALE_MM,
    name: str = "mesh",
    compress: Compression = DEFAULT_COMPRESSION,
    extras: Mapping[str, object] | None = None,
) -> bytes:
    """Return the mesh as the bytes of a file (STL and PLY binary).

    appearance : of this mesh's vertices; color : which of it is written, where the format carries it.
    scale_mm : longest side in millimetres; None leaves the model's unit. name : what the file calls the mesh.
    compress : of a GLB, without effect elsewhere. extras : JSON kept in GLB and, as text, in USDZ.
    Raises InvalidFormat, InvalidScale, InvalidMesh (empty or not finite), ExportError.
    """
    format = check_format(format)
    surface = _surface(mesh, format, appearance, color, scale_mm, plain_name(name), extras or {})
    try:
        return glb_bytes(surface, compress) if format == "glb" else _ENCODERS[format](surface)
    except (ValueError, TypeError, IndexError, KeyError, RuntimeError, MemoryError) as failure:
        raise ExportError(f"The mesh could not be encoded as {format.upper()}: {failure}.") from failure


def exported_bounds(
    mesh: trimesh.Trimesh, format: str, *, scale_mm: float | None = DEFAULT_SCALE_MM
) -> tuple[Point, Point]:
    """Return the lowest and highest corner of the file that `export_mesh` makes, in the file's frame and unit.

    Raises InvalidFormat, InvalidScale, InvalidMesh.
    """
    format = check_format(format)
    vertices, faces = require_usable(mesh)
    used = vertices[faces].reshape(-1, 3)
    low, high = used.min(axis=0), used.max(axis=0)
    scale = 1.0 if scale_mm is None else check_scale_mm(scale_mm) * _unit_scale(format) / float((high - low).max())
    (x0, y0, z0), (x1, y1, z1) = (low * scale).tolist(), (high * scale).tolist()
    return ((x0, -z1, y0), (x1, -z0, y1)) if format in _Z_UP else ((x0, y0, z0), (x1, y1, z1))


def exported_unit(format: str, scale_mm: float | None = DEFAULT_SCALE_MM) -> Unit:
    """Return the unit of the coordinates in the file that `export_mesh` makes."""
    if scale_mm is None:
        return "model"
    return "m" if format in _IN_METRES else "mm"


def write_mesh(
    mesh: trimesh.Trimesh,
    path: str | Path,
    format: str | None = None,
    *,
    appearance: Appearance | None = None,
    color: ColorMode = DEFAULT_COLOR,
    scale_mm: float | None = DEFAULT_SCALE_MM,
    compress: Compression = DEFAULT_COMPRESSION,
    extras: Mapping[str, object] | None = None,
) -> Path:
    """Write a mesh in the format of the path's suffix (or `format`), whole or not at all; return the path.

    The file calls the mesh by the path's stem; the rest is as for `export_mesh`. Raises what `export_mesh` raises, and
    ExportError when the file cannot be written.
    """
    path = Path(path)
    data = export_mesh(
        mesh,
        format or path.suffix,
        appearance=appearance,
        color=color,
        scale_mm=scale_mm,
        name=path.stem,
        compress=compress,
        extras=extras,
    )
    return write_atomically(data, path)


def write_atomically(data: bytes, path: str | Path) -> Path:
    """Write bytes under a temporary name beside `path`, flush them to the disk, then rename; return the path.

    On failure (disk full, no permission, no such folder) nothing is left behind and an older file of that name stays.
    Raises ExportError with the system's reason.
    """
    path = Path(path)
    try:
        write_file(path, data)
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise ExportError(f"{path} could not be written: {reason}.", details={"path": str(path)}) from failure
    return path


def _surface(
    mesh: trimesh.Trimesh,
    format: MeshFormat,
    appearance: Appearance | None,
    color: ColorMode,
    scale_mm: float | None,
    name: str,
    extras: Mapping[str, object],
) -> Surface:
    """Return the mesh in the format's frame and unit, in its colors. Raises InvalidScale, InvalidMesh."""
    if scale_mm is not None:
        mesh = scale_to_mm(mesh, scale_mm)
    vertices, faces = require_usable(mesh)
    if scale_mm is not None:
        vertices = vertices * _unit_scale(format)
    if is_closed(faces):
        # Readers merge equal float32 positions; two vertices of a closed surface that fall together would tear it.
        vertices = nudge_coincident(vertices, faces)
    if format in _Z_UP:
        # A quarter turn about X takes up from Y to Z.
        vertices = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1)
    carried = "none" if appearance is None else carried_color(format, color)
    if appearance is None or carried == "none":
        return Surface(vertices, faces, name=name, extras=extras)
    texture = appearance.texture if carried == "texture" else None
    return Surface(vertices, faces, appearance.vertex_colors, texture, name, extras)


def _unit_scale(format: MeshFormat) -> float:
    """Return the format's units in a millimetre."""
    return 0.001 if format in _IN_METRES else 1.0
