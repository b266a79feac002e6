"""Cleaning, decimating, scaling and measuring meshes: what must hold of the result, on shapes whose facts are known."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import fast_simplification
import numpy as np
import pytest
import trimesh
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes

from backend.errors import DecimationFailed, InvalidMesh, InvalidParameter, InvalidScale, InvalidTargetFaces
from backend.hunyuan3d.mesh import topology as mesh_topology
from backend.hunyuan3d.mesh.ops import (
    CleanOptions,
    clean_mesh,
    decimate,
    is_watertight,
    mesh_facts,
    scale_to_mm,
    smooth_normals,
)


def ball(radius: float = 1.0, subdivisions: int = 3, at: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return mesh.apply_translation(at)


def torus() -> trimesh.Trimesh:
    return trimesh.creation.torus(major_radius=1.0, minor_radius=0.3, major_sections=96, minor_sections=48)


def sponge(seed: int, size: int = 40, blur: float = 2.0) -> trimesh.Trimesh:
    """Return a closed surface full of handles and thin necks: the hard case for contraction."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((size,) * 3), blur)
    field = field / field.std() - 0.3
    for axis in range(3):
        np.moveaxis(field, axis, 0)[[0, -1]] = -1
    vertices, faces, _, _ = marching_cubes(field, 0.0)
    return trimesh.Trimesh(vertices / size, faces[:, ::-1], process=False)


def plain(vertices: object, faces: object) -> trimesh.Trimesh:
    return trimesh.Trimesh(vertices=vertices, faces=faces, process=False)


def faces_of(mesh: trimesh.Trimesh) -> set[tuple[int, ...]]:
    return {tuple(sorted(face)) for face in mesh.faces.tolist()}


def test_facts_of_a_torus_beside_a_ball() -> None:
    mesh = trimesh.util.concatenate([torus(), ball(0.5, at=(3, 0, 0))])
    facts = mesh_facts(mesh)
    assert (facts.vertices, facts.faces) == (len(mesh.vertices), len(mesh.faces))
    assert facts.watertight
    assert facts.components == 2
    assert facts.euler == 2
    assert facts.genus == 1
    assert facts.volume == pytest.approx(mesh.volume, rel=1e-9)
    assert facts.area == pytest.approx(mesh.area, rel=1e-9)
    np.testing.assert_allclose(facts.bounds, mesh.bounds)


def test_facts_of_an_open_mesh_have_no_volume_and_no_genus() -> None:
    mesh = ball()
    facts = mesh_facts(plain(mesh.vertices, mesh.faces[1:]))
    assert not facts.watertight
    assert facts.volume is None
    assert facts.genus is None


def test_watertight_agrees_with_trimesh_and_also_sees_a_flipped_face() -> None:
    mesh = ball()
    assert is_watertight(mesh)
    assert mesh.is_watertight
    flipped = mesh.faces.copy()
    flipped[0] = flipped[0, ::-1]
    assert not is_watertight(plain(mesh.vertices, flipped))
    assert not is_watertight(plain(mesh.vertices, mesh.faces[1:]))
    assert not is_watertight(plain(np.zeros((0, 3)), np.zeros((0, 3), np.int64)))


@pytest.mark.parametrize("measure", ["area", "faces", "volume"])
def test_floaters_go_and_several_big_parts_stay(measure: str) -> None:
    small = ball(0.02, 0, at=(2, 2, 0))
    mesh = trimesh.util.concatenate([small, ball(), ball(0.8, at=(4, 0, 0)), small.copy().apply_translation((1, 1, 0))])
    cleaned = clean_mesh(mesh, CleanOptions(min_share=0.1, measure=measure))  # type: ignore[arg-type]
    facts = mesh_facts(cleaned)
    assert facts.components == 2
    assert facts.watertight
    assert facts.faces == 2 * len(ball().faces)
    assert len(cleaned.vertices) == facts.vertices


