"""USDZ: a stage in USD's binary form, with its texture, in one zip. Needs the package usd-core (the extra `usd`).

The stage's unit is the metre and Y is up. A texture lies in the material; colors of vertices are the primvar
displayColor, which the material reads. This module imports usd-core only when a file is written.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import ExportError
from backend.hunyuan3d.mesh.writers.surface import CLAY, GENERATOR, Surface, linear
from backend.hunyuan3d.mesh.writers.textures import jpeg_bytes

_TEXTURE_NAME = "texture.jpg"
_ROUGHNESS = 0.8


def usdz_bytes(surface: Surface) -> bytes:
    """Return the zip. Raises ExportError where usd-core is not installed or refuses."""
    try:
        from pxr import Sdf, Tf, UsdUtils
    except ImportError as missing:
        raise ExportError("USDZ files need usd-core: pip install 'orfeas[usd]'.") from missing
    with tempfile.TemporaryDirectory(prefix="orfeas-usd-") as folder:
        path = Path(folder)
        if surface.texture is not None:
            (path / _TEXTURE_NAME).write_bytes(jpeg_bytes(surface.texture.image))
        try:
            _write_stage(surface, path / "mesh.usdc")
            whole = UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(path / "mesh.usdc")), str(path / "mesh.usdz"))
        except Tf.ErrorException as refused:
            raise ExportError(f"The mesh could not be encoded as USDZ: {refused}.") from refused
        if not whole:
            raise ExportError("The mesh could not be packed as USDZ.")
        return (path / "mesh.usdz").read_bytes()


def _write_stage(surface: Surface, path: Path) -> None:
    from pxr import Tf, Usd, UsdGeom

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetMetadata("comment", GENERATOR)
    root = UsdGeom.Xform.Define(stage, f"/{Tf.MakeValidIdentifier(surface.name)}")
    root.GetPrim().SetCustomDataByKey("orfeas", {name: str(value) for name, value in surface.extras.items()})
    stage.SetDefaultPrim(root.GetPrim())
    mesh = UsdGeom.Mesh.Define(stage, root.GetPath().AppendChild("mesh"))
    _set_geometry(mesh, surface)
    _set_material(stage, mesh, surface)
    stage.GetRootLayer().Save()


def _set_geometry(mesh: Any, surface: Surface) -> None:
    from pxr import Sdf, UsdGeom, Vt

    def vectors(rows: Any) -> Any:
        return Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(rows, np.float32))

    mesh.CreatePointsAttr(vectors(surface.vertices))
    mesh.CreateExtentAttr(vectors([surface.vertices.min(axis=0), surface.vertices.max(axis=0)]))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(surface.faces), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(surface.faces.astype(np.int32).reshape(-1)))
    mesh.CreateNormalsAttr(vectors(surface.normals))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    # Without this a reader takes the triangles for the cage of a smooth surface.
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    primvars = UsdGeom.PrimvarsAPI(mesh)
    if surface.texture is not None:
        texture = surface.texture
        places = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying)
        turned = np.ascontiguousarray(np.stack([texture.uv[:, 0], 1 - texture.uv[:, 1]], axis=1), np.float32)
        places.Set(Vt.Vec2fArray.FromNumpy(turned))
        # The places are those of the faces' corners, in the order of faceVertexIndices.
        places.SetIndices(Vt.IntArray.FromNumpy(texture.faces.astype(np.int32).reshape(-1)))
    elif surface.colors is not None:
        colors = primvars.CreatePrimvar("displayColor", Sdf.ValueTypeNames.Color3fArray, UsdGeom.Tokens.vertex)
        colors.Set(vectors(linear(surface.colors)))


def _set_material(stage: Any, mesh: Any, surface: Surface) -> None:
    from pxr import Gf, Sdf, UsdShade

    types = Sdf.ValueTypeNames
    path = mesh.GetPath().GetParentPath().AppendChild("material")
    material = UsdShade.Material.Define(stage, path)
    shader = UsdShade.Shader.Define(stage, path.AppendChild("surface"))
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("roughness", types.Float).Set(_ROUGHNESS)
    shader.CreateInput("metallic", types.Float).Set(0.0)
    color = shader.CreateInput("diffuseColor", types.Color3f)
    if surface.texture is not None or surface.colors is not None:
        color.ConnectToSource(_color_source(stage, path, textured=surface.texture is not None))
    else:
        color.Set(Gf.Vec3f(*linear(np.array(CLAY, np.uint8)).tolist()))
    material.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)


def _color_source(stage: Any, path: Any, *, textured: bool) -> Any:
    """Return the output of shaders that read the texture, or the vertices' colors."""
    from pxr import Sdf, UsdShade

    types = Sdf.ValueTypeNames
    reader = UsdShade.Shader.Define(stage, path.AppendChild("reader"))
    reader.CreateIdAttr("UsdPrimvarReader_float2" if textured else "UsdPrimvarReader_float3")
    reader.CreateInput("varname", types.String).Set("st" if textured else "displayColor")
    if not textured:
        return reader.CreateOutput("result", types.Float3)
    sampler = UsdShade.Shader.Define(stage, path.AppendChild("texture"))
    sampler.CreateIdAttr("UsdUVTexture")
    sampler.CreateInput("file", types.Asset).Set(_TEXTURE_NAME)
    sampler.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    sampler.CreateInput("wrapS", types.Token).Set("clamp")
    sampler.CreateInput("wrapT", types.Token).Set("clamp")
    sampler.CreateInput("st", types.Float2).ConnectToSource(reader.CreateOutput("result", types.Float2))
    return sampler.CreateOutput("rgb", types.Float3)
