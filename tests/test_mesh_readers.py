"""Others' programs read our mesh files: right, whole, and without a word of complaint."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import DracoPy
import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image

from backend.hunyuan3d.mesh.appearance import Appearance
from backend.hunyuan3d.mesh.export import export_mesh, exported_bounds
from backend.limits import Compression
from benchmarks.support.programs import require
from benchmarks.support.readers import INSTALL, admesh_repairs, assimp_measures, gltf_issues, meshopt_rows
from tests.support.looks import BACK, FRONT, two_sided_ball
from tests.support.mesh_files import reopen

LOOKS = ("plain", "vertex", "texture")
KINDS: tuple[Compression, ...] = ("none", "meshopt", "draco")


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    require(INSTALL)


@pytest.fixture(scope="module")
def ball() -> tuple[trimesh.Trimesh, Appearance]:
    return two_sided_ball()


def written(
    ball: tuple[trimesh.Trimesh, Appearance], look: str, format: str, compress: Compression = "none", scale: float = 80
) -> bytes:
    mesh, appearance = ball
    return export_mesh(
        mesh,
        format,
        appearance=None if look == "plain" else appearance,
        color="vertex" if look == "vertex" else "auto",
        scale_mm=scale,
        name="two sides",
        compress=compress,
        extras={"seed": 7, "model": "demo"},
    )


def parts_of(glb: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack_from("<I", glb, 12)[0]
    return json.loads(glb[20 : 20 + length]), glb[28 + length :]


def rows_of(glb: bytes, accessor: int) -> NDArray[Any]:
    """Return an accessor's numbers as they stand in the file, one row each."""
    document, binary = parts_of(glb)
    said = document["accessors"][accessor]
    kind = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}[said["componentType"]]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[said["type"]]
    start = document["bufferViews"][said["bufferView"]]["byteOffset"]
    return np.frombuffer(binary, kind, said["count"] * width, start).reshape(-1, width)


def test_gltf_validator_has_nothing_to_say(ball: tuple[trimesh.Trimesh, Appearance], tmp_path: Path) -> None:
    files = []
    for look in LOOKS:
        for compress in KINDS:
            files.append(tmp_path / f"{look}-{compress}.glb")
            files[-1].write_bytes(written(ball, look, "glb", compress))
    for file, issues in zip(files, gltf_issues(files), strict=True):
        assert (issues["errors"], issues["warnings"], issues["hints"]) == (0, 0, 0), file.name
        # What it does not know it cannot look into, and says so.
        assert set(issues["codes"]) <= (set() if "none" in file.name else {"UNSUPPORTED_EXTENSION", "UNUSED_OBJECT"})


@pytest.mark.parametrize("scale", [80.0, 0.1, 10_000.0])
@pytest.mark.parametrize("format", ["glb", "stl", "obj", "ply"])
def test_assimp_finds_the_size_and_every_face(
    ball: tuple[trimesh.Trimesh, Appearance], format: str, scale: float, tmp_path: Path
) -> None:
    file = tmp_path / f"ball.{format}"
    file.write_bytes(written(ball, "vertex", format, scale=scale))
    found = assimp_measures(file)
    bounds = exported_bounds(ball[0], format, scale_mm=scale)
    assert found.faces == len(ball[0].faces)
    np.testing.assert_allclose([found.low, found.high], bounds, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 80.0, 10_000.0])
def test_admesh_repairs_nothing(ball: tuple[trimesh.Trimesh, Appearance], scale: float, tmp_path: Path) -> None:
    file = tmp_path / "ball.stl"
    file.write_bytes(written(ball, "plain", "stl", scale=scale))
    assert set(admesh_repairs(file).values()) == {0}


