"""3MF: a mesh in millimetres with a color at every corner, in one zip.

Source: the 3MF Core Specification 1.3 and the Materials and Properties Extension 1.2 (color groups). Not written are
normals and textures, which printers have no use for.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from xml.sax.saxutils import escape

import numpy as np

from backend.hunyuan3d.mesh.writers.plain import texts
from backend.hunyuan3d.mesh.writers.surface import GENERATOR, Surface

_TYPES = """<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/>
</Types>
"""
_RELATIONS = """<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rel0" Target="/3D/3dmodel.model"
 Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/>
</Relationships>
"""
_CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
_MATERIAL = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
# The earliest time that a zip can name: the same mesh makes the same bytes.
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def threemf_bytes(surface: Surface) -> bytes:
    """Return the zip; the surface is in millimetres, Z up."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as package:
        for name, text in (("[Content_Types].xml", _TYPES), ("_rels/.rels", _RELATIONS)):
            package.writestr(_entry(name), text)
        with package.open(_entry("3D/3dmodel.model"), "w") as model:
            model.writelines(_model(surface))
    return stream.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _LONG_AGO)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _model(surface: Surface) -> Iterator[bytes]:
    name = escape(surface.name)
    yield (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<model unit="millimeter" xml:lang="en-US" xmlns="{_CORE}" '
        f'xmlns:m="{_MATERIAL}">\n<metadata name="Title">{name}</metadata>\n'
        f'<metadata name="Application">{GENERATOR}</metadata>\n<resources>\n'
    ).encode()
    colored = surface.colors is not None
    corners = surface.faces
    face = '<triangle v1="%d" v2="%d" v3="%d"/>\n'
    if surface.colors is not None:
        packed = surface.colors.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
        shades, of_vertex = np.unique(packed, return_inverse=True)
        yield b'<m:colorgroup id="1">\n'
        yield from texts('<m:color color="#%06X"/>\n', shades[:, None].astype(np.int64))
        yield b"</m:colorgroup>\n"
        corners = np.concatenate([corners, of_vertex.reshape(-1)[corners]], axis=1)
        face = '<triangle v1="%d" v2="%d" v3="%d" pid="1" p1="%d" p2="%d" p3="%d"/>\n'
    color = ' pid="1" pindex="0"' if colored else ""
    yield f'<object id="2" type="model" name="{name}"{color}>\n<mesh>\n<vertices>\n'.encode()
    yield from texts('<vertex x="%.6f" y="%.6f" z="%.6f"/>\n', surface.vertices)
    yield b"</vertices>\n<triangles>\n"
    yield from texts(face, corners)
    yield b'</triangles>\n</mesh>\n</object>\n</resources>\n<build>\n<item objectid="2"/>\n</build>\n</model>\n'
