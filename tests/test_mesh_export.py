"""Meshes as files: what a reader gets back, and that a failed write leaves nothing."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes

from backend.errors import ExportError, InvalidFormat, InvalidMesh, InvalidScale
from backend.hunyuan3d.mesh.export import (
    check_format,
    export_mesh,
    exported_bounds,
    exported_unit,
    write_atomically,
    write_mesh,
)
from backend.hunyuan3d.mesh.ops import clean_mesh, decimate
from backend.limits import FORMATS
from tests.support.mesh_files import reopen


@pytest.fixture(scope="module")
def blob() -> trimesh.Trimesh:
    """Return a closed surface with handles, cleaned and decimated as the pipeline does; taller than wide."""
    field = gaussian_filter(np.random.default_rng(5).standard_normal((24, 40, 28)), 2.5)
    field = field / field.std() - 0.2
    for axis in range(3):
        np.moveaxis(field, axis, 0)[[0, -1]] = -1
    vertices, faces, _, _ = marching_cubes(field, 0.0)
    return decimate(clean_mesh(trimesh.Trimesh(vertices / 20 - 1, faces[:, ::-1], process=False)), 4000).mesh


@pytest.mark.parametrize("scale", [None, 73.0])
@pytest.mark.parametrize("format", FORMATS)
def test_reopened_file_has_the_same_faces_and_is_watertight(
    blob: trimesh.Trimesh, format: str, scale: float | None
) -> None:
    again = reopen(export_mesh(blob, format, scale_mm=scale), format)
    assert len(again.faces) == len(blob.faces)
    assert again.is_watertight
    assert again.is_winding_consistent
    assert again.volume > 0


@pytest.mark.parametrize("format", ["glb", "obj", "ply", "usdz"])
def test_y_up_formats_keep_the_frame_and_without_a_scale_the_unit(blob: trimesh.Trimesh, format: str) -> None:
    again = reopen(export_mesh(blob, format, scale_mm=None), format)
    np.testing.assert_allclose(again.bounds, blob.bounds, atol=1e-6)
    assert exported_unit(format, None) == "model"


@pytest.mark.parametrize("format", ["stl", "3mf"])
def test_printers_formats_are_z_up_and_100_mm_long_as_a_rule(blob: trimesh.Trimesh, format: str) -> None:
    again = reopen(export_mesh(blob, format), format)
    assert again.extents.max() == pytest.approx(100.0, rel=1e-5)
    factor = 100.0 / blob.extents.max()
    upright = blob.vertices[:, [0, 2, 1]] * [factor, -factor, factor]
    np.testing.assert_allclose(again.bounds, [upright.min(axis=0), upright.max(axis=0)], atol=1e-4)
    assert again.volume == pytest.approx(blob.volume * factor**3, rel=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_scale_sets_the_longest_side_in_every_formats_unit(blob: trimesh.Trimesh, format: str) -> None:
    longest, unit = (0.08, "m") if format in ("glb", "usdz") else (80.0, "mm")
    assert reopen(export_mesh(blob, format, scale_mm=80.0), format).extents.max() == pytest.approx(longest, rel=1e-5)
    assert exported_unit(format, 80.0) == unit


def normals_in(data: bytes, format: str, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the normals as they stand in the file, without a reader that might compute its own."""
    if format == "obj":
        lines = [line.split()[1:] for line in data.decode().splitlines() if line.startswith("vn ")]
        return np.array(lines, dtype=np.float64)
    if format == "ply":
        body = data[data.index(b"end_header\n") + 11 :]
        return np.frombuffer(body, "<f4", count * 6).reshape(-1, 6)[:, 3:].astype(np.float64)
    length = int.from_bytes(data[12:16], "little")
    tree = json.loads(data[20 : 20 + length])
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]]
    start = 28 + length + tree["bufferViews"][accessor["bufferView"]]["byteOffset"]
    return np.frombuffer(data[start:], "<f4", accessor["count"] * 3).reshape(-1, 3).astype(np.float64)


@pytest.mark.parametrize("format", ["glb", "obj", "ply"])
def test_files_carry_smooth_normals(format: str) -> None:
    ball = trimesh.creation.icosphere(subdivisions=3)
    normals = normals_in(export_mesh(ball, format), format, len(ball.vertices))
    np.testing.assert_allclose(normals, ball.vertices, atol=6e-3)


