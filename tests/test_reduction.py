"""A reduced mesh is still the same thing, at more faces than asked for if need be; and one part can be kept."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from skimage.measure import marching_cubes
from trimesh.creation import box, icosphere, torus

from backend.errors import DecimationFailed, InvalidMesh, InvalidTargetFaces
from backend.hunyuan3d.mesh import reduction
from backend.hunyuan3d.mesh.ops import Decimation, clean_mesh, count_parts, keep_largest, mesh_facts, try_to_decimate
from backend.hunyuan3d.mesh.reduction import reduce_mesh


@pytest.fixture(scope="module")
def eight() -> trimesh.Trimesh:
    """Return a digit 8 as thick as a pencil: two holes, and little to spare at a hundred faces."""
    x, y, z = np.mgrid[-0.75:0.75:64j, -1.1:1.1:96j, -0.3:0.3:32j]
    rings = [np.hypot(np.hypot(x, y - up) - 0.45, z) for up in (-0.47, 0.47)]
    vertices, faces, _, _ = marching_cubes(0.12 - np.minimum(*rings), 0.0)
    return clean_mesh(trimesh.Trimesh(vertices * [1.5 / 63, 2.2 / 95, 0.6 / 31], faces[:, ::-1], process=False))


@pytest.mark.parametrize("target", [100, 110, 120, 150, 400])
def test_a_digit_8_keeps_its_holes_and_its_volume(eight: trimesh.Trimesh, target: int) -> None:
    result = reduce_mesh(eight, target)
    before, after = mesh_facts(eight), mesh_facts(result.mesh)
    assert (before.genus, after.genus, after.components, after.watertight) == (2, 2, 1, True)
    assert after.volume == pytest.approx(before.volume, rel=0.1)
    assert result.target_faces == target
    assert result.faces_after == len(result.mesh.faces) <= 8 * target


def broken(mesh: trimesh.Trimesh, faces: int, *_: object) -> Decimation:
    shards = [box(extents=(0.1, 0.1, 0.1)).apply_translation((k, 0, 0)) for k in range(4)]
    return Decimation(trimesh.util.concatenate(shards), faces, len(mesh.faces), 48, watertight=True, changed=True)


def test_shards_are_passed_over_for_the_next_larger_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ball, asked = icosphere(4), []

    def at_first_shards(mesh: trimesh.Trimesh, faces: int, *_: object) -> Decimation | None:
        asked.append(faces)
        return [broken(mesh, faces), None, try_to_decimate(mesh, faces)][min(len(asked) - 1, 2)]

    monkeypatch.setattr(reduction, "try_to_decimate", at_first_shards)
    result = reduce_mesh(ball, 200)
    assert asked == [200, 230, 260]
    assert 230 < result.faces_after <= 260
    assert (result.target_faces, result.faces_before, result.changed) == (200, len(ball.faces), True)


def test_what_never_holds_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "try_to_decimate", broken)
    with pytest.raises(DecimationFailed, match="to 100 faces, nor to 800") as failed:
        reduce_mesh(icosphere(4), 100)
    assert failed.value.details == {"asked": 100, "faces": 5120}


def test_what_never_holds_and_is_not_much_larger_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "try_to_decimate", broken)
    ball = icosphere(4)
    result = reduce_mesh(ball, 160)
    assert result.mesh is ball
    assert (result.target_faces, result.faces_after, result.watertight, result.changed) == (160, 5120, True, False)


def test_what_is_little_larger_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = icosphere(3)

    def shards_or_nothing_done(mesh: trimesh.Trimesh, faces: int, *_: object) -> Decimation | None:
        return broken(mesh, faces) if faces < len(mesh.faces) else try_to_decimate(mesh, faces)

    monkeypatch.setattr(reduction, "try_to_decimate", shards_or_nothing_done)
    result = reduce_mesh(ball, 1000)
    assert result.mesh is ball
    assert (result.changed, result.faces_after) == (False, 1280)


def test_further_tries_of_a_large_mesh_begin_with_fewer_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    ball, asked = icosphere(5), []

    def at_first_shards(mesh: trimesh.Trimesh, faces: int, *_: object) -> Decimation | None:
        asked.append((len(mesh.faces), faces))
        return broken(mesh, faces) if len(asked) == 1 else try_to_decimate(mesh, faces)

    monkeypatch.setattr(reduction, "try_to_decimate", at_first_shards)
    monkeypatch.setattr(reduction, "_LARGE", 20_000)
    result = reduce_mesh(ball, 100)
    assert asked[:2] == [(20480, 100), (20480, 1000)]
    assert [faces for _, faces in asked[2:]] == [115, 130][: len(asked) - 2]
    assert all(before <= 1000 for before, _ in asked[2:])
    assert result.faces_before == 20480
    assert mesh_facts(result.mesh).volume == pytest.approx(ball.volume, rel=0.1)


@pytest.mark.parametrize(("change", "holds"), [("none", True), ("shrunk", False), ("moved", False), ("filled", False)])
def test_volume_bounds_and_holes_count(change: str, holds: bool) -> None:
    ring = torus(1.0, 0.3, major_sections=96, minor_sections=48)
    other = {
        "none": ring,
        "shrunk": ring.copy().apply_scale(0.98).apply_scale([1, 1, 0.8]),
        "moved": ring.copy().apply_translation((0.1, 0, 0)),
        "filled": trimesh.creation.cylinder(1.3, ring.volume / (np.pi * 1.3**2), sections=96),
    }[change]
    assert reduction._Reference.of(ring).holds(other) is holds


@pytest.mark.parametrize("target", [3, 0, 10.5, True])
def test_senseless_targets_are_refused(target: object) -> None:
    with pytest.raises(InvalidTargetFaces):
        reduce_mesh(icosphere(2), target)  # type: ignore[arg-type]


def in_pieces() -> trimesh.Trimesh:
    """Return a small ball of many faces, a large box with a hollow in it, and a flat box of more area than volume."""
    hollow = icosphere(2, 0.5)
    hollow.invert()
    flat = box(extents=(6, 6, 0.02)).apply_translation((0, 0, 5))
    small = icosphere(4, 0.4).apply_translation((5, 0, 0))
    return trimesh.util.concatenate([small, box(extents=(2, 2, 2)), hollow, flat])


def test_the_part_of_the_largest_volume_is_kept_with_its_hollow() -> None:
    mesh = in_pieces()
    assert count_parts(mesh) == 3
    kept = keep_largest(mesh)
    assert count_parts(kept) == 1
    assert mesh_facts(kept).volume == pytest.approx(8 - icosphere(2, 0.5).volume)
    np.testing.assert_allclose(kept.bounds, [[-1, -1, -1], [1, 1, 1]])


def test_a_mesh_of_one_part_is_returned_as_it_is() -> None:
    ball = icosphere(2)
    assert keep_largest(ball) is ball
    assert count_parts(ball) == 1


def test_an_open_mesh_keeps_its_largest_sheet() -> None:
    sheets = trimesh.util.concatenate([box(extents=(1, 1, 1)), box(extents=(2, 2, 2)).apply_translation((4, 0, 0))])
    sheets = trimesh.Trimesh(sheets.vertices, np.delete(sheets.faces, [0, 12], axis=0), process=False)
    assert keep_largest(sheets).bounds[0, 0] == 3
    with pytest.raises(InvalidMesh):
        keep_largest(trimesh.Trimesh())