def hollow(radius: float, at: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    mesh = ball(radius, at=at)
    mesh.invert()
    return mesh


def test_a_sealed_hollow_is_filled_with_what_lies_in_it() -> None:
    kernel = trimesh.util.concatenate([ball(0.6), hollow(0.5), ball(0.3)])
    mesh = trimesh.util.concatenate([hollow(0.8), kernel, ball(), ball(0.9, at=(3, 0, 0)), hollow(0.4, at=(3, 0, 0))])
    facts = mesh_facts(clean_mesh(mesh))
    assert (facts.components, facts.watertight) == (2, True)
    assert facts.volume == pytest.approx(ball().volume + ball(0.9).volume)


def test_what_lies_between_a_hollows_walls_but_outside_of_it_stays() -> None:
    """A ball in the hole of a ring whose tube is hollow is within the hollow's bounds."""
    tube = trimesh.creation.torus(major_radius=1.0, minor_radius=0.2, major_sections=96, minor_sections=48)
    tube.invert()
    facts = mesh_facts(clean_mesh(trimesh.util.concatenate([torus(), tube, ball(0.5)])))
    assert (facts.components, facts.genus) == (2, 1)
    assert facts.volume == pytest.approx(torus().volume + ball(0.5).volume)


def test_a_cup_is_no_sealed_hollow() -> None:
    cup = trimesh.creation.revolve([[0, 0], [1, 0], [1, 2], [0.9, 2], [0.9, 0.1], [0, 0.1]])
    assert np.array_equal(clean_mesh(cup).faces, cup.faces)


@pytest.mark.parametrize("how", ["inside out", "open"])
def test_no_hollow_is_seen_where_inside_and_outside_are_not_known(how: str) -> None:
    mesh = trimesh.util.concatenate([ball(), hollow(0.5)])
    if how == "inside out":
        mesh.invert()
    else:
        mesh = plain(mesh.vertices, mesh.faces[1:])
    assert mesh_facts(clean_mesh(mesh)).components == 2


def test_measure_decides_what_counts_as_small() -> None:
    dense_speck = ball(0.01, 4, at=(2, 2, 0))
    mesh = trimesh.util.concatenate([ball(1.0, 2), dense_speck])
    by_area = clean_mesh(mesh, CleanOptions(measure="area"))
    by_faces = clean_mesh(mesh, CleanOptions(measure="faces"))
    assert len(by_area.faces) == len(ball(1.0, 2).faces)
    assert mesh_facts(by_faces).components == 2


def test_largest_piece_stays_whatever_the_share() -> None:
    mesh = trimesh.util.concatenate([ball(0.5, 1), ball(0.4, 1, at=(3, 0, 0))])
    cleaned = clean_mesh(mesh, CleanOptions(min_share=1.0))
    assert len(cleaned.faces) == len(ball(0.5, 1).faces)
    assert np.abs(cleaned.vertices).max() == pytest.approx(0.5, abs=0.01)


def test_nothing_is_a_floater_at_share_zero() -> None:
    mesh = trimesh.util.concatenate([ball(), ball(0.01, 0, at=(3, 0, 0))])
    assert mesh_facts(clean_mesh(mesh, CleanOptions(min_share=0.0))).components == 2


def test_duplicate_degenerate_and_unused_things_go() -> None:
    mesh = ball(1.0, 1)
    faces = np.concatenate([mesh.faces, mesh.faces[:3], mesh.faces[5:6, [1, 2, 0]], [[4, 4, 7], [2, 2, 2]]])
    cleaned = clean_mesh(plain(np.concatenate([mesh.vertices, [[9.0, 9, 9]]]), faces))
    assert faces_of(cleaned) == faces_of(mesh)
    assert len(cleaned.faces) == len(mesh.faces)
    np.testing.assert_array_equal(cleaned.vertices, mesh.vertices)
    assert is_watertight(cleaned)


def test_folded_pair_of_faces_is_taken_away_whole() -> None:
    mesh = ball(1.0, 1)
    far = len(mesh.vertices)
    fold = [[0, 1, far], [1, 0, far]]
    cleaned = clean_mesh(plain(np.concatenate([mesh.vertices, [[2.0, 2, 2]]]), np.concatenate([mesh.faces, fold])))
    assert faces_of(cleaned) == faces_of(mesh)
    assert is_watertight(cleaned)


def test_face_without_area_is_drawn_together_not_cut_out() -> None:
    mesh = ball(1.0, 2)
    vertices, faces = mesh.vertices.copy(), mesh.faces.copy()
    a, b, c = faces[10]
    vertices[b] = vertices[a]
    vertices[c] = (vertices[c] + vertices[a]) / 2
    cleaned = clean_mesh(plain(vertices, faces))
    assert is_watertight(cleaned)
    assert len(cleaned.faces) == len(faces) - 2
    assert cleaned.area_faces.min() > 1e-9


def test_collinear_face_loses_its_shortest_edge_and_the_mesh_stays_closed() -> None:
    mesh = ball(1.0, 2)
    vertices = mesh.vertices.copy()
    a, b, c = mesh.faces[10]
    vertices[c] = 0.3 * vertices[a] + 0.7 * vertices[b]
    cleaned = clean_mesh(plain(vertices, mesh.faces))
    assert is_watertight(cleaned)
    assert cleaned.area_faces.min() > 1e-9
    assert len(cleaned.faces) < len(mesh.faces)


@pytest.mark.parametrize("seed", range(4))
def test_cleaning_keeps_a_sponge_watertight(seed: int) -> None:
    mesh = sponge(seed)
    assert is_watertight(mesh)
    cleaned = clean_mesh(mesh)
    assert is_watertight(cleaned)
    assert cleaned.is_watertight
    assert cleaned.volume == pytest.approx(mesh.volume, rel=0.02)


def test_cleaning_leaves_its_input_alone() -> None:
    mesh = trimesh.util.concatenate([ball(), ball(0.01, 0, at=(3, 0, 0))])
    before = mesh.vertices.copy(), mesh.faces.copy()
    clean_mesh(mesh)
    np.testing.assert_array_equal(mesh.vertices, before[0])
    np.testing.assert_array_equal(mesh.faces, before[1])


@pytest.mark.parametrize("target", [100, 500, 2000, 8000])
@pytest.mark.parametrize("make", [lambda: ball(1.0, 5), torus], ids=["ball", "torus"])
def test_decimation_reaches_its_target_and_keeps_the_shape(make: object, target: int) -> None:
    mesh = make()  # type: ignore[operator]
    result = decimate(mesh, target)
    assert result.changed
    assert result.faces_before == len(mesh.faces)
    assert result.faces_after == len(result.mesh.faces)
    assert 0.9 * target <= result.faces_after <= target
    assert result.watertight
    assert result.mesh.is_watertight
    before, after = mesh_facts(mesh), mesh_facts(result.mesh)
    assert (after.components, after.genus) == (before.components, before.genus)
    assert after.volume == pytest.approx(before.volume, rel=0.15 if target == 100 else 0.03)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("target", [5000, 600])
def test_decimated_sponge_stays_watertight_where_contraction_alone_would_not(seed: int, target: int) -> None:
    result = decimate(clean_mesh(sponge(seed)), target)
    assert result.watertight
    assert is_watertight(result.mesh)
    assert result.faces_after <= target


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns as often as they can, so that what may be mixed up is."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_meshes_decimated_on_several_threads_do_not_mix() -> None:
    meshes = [clean_mesh(sponge(seed, 24)) for seed in range(8)]
    alone = [decimate(mesh, 1000).mesh for mesh in meshes]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda mesh: decimate(mesh, 1000).mesh, meshes))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.faces, other.faces)
        np.testing.assert_array_equal(one.vertices, other.vertices)


