"""A finished shape: what its meshes are encoded from, kept as one file so that one more format is exactly the same.

Vertices are kept as they are, in 32 bits only where that loses nothing. This module does not know which formats there
are, or whose shape it is.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from backend.errors import InvalidMesh
from backend.hunyuan3d.mesh.appearance import Appearance, Texture
from backend.hunyuan3d.mesh.export import export_mesh

SHAPE_FORMAT = "npz"

_EXPORT = "export.json"
_TEXTURE = "texture.png"
# Quick rather than small: it is made while a caller waits.
_LEVEL = 1


@dataclass(frozen=True, eq=False)
class FinishedShape:
    """A mesh in its place with its colours.

    export : what export_mesh is given beside these, as values that JSON has
    """

    mesh: trimesh.Trimesh
    appearance: Appearance | None
    export: dict[str, Any]


def encode(shape: FinishedShape, format: str) -> bytes:
    """Return a shape as a mesh file. Raises what export_mesh raises."""
    return export_mesh(shape.mesh, format, appearance=shape.appearance, **shape.export)


def shape_bytes(shape: FinishedShape) -> bytes:
    """Return the shape as the bytes of a zip archive: arrays as .npy, the texture as PNG, the rest as JSON."""
    arrays: dict[str, NDArray[Any]] = {
        "vertices": _shortest_floats(np.asarray(shape.mesh.vertices)),
        "faces": _shortest_indices(np.asarray(shape.mesh.faces)),
    }
    texture = None
    if shape.appearance is not None:
        arrays["vertex_colors"] = shape.appearance.vertex_colors
        texture = shape.appearance.texture
    if texture is not None:
        arrays["texture_vertex"] = _shortest_indices(texture.vertex)
        arrays["texture_faces"] = _shortest_indices(texture.faces)
        arrays["texture_uv"] = texture.uv
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)
        archive.writestr(_EXPORT, json.dumps(shape.export))
        if texture is not None:
            with archive.open(_TEXTURE, "w") as entry:
                texture.image.save(entry, "PNG", compress_level=_LEVEL)
    return buffer.getvalue()


def read_shape(data: bytes) -> FinishedShape:
    """Return the shape that shape_bytes wrote, equal in every bit. Raises InvalidMesh when the bytes are none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            mesh = trimesh.Trimesh(
                _array(archive, "vertices").astype(np.float64), _array(archive, "faces").astype(np.int64), process=False
            )
            return FinishedShape(mesh, _appearance(archive), json.loads(archive.read(_EXPORT)))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise InvalidMesh("The stored shape cannot be read.") from error


def _appearance(archive: zipfile.ZipFile) -> Appearance | None:
    names = set(archive.namelist())
    if "vertex_colors.npy" not in names:
        return None
    colors = _array(archive, "vertex_colors")
    if _TEXTURE not in names:
        return Appearance(colors)
    with archive.open(_TEXTURE) as entry:
        image = Image.open(entry).convert("RGB")
    texture = Texture(
        image,
        _array(archive, "texture_vertex").astype(np.int64),
        _array(archive, "texture_faces").astype(np.int64),
        _array(archive, "texture_uv"),
    )
    return Appearance(colors, texture)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as entry:
        array: NDArray[Any] = np.lib.format.read_array(entry, allow_pickle=False)
    return array


def _shortest_floats(values: NDArray[np.floating]) -> NDArray[np.floating]:
    short = values.astype(np.float32)
    return short if np.array_equal(short, values) else values


def _shortest_indices(values: NDArray[np.integer]) -> NDArray[np.integer]:
    fits = not values.size or int(values.max()) < 1 << 32
    return values.astype(np.uint32) if fits else values
