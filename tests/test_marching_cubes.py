"""Marching cubes: the generated table, and meshes that are closed whatever the field."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes
from torch import Tensor

from backend.errors import NoSurface
from backend.hunyuan3d.volume.marching_cubes import END_DISTANCE, extract_surface
from backend.hunyuan3d.volume.marching_cubes_table import CENTRE, marching_cubes_table
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from benchmarks.support.fields import Shape, Topology, gyroid_in_ball, sphere, topology, torus

GOLDEN = Path(__file__).parent / "golden"
BOUNDS = 1.01


def lattice(resolution: int) -> Tensor:
    """World points (R+1,R+1,R+1,3)."""
    line = torch.arange(resolution + 1).float() / resolution * 2 * BOUNDS - BOUNDS
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)


def mesh_of(values: Tensor) -> trimesh.Trimesh:
    vertices, faces = extract_surface(SparseVolume.from_dense(values))
    return trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)


def assert_closed(mesh: trimesh.Trimesh) -> None:
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert len(np.unique(mesh.faces)) == len(mesh.vertices)


def test_table_has_every_case_and_choice() -> None:
    table = marching_cubes_table()
    assert len(table.first_row) == 256
    assert len(table.rows) == sum(2 ** len(faces) for faces in table.ambiguous_faces)
    assert table.rows[0] == table.rows[table.first_row[255]] == ()


def test_table_rows_are_sheets_that_end_in_the_cells_faces() -> None:
    table = marching_cubes_table()
    face_edges = [{e for e, ends in enumerate(table.edges) if set(ends) <= set(corners)} for corners in table.faces]
    for row in table.rows:
        directed = Counter((t[i], t[(i + 1) % 3]) for t in row for i in range(3))
        assert all(count == 1 for count in directed.values())
        for a, b in directed:
            in_face = any(a in edges and b in edges for edges in face_edges)
            # An edge within the cell has two triangles, one in a face has one; the cell behind holds the other.
            assert ((b, a) in directed) == (not in_face)


def test_table_crosses_exactly_the_edges_that_change_sign() -> None:
    table = marching_cubes_table()
    ends = [*table.first_row[1:], len(table.rows)]
    for case, (first, last) in enumerate(zip(table.first_row, ends, strict=True)):
        crossed = {e for e, (a, b) in enumerate(table.edges) if (case >> a & 1) != (case >> b & 1)}
        for row in table.rows[first:last]:
            assert {edge for triangle in row for edge in triangle} - {CENTRE} == crossed


@pytest.mark.parametrize("seed", range(3))
def test_noise_gives_a_closed_mesh(seed: int) -> None:
    values = torch.randn(21, 21, 21, generator=torch.Generator().manual_seed(seed))
    assert_closed(mesh_of(values))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(np.int8, (5, 5, 5), elements=st.integers(-2, 2)))
def test_whole_numbers_and_zeros_give_a_closed_mesh_without_flat_triangles(values: np.ndarray) -> None:
    if not (values > 0).any():
        values = values.copy()
        values[2, 2, 2] = 1
    mesh = mesh_of(torch.tensor(values, dtype=torch.float32))
    assert_closed(mesh)
    assert mesh.area_faces.min() > 0


def test_zeros_on_lattice_points_keep_vertices_apart() -> None:
    points = lattice(16)
    mesh = mesh_of(0.505 - points.abs().amax(-1))
    assert_closed(mesh)
    assert mesh.area_faces.min() > 0
    assert np.abs(mesh.vertices).max() == pytest.approx(0.505, abs=2 * END_DISTANCE * 2 * BOUNDS / 16)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [(sphere(), Topology(1, 0)), (torus(), Topology(1, 1)), (sphere(0.8, (0.4, 0.4, 0.4)), Topology(1, 0))],
)
def test_known_shapes_have_their_topology(shape: Shape, expected: Topology) -> None:
    vertices, faces = extract_surface(SparseVolume.from_dense(shape(lattice(40))))
    assert topology(vertices, faces) == expected
    assert_closed(trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False))


def test_sphere_is_where_it_should_be_with_normals_outward() -> None:
    mesh = mesh_of(sphere(0.6, (0.1, -0.2, 0.3))(lattice(32)))
    arm = mesh.vertices - [0.1, -0.2, 0.3]
    assert np.abs(np.linalg.norm(arm, axis=1) - 0.6).max() < 1e-3
    assert (np.einsum("ij,ij->i", mesh.face_normals, mesh.triangles_center - [0.1, -0.2, 0.3]) > 0).all()
    assert mesh.vertices.dtype == np.float64
    vertices, faces = extract_surface(SparseVolume.from_dense(sphere()(lattice(16))))
    assert (vertices.dtype, faces.dtype) == (torch.float32, torch.int64)


def test_field_positive_everywhere_becomes_the_closed_box() -> None:
    mesh = mesh_of(torch.ones(13, 13, 13))
    assert_closed(mesh)
    assert mesh.volume == pytest.approx((2 * BOUNDS) ** 3, rel=1e-3)
    assert np.abs(mesh.vertices).max() <= BOUNDS + 2 * END_DISTANCE * 2 * BOUNDS / 12
    assert mesh.area_faces.min() > 0


def test_shape_cut_by_the_box_is_closed_at_the_wall() -> None:
    mesh = mesh_of(sphere(0.9, (0.7, 0.6, -0.5))(lattice(30)))
    assert_closed(mesh)
    assert topology(torch.tensor(mesh.vertices), torch.tensor(mesh.faces)) == Topology(1, 0)


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_field_without_inside_has_no_surface(value: float) -> None:
    with pytest.raises(NoSurface):
        extract_surface(SparseVolume.from_dense(torch.full((9, 9, 9), value)))


@pytest.mark.parametrize(("strong", "components"), [(2.0, 1), (0.5, 2)])
def test_ambiguous_face_is_decided_by_its_saddle(strong: float, components: int) -> None:
    values = torch.full((4, 4, 4), -1.0)
    values[1, 1, 1] = values[2, 2, 1] = strong
    vertices, faces = extract_surface(SparseVolume.from_dense(values))
    assert topology(vertices, faces).components == components


@pytest.mark.parametrize("name", ["tiny-2.0", "tiny-2.1", "tiny-2mini-turbo", "tiny-2mv"])
def test_vertices_are_those_of_the_golden_meshes(name: str) -> None:
    golden = np.load(GOLDEN / name / "golden.npz")
    for image, values in enumerate(golden["grid_logits"]):
        if f"vertices_{image}" not in golden:
            continue
        cells = len(values) - 1
        expected = (golden[f"vertices_{image}"] + BOUNDS) / (2 * BOUNDS) * (cells + 1)
        vertices, _ = extract_surface(SparseVolume.from_dense(torch.tensor(values)))
        found = (vertices.numpy() + BOUNDS) / (2 * BOUNDS) * cells
        within = found[((found >= -1e-5) & (found <= cells + 1e-5)).all(1)]
        assert len(within) == len(expected)
        distance = cKDTree(found).query(expected)[0]
        # Both add a vertex within a cell here and there, and place it differently.
        on_edge = (np.abs(expected - expected.round()) < 1e-4).sum(1) >= 2
        assert distance[on_edge].max() <= 2 * END_DISTANCE
        assert distance[~on_edge].max(initial=0) < 0.5


def test_vertices_are_those_of_scikit_image() -> None:
    values = gyroid_in_ball()(lattice(40))
    expected, _, _, _ = marching_cubes(values.numpy(), 0.0, method="lorensen")
    vertices, _ = extract_surface(SparseVolume.from_dense(values))
    found = (vertices.numpy() + BOUNDS) / (2 * BOUNDS) * 40
    assert cKDTree(found).query(expected)[0].max() <= 2 * END_DISTANCE
    on_edge = (np.abs(found - found.round()) < 1e-4).sum(1) >= 2
    assert on_edge.sum() == len(np.unique(expected, axis=0))


def test_from_dense_keeps_only_bricks_at_the_surface() -> None:
    values = sphere(0.3)(lattice(64))
    volume = SparseVolume.from_dense(values)
    assert len(volume.grid) < 0.2 * volume.grid.bricks_a_side**3
    dense = volume.to_dense()
    kept = ~dense.isnan()
    assert torch.equal(dense[kept], values[kept])
    near = values.abs() < 2.02 / 64
    assert bool(kept[near].all())


def test_bounds_scale_the_mesh() -> None:
    values = sphere(0.5)(lattice(16))
    vertices, _ = extract_surface(SparseVolume.from_dense(values))
    twice, _ = extract_surface(SparseVolume.from_dense(values, bounds=2 * BOUNDS))
    torch.testing.assert_close(twice, vertices * 2)
