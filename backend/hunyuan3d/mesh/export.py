"""Meshes as files: GLB, STL, OBJ and PLY bytes, and writing bytes so that a reader never sees half a file.

This module does not know how a mesh was made, what it is called, or who will fetch it.

Frames and units. The mesh's world frame has Y up. GLB, OBJ and PLY keep it, with smooth vertex normals; without a
scale their unit is the model's (the box reaches from -1.01 to 1.01). STL is for printers: Z up, millimetres, the
longest side 100 mm unless a scale is given. With a scale, every format's unit is the millimetre.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from backend.errors import ExportError, InvalidFormat
from backend.hunyuan3d.mesh.ops import Point, check_scale_mm, require_usable, scale_to_mm, smooth_normals
from backend.hunyuan3d.mesh.topology import Faces, Vertices, is_closed, nudge_coincident
from backend.limits import FORMATS, MeshFormat
from orfeas_client.atomic_file import write_file

DEFAULT_STL_MM = 100.0

_CLAY = (204, 200, 194, 255)
_FORMATTED_AT_ONCE = 4096


def check_format(name: str) -> MeshFormat:
    """Return a format's name without case and leading dot. Raises InvalidFormat for anything but FORMATS."""
    plain = name.strip().lower().removeprefix(".")
    for format in FORMATS:
        if plain == format:
            return format
    raise InvalidFormat(f"The format must be one of {', '.join(FORMATS)}, not {name!r}.")


def export_mesh(mesh: trimesh.Trimesh, format: str, *, scale_mm: float | None = None) -> bytes:
    """Return the mesh as the bytes of a glb, stl, obj or ply file (STL and PLY binary).

    scale_mm : longest side in millimetres; see the module for what holds without it.
    Raises InvalidFormat, InvalidScale, InvalidMesh (empty or not finite), ExportError.
    """
    format = check_format(format)
    if scale_mm is None and format == "stl":
        scale_mm = DEFAULT_STL_MM
    if scale_mm is not None:
        mesh = scale_to_mm(mesh, scale_mm)
    vertices, faces = require_usable(mesh)
    if is_closed(faces):
        # Readers merge equal float32 positions; two vertices of a closed surface that fall together would tear it.
        vertices = nudge_coincident(vertices, faces)
    try:
        if format == "stl":
            return _stl_bytes(vertices, faces)
        normals = smooth_normals(vertices, faces)
        return _ENCODERS[format](vertices, normals, faces)
    except (ValueError, TypeError, IndexError, MemoryError) as failure:
        raise ExportError(f"The mesh could not be encoded as {format.upper()}: {failure}.") from failure


def exported_bounds(mesh: trimesh.Trimesh, format: str, *, scale_mm: float | None = None) -> tuple[Point, Point]:
    """Return the lowest and highest corner of the file that `export_mesh` makes, in the file's frame and unit.

    Raises InvalidFormat, InvalidScale, InvalidMesh.
    """
    format = check_format(format)
    vertices, faces = require_usable(mesh)
    used = vertices[faces].reshape(-1, 3)
    low, high = used.min(axis=0), used.max(axis=0)
    if exported_unit(format, scale_mm) == "mm":
        scale = check_scale_mm(DEFAULT_STL_MM if scale_mm is None else scale_mm) / float((high - low).max())
        low, high = low * scale, high * scale
    (x0, y0, z0), (x1, y1, z1) = low.tolist(), high.tolist()
    return ((x0, -z1, y0), (x1, -z0, y1)) if format == "stl" else ((x0, y0, z0), (x1, y1, z1))


def exported_unit(format: str, scale_mm: float | None = None) -> Literal["model", "mm"]:
    """Return the unit of the coordinates in the file that `export_mesh` makes."""
    return "mm" if scale_mm is not None or format == "stl" else "model"


def write_mesh(
    mesh: trimesh.Trimesh, path: str | Path, format: str | None = None, *, scale_mm: float | None = None
) -> Path:
    """Write a mesh in the format of the path's suffix (or `format`), whole or not at all; return the path.

    Raises what `export_mesh` raises, and ExportError when the file cannot be written.
    """
    path = Path(path)
    return write_atomically(export_mesh(mesh, format or path.suffix, scale_mm=scale_mm), path)


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


def _stl_bytes(vertices: Vertices, faces: Faces) -> bytes:
    # A quarter turn about X takes up from Y to Z: (x, y, z) -> (x, -z, y).
    upright = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1)
    return bytes(trimesh.Trimesh(vertices=upright, faces=faces, process=False).export(file_type="stl"))


def _glb_bytes(vertices: Vertices, normals: Vertices, faces: Faces) -> bytes:
    smooth = trimesh.Trimesh(vertices=vertices, faces=faces, vertex_normals=normals, process=False)
    # Without a material a glTF viewer assumes bare metal, which looks black under most lights.
    smooth.visual = TextureVisuals(
        material=PBRMaterial(name="clay", baseColorFactor=_CLAY, metallicFactor=0.0, roughnessFactor=0.8)
    )
    return bytes(smooth.export(file_type="glb", include_normals=True))


def _ply_bytes(vertices: Vertices, normals: Vertices, faces: Faces) -> bytes:
    smooth = trimesh.Trimesh(vertices=vertices, faces=faces, vertex_normals=normals, process=False)
    return bytes(smooth.export(file_type="ply", encoding="binary", vertex_normal=True))


def _obj_bytes(vertices: Vertices, normals: Vertices, faces: Faces) -> bytes:
    corners = np.repeat(faces + 1, 2, axis=1)
    lines = (
        ("v %.7f %.7f %.7f\n", vertices),
        ("vn %.7f %.7f %.7f\n", normals),
        ("f %d//%d %d//%d %d//%d\n", corners),
    )
    # Not joined at the end: that would be one long step too.
    stream = io.BytesIO(b"# ORFEAS\n")
    stream.seek(0, io.SEEK_END)
    for form, rows in lines:
        stream.writelines(_texts(form, rows))
    return stream.getvalue()


def _texts(form: str, rows: Vertices | Faces) -> Iterator[bytes]:
    # In slices: formatting is one step to Python, and no other thread runs, or answers anyone, before it ends.
    for begin in range(0, len(rows), _FORMATTED_AT_ONCE):
        part = rows[begin : begin + _FORMATTED_AT_ONCE]
        yield (form * len(part) % tuple(part.ravel().tolist())).encode("ascii")


_ENCODERS: Mapping[str, Callable[[Vertices, Vertices, Faces], bytes]] = {
    "glb": _glb_bytes,
    "obj": _obj_bytes,
    "ply": _ply_bytes,
}