def test_meshoptimizer_unpacks_what_was_packed(ball: tuple[trimesh.Trimesh, Appearance], tmp_path: Path) -> None:
    file = tmp_path / "ball.glb"
    file.write_bytes(written(ball, "texture", "glb", "meshopt"))
    document, _ = parts_of(file.read_bytes())
    mesh, appearance = ball
    assert appearance.texture is not None
    position, normal, place, indices = meshopt_rows(file)
    node = document["nodes"][0]
    points = position.reshape(-1, 8)[:, :6].copy().view("<u2") * node["scale"] + np.array(node["translation"])
    wanted = mesh.vertices[appearance.texture.vertex] * 0.08 / mesh.extents.max()
    np.testing.assert_allclose(points, wanted, atol=0.08 / 65535)
    normals = normal.reshape(-1, 8)[:, :6].copy().view("<i2") / 32767
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    assert (np.einsum("ij,ij->i", normals, wanted) > 0).all()
    np.testing.assert_allclose(place.view("<u2").reshape(-1, 2) / 65535, appearance.texture.uv, atol=1e-5)
    np.testing.assert_array_equal(indices.view("<u2").reshape(-1, 3), appearance.texture.faces)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 255, 256, 257, 4000])
def test_any_number_of_rows_is_packed(rows: int, tmp_path: Path) -> None:
    """Noise, steps and rest need every width that a group may have."""
    draw = np.random.default_rng(rows)
    noise = draw.normal(size=(rows + 2, 3)) * draw.choice([0.001, 0.05, 1.0], (rows + 2, 1))
    faces = draw.integers(0, rows + 2, (rows, 3))
    faces[0] = 0, 1, 2
    mesh = trimesh.Trimesh(noise, faces, process=False)
    file = tmp_path / "noise.glb"
    file.write_bytes(export_mesh(mesh, "glb", scale_mm=None, compress="meshopt"))
    node = parts_of(file.read_bytes())[0]["nodes"][0]
    position, _, indices = meshopt_rows(file)
    points = position.reshape(-1, 8)[:, :6].copy().view("<u2") * node["scale"] + np.array(node["translation"])
    np.testing.assert_allclose(points, noise, atol=node["scale"][0])
    np.testing.assert_array_equal(indices.view("<u2").reshape(-1, 3), faces)


@pytest.mark.parametrize("look", LOOKS)
def test_draco_comes_back_as_the_file_says(ball: tuple[trimesh.Trimesh, Appearance], look: str) -> None:
    document, binary = parts_of(written(ball, look, "glb", "draco"))
    primitive = document["meshes"][0]["primitives"][0]
    packed = primitive["extensions"]["KHR_draco_mesh_compression"]
    view = document["bufferViews"][packed["bufferView"]]
    mesh = DracoPy.decode(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])
    assert set(packed["attributes"]) == set(primitive["attributes"])
    for name, number in packed["attributes"].items():
        data = mesh.get_attribute_by_unique_id(number)["data"]
        assert len(data) == document["accessors"][primitive["attributes"][name]]["count"]
    assert document["accessors"][primitive["indices"]]["count"] == mesh.faces.size == 3 * len(ball[0].faces)
    again = trimesh.Trimesh(mesh.points, mesh.faces)
    again.merge_vertices(merge_norm=True, merge_tex=True)
    assert again.is_watertight
    assert again.volume == pytest.approx(ball[0].volume * (0.08 / 3) ** 3, rel=1e-3)


def test_glb_says_what_it_is(ball: tuple[trimesh.Trimesh, Appearance]) -> None:
    document, _ = parts_of(written(ball, "texture", "glb"))
    names = [document[kind][0]["name"] for kind in ("scenes", "nodes", "meshes", "materials", "images", "textures")]
    assert set(names) == {"two sides"}
    assert document["asset"]["generator"].startswith("ORFEAS ")
    assert document["nodes"][0]["extras"] == {"seed": 7, "model": "demo"}
    targets = [view.get("target") for view in document["bufferViews"]]
    assert targets == [34962, 34962, 34962, 34963, None]


def test_indices_have_16_bits_where_they_fit() -> None:
    def bits(vertices: int) -> int:
        points = np.random.default_rng(1).normal(size=(vertices, 3))
        mesh = trimesh.Trimesh(points, [[0, 1, vertices - 1]], process=False)
        document, _ = parts_of(export_mesh(mesh, "glb"))
        kind: int = document["accessors"][document["meshes"][0]["primitives"][0]["indices"]]["componentType"]
        return {5123: 16, 5125: 32}[kind]

    assert [bits(65_534), bits(65_535), bits(65_536)] == [16, 16, 32]


