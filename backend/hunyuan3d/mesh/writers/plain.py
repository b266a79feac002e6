"""STL, OBJ and PLY: lists of vertices and faces, as bytes.

STL and PLY are binary, little-endian. Colors are sRGB: numbers from 0 to 1 behind an OBJ's vertices, bytes in a PLY.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.topology import Faces, Vertices
from backend.hunyuan3d.mesh.writers.surface import GENERATOR, Surface, ascii_name

_FORMATTED_AT_ONCE = 4096
_STL_FACE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def stl_bytes(surface: Surface) -> bytes:
    """Return a binary STL; its header names the mesh, and never begins like a text STL."""
    header = f"{GENERATOR} {ascii_name(surface.name)}".encode("ascii")[:80].ljust(80)
    faces = np.zeros(len(surface.faces), _STL_FACE)
    faces["corners"] = surface.vertices[surface.faces]
    # Of the corners as they stand in the file: a reader checks one by the other.
    a, b, c = (faces["corners"][:, k].astype(np.float64) for k in range(3))
    normal = np.cross(b - a, c - a)
    faces["normal"] = normal / np.maximum(np.linalg.norm(normal, axis=1), 1e-300)[:, None]
    return header + len(faces).to_bytes(4, "little") + faces.tobytes()


def ply_bytes(surface: Surface) -> bytes:
    """Return a binary PLY with normals, and with colors where there are some."""
    fields = [("position", "<f4", 3), ("normal", "<f4", 3)]
    lines = [f"property float {axis}" for axis in ("x", "y", "z", "nx", "ny", "nz")]
    if surface.colors is not None:
        fields.append(("color", "u1", 3))
        lines += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    vertices = np.zeros(len(surface.vertices), np.dtype(fields))
    vertices["position"], vertices["normal"] = surface.vertices, surface.normals
    if surface.colors is not None:
        vertices["color"] = surface.colors
    faces = np.zeros(len(surface.faces), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    faces["count"], faces["corners"] = 3, surface.faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {GENERATOR} {ascii_name(surface.name)}",
        f"element vertex {len(vertices)}",
        *lines,
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    return "\n".join([*header, ""]).encode("ascii") + vertices.tobytes() + faces.tobytes()


def obj_bytes(surface: Surface) -> bytes:
    """Return an OBJ with normals, and with colors behind the vertices where there are some."""
    vertices, form = surface.vertices, "v %.7f %.7f %.7f\n"
    if surface.colors is not None:
        vertices = np.concatenate([vertices, surface.colors / 255], axis=1)
        form = "v %.7f %.7f %.7f %.4f %.4f %.4f\n"
    lines: tuple[tuple[str, NDArray[np.float64] | Faces], ...] = (
        (form, vertices),
        ("vn %.7f %.7f %.7f\n", surface.normals),
        ("f %d//%d %d//%d %d//%d\n", np.repeat(surface.faces + 1, 2, axis=1)),
    )
    # Not joined at the end: that would be one long step too.
    stream = io.BytesIO(f"# {GENERATOR}\no {ascii_name(surface.name)}\n".encode("ascii"))
    stream.seek(0, io.SEEK_END)
    for form, rows in lines:
        stream.writelines(texts(form, rows))
    return stream.getvalue()


def texts(form: str, rows: Vertices | Faces) -> Iterator[bytes]:
    """Yield rows (N, K) of numbers as text, each by a form with K places."""
    # In slices: formatting is one step to Python, and no other thread runs, or answers anyone, before it ends.
    for begin in range(0, len(rows), _FORMATTED_AT_ONCE):
        part = rows[begin : begin + _FORMATTED_AT_ONCE]
        yield (form * len(part) % tuple(part.ravel().tolist())).encode("ascii")