def test_contraction_alone_breaks_the_sponge() -> None:
    mesh = clean_mesh(sponge(1))
    _, faces = fast_simplification.simplify(mesh.vertices, mesh.faces, target_count=600)
    assert not mesh_topology.is_closed(faces.astype(np.int64))


def test_decimated_sponge_survives_float32_positions_without_indices() -> None:
    mesh = decimate(clean_mesh(sponge(3)), 1000).mesh
    soup = mesh.vertices[mesh.faces].astype(np.float32).reshape(-1, 3)
    welded = trimesh.Trimesh(soup, np.arange(len(soup)).reshape(-1, 3), process=True)
    assert welded.is_watertight
    assert welded.is_winding_consistent
    assert len(welded.faces) == len(mesh.faces)


def test_mesh_with_fewer_faces_is_returned_unchanged() -> None:
    mesh = ball(1.0, 2)
    result = decimate(mesh, len(mesh.faces))
    assert result.mesh is mesh
    assert not result.changed
    assert result.faces_before == result.faces_after == len(mesh.faces)
    assert result.watertight


def test_open_mesh_is_decimated_and_reported_open() -> None:
    mesh = ball(1.0, 4)
    half = plain(mesh.vertices, mesh.faces[mesh.triangles_center[:, 2] > 0])
    result = decimate(half, 400)
    assert result.faces_after <= 400
    assert not result.watertight


