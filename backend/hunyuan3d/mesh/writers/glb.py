"""GLB: glTF 2.0 in one file, with smooth normals, names, and a texture or colors of vertices.

Source: the glTF 2.0 specification. A mesh of up to 65,535 vertices has indices of 16 bits. Colors of vertices are
linear light in 16 bits, since 8 would show steps in the dark; a texture stays sRGB. How the parts of a compressed file
are made is `compression`'s.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.writers.compression import draco_primitive, meshopt_bytes, quantised
from backend.hunyuan3d.mesh.writers.surface import CLAY, GENERATOR, Surface, linear
from backend.hunyuan3d.mesh.writers.textures import jpeg_bytes
from backend.limits import DEFAULT_COMPRESSION, Compression

Attributes = dict[str, NDArray[Any]]

_MOST_SHORT = 65_535
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_COMPONENTS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
_VERTICES, _INDICES = 34962, 34963
_LINEAR_MIPMAP, _LINEAR_FILTER, _CLAMPED = 9987, 9729, 33071
_ROUGHNESS = 0.8
MESHOPT, QUANTISED, DRACO = "EXT_meshopt_compression", "KHR_mesh_quantization", "KHR_draco_mesh_compression"


def glb_bytes(surface: Surface, compress: Compression = DEFAULT_COMPRESSION) -> bytes:
    """Return the file; the surface is in metres, Y up. Raises ExportError where a compression's package is missing."""
    attributes, faces = _attributes(surface)
    file = _File(surface.name, surface.extras)
    if compress == "meshopt":
        attributes, node = quantised(attributes)
        primitive = file.add_compressed(attributes, faces)
        file.node.update(node)
    elif compress == "draco":
        primitive = file.add_draco(attributes, faces)
    else:
        primitive = file.add_plain(attributes, faces)
    file.add_mesh(primitive, surface)
    return file.to_bytes()


def _attributes(surface: Surface) -> tuple[Attributes, NDArray[Any]]:
    """Return the vertices' attributes by their glTF names, and the faces (F, 3): those of the texture, if any."""
    texture = surface.texture
    positions, normals, faces = surface.vertices, surface.normals, surface.faces
    found: Attributes = {}
    if texture is not None:
        positions, normals, faces = positions[texture.vertex], normals[texture.vertex], texture.faces
        found["TEXCOORD_0"] = texture.uv.astype("<f4")
    elif surface.colors is not None:
        opaque = np.full((len(positions), 4), 65535, "<u2")
        opaque[:, :3] = np.rint(linear(surface.colors) * 65535)
        found["COLOR_0"] = opaque
    kind = "<u2" if len(positions) <= _MOST_SHORT else "<u4"
    return {"POSITION": positions.astype("<f4"), "NORMAL": normals.astype("<f4"), **found}, faces.astype(kind)


