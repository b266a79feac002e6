"""Mesh files read back by others' readers: trimesh, lib3mf and USD's own."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import trimesh


def reopen(data: bytes, format: str) -> trimesh.Trimesh:
    """Return the mesh of a file, vertices at one place made one."""
    if format == "3mf":
        mesh = _reopened_3mf(data)
    elif format == "usdz":
        mesh = _reopened_usdz(data)
    else:
        mesh = trimesh.load(io.BytesIO(data), file_type=format, force="mesh")
    mesh.merge_vertices(merge_norm=True, merge_tex=True)
    return mesh


def _reopened_3mf(data: bytes) -> trimesh.Trimesh:
    import lib3mf

    model = lib3mf.get_wrapper().CreateModel()
    reader = model.QueryReader("3mf")
    reader.SetStrictModeActive(True)
    reader.ReadFromBuffer(data)
    assert reader.GetWarningCount() == 0
    assert model.GetUnit() == lib3mf.ModelUnit.MilliMeter
    meshes = model.GetMeshObjects()
    assert meshes.MoveNext()
    mesh = meshes.GetCurrentMeshObject()
    vertices = np.array([list(point.Coordinates) for point in mesh.GetVertices()])
    faces = np.array([list(face.Indices) for face in mesh.GetTriangleIndices()])
    return trimesh.Trimesh(vertices, faces, process=False)


def _reopened_usdz(data: bytes) -> trimesh.Trimesh:
    from pxr import Usd, UsdGeom

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.usdz"
        path.write_bytes(data)
        stage = Usd.Stage.Open(str(path))
        assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0
        assert UsdGeom.GetStageUpAxis(stage) == "Y"
        (prim,) = [prim for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
        mesh = UsdGeom.Mesh(prim)
        faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
        return trimesh.Trimesh(np.array(mesh.GetPointsAttr().Get()), faces, process=False)