def test_unreachable_target_is_a_named_error() -> None:
    boxes = [trimesh.creation.box().apply_translation((3 * k, 0, 0)) for k in range(300)]
    with pytest.raises(DecimationFailed, match="pieces need more"):
        decimate(trimesh.util.concatenate(boxes), 100)


@pytest.mark.parametrize("target", [3, 0, -5, 10.5, True, float("nan"), float("inf"), "many"])
def test_senseless_target_is_refused(target: object) -> None:
    with pytest.raises(InvalidTargetFaces):
        decimate(ball(), target)  # type: ignore[arg-type]


def broken_meshes() -> list[trimesh.Trimesh]:
    mesh = ball(1.0, 1)
    blown = mesh.vertices.copy()
    blown[3, 1] = np.nan
    return [
        plain(np.zeros((0, 3)), np.zeros((0, 3), np.int64)),
        plain(mesh.vertices, np.zeros((0, 3), np.int64)),
        plain(blown, mesh.faces),
        plain(np.where(np.isnan(blown), np.inf, blown), mesh.faces),
        plain(mesh.vertices[:-1], mesh.faces),
    ]


@pytest.mark.parametrize("which", range(5))
def test_unusable_mesh_is_a_named_error_everywhere(which: int) -> None:
    mesh = broken_meshes()[which]
    for work in (clean_mesh, mesh_facts, lambda m: decimate(m, 100), lambda m: scale_to_mm(m, 10.0)):
        with pytest.raises(InvalidMesh):
            work(mesh)


def test_mesh_of_degenerate_faces_only_is_a_named_error() -> None:
    with pytest.raises(InvalidMesh, match="degenerate"):
        clean_mesh(plain(np.eye(3), [[0, 0, 1], [1, 1, 2]]))


def test_scaling_sets_the_longest_side() -> None:
    mesh = trimesh.creation.box(extents=(1, 4, 2))
    scaled = scale_to_mm(mesh, 100.0)
    np.testing.assert_allclose(scaled.extents, [25, 100, 50])
    np.testing.assert_allclose(mesh.extents, [1, 4, 2])


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_senseless_scale_is_refused(size: float) -> None:
    with pytest.raises(InvalidScale):
        scale_to_mm(ball(), size)


@pytest.mark.parametrize("wrong", [{"min_share": -0.1}, {"min_share": 1.5}, {"measure": "weight"}])
def test_senseless_clean_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter):
        CleanOptions(**wrong)  # type: ignore[arg-type]


def test_smooth_normals_of_a_ball_point_outward() -> None:
    mesh = ball(2.0, 4)
    normals = smooth_normals(mesh.vertices, mesh.faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-9)
    assert (normals * mesh.vertices / 2.0).sum(axis=1).min() > 0.999


def test_smooth_normals_of_a_box_do_not_depend_on_how_faces_are_cut() -> None:
    mesh = trimesh.creation.box()
    normals = smooth_normals(mesh.vertices, mesh.faces)
    np.testing.assert_allclose(normals, np.sign(mesh.vertices) / np.sqrt(3), atol=1e-12)


def test_two_cubes_that_share_an_edge_are_taken_apart() -> None:
    first = trimesh.creation.box()
    second = trimesh.creation.box().apply_translation((1, 1, 0))
    both = trimesh.util.concatenate([first, second])
    both.merge_vertices()
    assert not is_watertight(both)
    vertices, faces = mesh_topology.separate_sheets(np.asarray(both.vertices), np.asarray(both.faces))
    facts = mesh_facts(plain(vertices, faces))
    assert facts.watertight
    assert facts.components == 2
    assert facts.volume == pytest.approx(2.0, rel=0.05)
    assert len(np.unique(vertices.astype(np.float32), axis=0)) == len(vertices)