class _File:
    """The JSON and the bytes of a file as they grow."""

    def __init__(self, name: str, extras: Mapping[str, object]) -> None:
        self.node: dict[str, Any] = {"name": name, "mesh": 0}
        if extras:
            self.node["extras"] = dict(extras)
        self._name = name
        self._views: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []
        self._data = bytearray()
        self._document: dict[str, Any] = {}
        self._extensions: list[str] = []
        # What a reader without the extension would unpack into; nothing of it is in the file.
        self._unpacked = 0

    def add_plain(self, attributes: Attributes, faces: NDArray[Any]) -> dict[str, Any]:
        """Add a mesh as it is; return its primitive."""
        named = {name: self._accessor(name, rows, self._view(rows, _VERTICES)) for name, rows in attributes.items()}
        indices = faces.reshape(-1, 1)
        return {"attributes": named, "indices": self._accessor("", indices, self._view(indices, _INDICES))}

    def add_compressed(self, attributes: Attributes, faces: NDArray[Any]) -> dict[str, Any]:
        """Add a mesh by EXT_meshopt_compression; return its primitive."""
        self._extensions += [MESHOPT, QUANTISED]
        named = {name: self._accessor(name, rows, self._packed(rows, _VERTICES)) for name, rows in attributes.items()}
        indices = faces.reshape(-1, 1)
        return {"attributes": named, "indices": self._accessor("", indices, self._packed(indices, _INDICES))}

    def add_draco(self, attributes: Attributes, faces: NDArray[Any]) -> dict[str, Any]:
        """Add a mesh by KHR_draco_mesh_compression; return its primitive."""
        self._extensions.append(DRACO)
        data, ids, decoded = draco_primitive(attributes, faces)
        named = {name: self._accessor(name, rows, None) for name, rows in decoded.attributes.items()}
        indices = self._accessor("", decoded.faces.reshape(-1, 1), None)
        extension = {"bufferView": self._append(data), "attributes": ids}
        return {"attributes": named, "indices": indices, "extensions": {DRACO: extension}}

    def add_mesh(self, primitive: dict[str, Any], surface: Surface) -> None:
        """Add what stands around the one primitive."""
        material: dict[str, Any] = {"name": self._name, "pbrMetallicRoughness": self._look(surface)}
        self._document |= {
            "scene": 0,
            "scenes": [{"name": self._name, "nodes": [0]}],
            "nodes": [self.node],
            "meshes": [{"name": self._name, "primitives": [{**primitive, "material": 0}]}],
            "materials": [material],
        }

    def to_bytes(self) -> bytes:
        """Return the whole file."""
        buffers: list[dict[str, Any]] = [{"byteLength": len(self._data) + -len(self._data) % 4}]
        if self._unpacked:
            buffers.append({"byteLength": self._unpacked, "extensions": {MESHOPT: {"fallback": True}}})
        document = {
            "asset": {"version": "2.0", "generator": GENERATOR},
            **(
                {"extensionsUsed": self._extensions, "extensionsRequired": self._extensions} if self._extensions else {}
            ),
            **self._document,
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": buffers,
        }
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        data = bytes(self._data) + b"\0" * (-len(self._data) % 4)
        total = 12 + 8 + len(text) + 8 + len(data)
        head = struct.pack("<4sII", b"glTF", 2, total) + struct.pack("<I4s", len(text), b"JSON")
        return head + text + struct.pack("<I4s", len(data), b"BIN\0") + data

    def _look(self, surface: Surface) -> dict[str, Any]:
        # Without a material a viewer assumes bare metal, which looks black under most lights.
        look: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": _ROUGHNESS}
        if surface.texture is not None:
            image = {"name": self._name, "mimeType": "image/jpeg"}
            self._document |= {
                "images": [{**image, "bufferView": self._append(jpeg_bytes(surface.texture.image))}],
                "samplers": [
                    {
                        "magFilter": _LINEAR_FILTER,
                        "minFilter": _LINEAR_MIPMAP,
                        "wrapS": _CLAMPED,
                        "wrapT": _CLAMPED,
                    }
                ],
                "textures": [{"name": self._name, "sampler": 0, "source": 0}],
            }
            return {**look, "baseColorTexture": {"index": 0}}
        if surface.colors is None:
            look["baseColorFactor"] = [*np.round(linear(np.array(CLAY, np.uint8)), 6).tolist(), 1.0]
        return look

    def _accessor(self, name: str, rows: NDArray[Any], view: int | None) -> int:
        found: dict[str, Any] = {} if view is None else {"bufferView": view}
        found |= {"componentType": _COMPONENTS[rows.dtype.str[1:]], "count": len(rows), "type": _TYPES[rows.shape[1]]}
        if name in ("NORMAL", "TEXCOORD_0", "COLOR_0") and rows.dtype.kind != "f":
            found["normalized"] = True
        if name == "POSITION":
            found |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        self._accessors.append(found)
        return len(self._accessors) - 1

    def _view(self, rows: NDArray[Any], target: int) -> int:
        return self._append(rows.tobytes(), target=target)

    def _packed(self, rows: NDArray[Any], target: int) -> int:
        """Add rows (N, K) compressed; the view itself says where they would lie unpacked."""
        index = target == _INDICES
        stride = rows.itemsize if index else rows.shape[1] * rows.itemsize + -(rows.shape[1] * rows.itemsize) % 4
        data = meshopt_bytes(rows, stride, indices=index)
        self._append(data, target=target)
        view = self._views[-1]
        extension = {**view, "byteStride": stride, "count": len(rows), "mode": "INDICES" if index else "ATTRIBUTES"}
        extension.pop("target")
        view |= {"buffer": 1, "byteOffset": self._unpacked, "byteLength": stride * len(rows)}
        view["extensions"] = {MESHOPT: extension}
        if not index:
            view["byteStride"] = stride
        self._unpacked += stride * len(rows) + -(stride * len(rows)) % 4
        return len(self._views) - 1

    def _append(self, data: bytes, **view: Any) -> int:
        self._data += b"\0" * (-len(self._data) % 4)
        self._views.append({"buffer": 0, "byteOffset": len(self._data), "byteLength": len(data), **view})
        self._data += data
        return len(self._views) - 1