def test_colors_are_linear_light_in_glb_and_srgb_elsewhere(ball: tuple[trimesh.Trimesh, Appearance]) -> None:
    front = ball[0].vertices[:, 2] > 0.5
    glb = written(ball, "vertex", "glb")
    document, _ = parts_of(glb)
    attribute = document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]
    light = rows_of(glb, attribute)[front][:, :3] / 65535
    np.testing.assert_allclose(light, np.broadcast_to([0.5776, 0.0212, 0.0070], light.shape), atol=1e-4)
    lines = [line.split() for line in written(ball, "vertex", "obj").decode().splitlines() if line.startswith("v ")]
    np.testing.assert_allclose(np.array(lines)[front][:, 4:].astype(float) * 255, [FRONT] * front.sum(), atol=0.05)
    ply = trimesh.load(io.BytesIO(written(ball, "vertex", "ply")), file_type="ply", process=False)
    np.testing.assert_array_equal(ply.visual.vertex_colors[front][:, :3], [FRONT] * front.sum())
    clay = parts_of(written(ball, "plain", "glb"))[0]["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"]
    np.testing.assert_allclose(clay, [0.604, 0.578, 0.539, 1], atol=1e-3)


def test_a_texture_lies_on_the_side_that_it_shows(ball: tuple[trimesh.Trimesh, Appearance]) -> None:
    glb = written(ball, "texture", "glb")
    document, binary = parts_of(glb)
    primitive = document["meshes"][0]["primitives"][0]
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    image = Image.open(io.BytesIO(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))
    points = rows_of(glb, primitive["attributes"]["POSITION"])
    places = rows_of(glb, primitive["attributes"]["TEXCOORD_0"])
    pixels = np.asarray(image)[(places[:, 1] * image.height).astype(int), (places[:, 0] * image.width).astype(int)]
    deep = abs(points[:, 2]) > 0.005
    wanted = np.where(points[deep, 2:] > 0, FRONT, BACK)
    np.testing.assert_allclose(pixels[deep].astype(int), wanted, atol=4)


@pytest.mark.parametrize(
    ("format", "said"),
    [
        ("stl", b"ORFEAS 0.1.0 two_sides "),
        ("ply", b"comment ORFEAS 0.1.0 two_sides\n"),
        ("obj", b"# ORFEAS 0.1.0\no two_sides\n"),
    ],
)
def test_other_files_say_what_they_are_too(ball: tuple[trimesh.Trimesh, Appearance], format: str, said: bytes) -> None:
    assert said in written(ball, "plain", format)[:200]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("format", ["3mf", "usdz"])
def test_readers_of_the_formats_makers_find_the_whole_surface(
    ball: tuple[trimesh.Trimesh, Appearance], format: str, look: str
) -> None:
    again = reopen(written(ball, look, format), format)
    assert (len(again.faces), again.is_watertight) == (len(ball[0].faces), True)
    np.testing.assert_allclose(again.bounds, exported_bounds(ball[0], format, scale_mm=80), rtol=1e-5, atol=1e-6)


def test_3mf_has_a_color_at_every_corner(ball: tuple[trimesh.Trimesh, Appearance]) -> None:
    import lib3mf

    model = lib3mf.get_wrapper().CreateModel()
    model.QueryReader("3mf").ReadFromBuffer(written(ball, "vertex", "3mf"))
    groups = model.GetColorGroups()
    assert groups.MoveNext()
    group = groups.GetCurrentColorGroup()
    found = [group.GetColor(number) for number in group.GetAllPropertyIDs()]
    assert {(color.Red, color.Green, color.Blue) for color in found} == {FRONT, BACK}
    meshes = model.GetMeshObjects()
    assert meshes.MoveNext()
    mesh = meshes.GetCurrentMeshObject()
    assert mesh.GetName() == "two sides"
    assert {tuple(each.PropertyIDs) for each in mesh.GetAllTriangleProperties()} >= {(1, 1, 1), (2, 2, 2)}