def test_stl_and_ply_are_binary(blob: trimesh.Trimesh) -> None:
    stl = export_mesh(blob, "stl")
    assert len(stl) == 84 + 50 * len(blob.faces)
    assert b"format binary_little_endian" in export_mesh(blob, "ply")[:100]


def test_glb_material_is_not_bare_metal(blob: trimesh.Trimesh) -> None:
    data = export_mesh(blob, "glb")
    assert data[:4] == b"glTF"
    scene = trimesh.load(io.BytesIO(data), file_type="glb")
    (geometry,) = scene.geometry.values()
    assert geometry.visual.material.metallicFactor == 0.0


def test_positions_that_fall_together_in_float32_are_kept_apart() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3)
    vertices = ball.vertices.copy()
    vertices[ball.faces[7, 0]] = vertices[ball.faces[7, 1]] + 1e-12
    mesh = trimesh.Trimesh(vertices, ball.faces, process=False)
    again = reopen(export_mesh(mesh, "stl"), "stl")
    assert again.is_watertight
    assert len(again.vertices) == len(vertices)


@pytest.mark.parametrize("scale", [None, 73.0])
@pytest.mark.parametrize("format", FORMATS)
def test_bounds_and_unit_are_as_the_file_has_them(blob: trimesh.Trimesh, format: str, scale: float | None) -> None:
    bounds = np.array(exported_bounds(blob, format, scale_mm=scale))
    np.testing.assert_allclose(
        bounds, reopen(export_mesh(blob, format, scale_mm=scale), format).bounds, rtol=1e-5, atol=1e-5
    )
    lengths = {"model": np.ptp(blob.bounds, axis=0).max(), "mm": scale, "m": 0.001 * (scale or 0)}
    longest = lengths[exported_unit(format, scale)]
    assert np.ptp(bounds, axis=0).max() == pytest.approx(longest)


@pytest.mark.parametrize("name", [".GLB", "Stl ", "obj", "PLY"])
def test_format_names_are_forgiving_about_case_and_dot(name: str) -> None:
    assert check_format(name) in FORMATS


@pytest.mark.parametrize("name", ["", "fbx", "glb.exe", "../glb"])
def test_unknown_format_is_refused(blob: trimesh.Trimesh, name: str) -> None:
    with pytest.raises(InvalidFormat):
        export_mesh(blob, name)


@pytest.mark.parametrize("scale", [0.0, -3.0, float("nan")])
@pytest.mark.parametrize("format", ["glb", "stl"])
def test_senseless_scale_is_refused(blob: trimesh.Trimesh, format: str, scale: float) -> None:
    with pytest.raises(InvalidScale):
        export_mesh(blob, format, scale_mm=scale)


@pytest.mark.parametrize("format", FORMATS)
def test_empty_mesh_is_refused(format: str) -> None:
    with pytest.raises(InvalidMesh):
        export_mesh(trimesh.Trimesh(), format)


def test_written_file_replaces_the_old_one_and_leaves_no_other(blob: trimesh.Trimesh, tmp_path: Path) -> None:
    target = tmp_path / "shape.ply"
    target.write_bytes(b"old")
    assert write_mesh(blob, target) == target
    assert target.read_bytes() == export_mesh(blob, "ply", name="shape")
    assert [item.name for item in tmp_path.iterdir()] == ["shape.ply"]


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "shape.glb"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        write_atomically(b"new", target)
    assert target.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["shape.glb"]


def test_full_device_is_a_named_error(blob: trimesh.Trimesh) -> None:
    with pytest.raises(ExportError, match="could not be written"):
        write_mesh(blob, Path("/dev/full/shape.glb"))


def test_missing_folder_is_a_named_error(blob: trimesh.Trimesh, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No such file"):
        write_mesh(blob, tmp_path / "absent" / "shape.glb")


def test_refused_mesh_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidMesh):
        write_mesh(trimesh.Trimesh(), tmp_path / "shape.glb")
    assert [item.name for item in tmp_path.iterdir()] == []
