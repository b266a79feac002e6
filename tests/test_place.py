"""Meshes stand: levelled by their under side or axis, pressed flat where a foot is nearly so, and put on the ground."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh
from trimesh.creation import box, capsule, cylinder, icosphere

from backend.errors import InvalidMesh
from backend.hunyuan3d.mesh import place
from backend.hunyuan3d.mesh.ops import is_watertight, mesh_facts
from backend.hunyuan3d.mesh.place import Placement, place_mesh
from backend.limits import Place


def turned(mesh: trimesh.Trimesh, degrees: float) -> trimesh.Trimesh:
    """Turn a mesh as a camera that looks down by so many degrees sees it: its top comes towards the camera."""
    return mesh.copy().apply_transform(trimesh.transformations.rotation_matrix(math.radians(degrees), (1, 0, 0)))


def up(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Turn a mesh that trimesh has made along Z to stand along Y."""
    return mesh.apply_transform(trimesh.transformations.rotation_matrix(-math.pi / 2, (1, 0, 0)))


def stool(short: float = 0.0) -> trimesh.Trimesh:
    """Return a seat on four legs, of which one may be shorter."""
    legs = []
    for x, z in ((-0.4, -0.4), (-0.4, 0.4), (0.4, -0.4), (0.4, 0.4)):
        lift = short if (x, z) == (0.4, 0.4) else 0.0
        leg = box(extents=(0.1, 1.2 - lift, 0.1)).apply_translation((x, (lift - 1.2) / 2, z))
        legs.append(leg.subdivide().subdivide())
    return trimesh.util.concatenate([box(extents=(1, 0.12, 1)).subdivide(), *legs])


@pytest.mark.parametrize("degrees", [0.0, 8.0, 17.5, 30.0, -12.0])
@pytest.mark.parametrize("make", [lambda: up(cylinder(0.4, 1.0, sections=64)), stool], ids=["tin", "stool"])
def test_a_flat_under_side_is_levelled(make: object, degrees: float) -> None:
    mesh, done = place_mesh(turned(make(), degrees), "ground", "auto", view_aligned=True)  # type: ignore[operator]
    assert done.turned_degrees == pytest.approx(-degrees, abs=0.5)
    assert (done.leveled_by, done.leans, mesh.bounds[0, 1]) == ("under side", False, 0.0)


def test_what_stands_wide_is_levelled_though_two_of_its_feet_are_short() -> None:
    """The lowest hundredth holds a line from one foot to the one across, and no more."""
    legs = [
        box(extents=(0.12, 0.5, 0.12)).subdivide().subdivide().apply_translation((x, -0.3 + 0.03 * (x * z > 0), z))
        for x in (-0.9, 0.9)
        for z in (-0.5, 0.5)
    ]
    body = box(extents=(2, 0.3, 1.2)).subdivide().subdivide()
    mesh, done = place_mesh(turned(trimesh.util.concatenate([body, *legs]), 15.0), "ground", "auto", view_aligned=True)
    assert done.leveled_by == "under side"
    assert done.turned_degrees == pytest.approx(-15.0, abs=2.5)
    standing = mesh.vertices[mesh.vertices[:, 1] < 0.002]
    assert {(x > 0, z > 0) for x, _, z in standing} == {(False, False), (False, True), (True, False), (True, True)}


@pytest.mark.parametrize(
    ("mesh", "level"), [(stool(), "under side"), (up(capsule(1.5, 0.3)), "axis")], ids=["under side", "axis"]
)
def test_feet_that_cannot_be_pressed_level_are_tried_a_little_beside(
    mesh: trimesh.Trimesh, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, upright = place_mesh(mesh, "ground", "auto", view_aligned=True)
    asked = iter([None, 0.0])
    monkeypatch.setattr(place, "_enough_pressing", lambda *_: next(asked, None))
    _, done = place_mesh(mesh, "ground", "auto", view_aligned=True)
    assert done.leveled_by == upright.leveled_by == level
    assert abs(done.turned_degrees - upright.turned_degrees) == 1.0


@pytest.mark.parametrize("degrees", [5.0, 20.0])
def test_a_long_thing_without_a_flat_foot_is_set_upright_by_its_axis(degrees: float) -> None:
    pill = turned(up(capsule(1.5, 0.3)), degrees)
    _, done = place_mesh(pill, "ground", "auto", view_aligned=True)
    assert done.leveled_by == "axis"
    assert done.turned_degrees == pytest.approx(-degrees, abs=1.0)


def test_what_has_neither_leans() -> None:
    _, done = place_mesh(icosphere(4), "ground", "auto", view_aligned=True)
    assert done == Placement("ground", leans=True)


def test_other_checkpoints_are_not_turned() -> None:
    _, done = place_mesh(turned(stool(), 15), "ground", "auto", view_aligned=False)
    assert (done.turned_degrees, done.leveled_by, done.leans) == (0.0, None, False)


def test_a_short_leg_reaches_the_ground_and_the_surface_stays_closed() -> None:
    before = stool(0.03)
    mesh, done = place_mesh(before, "ground", "auto", view_aligned=True)
    standing = mesh.vertices[mesh.vertices[:, 1] < 0.001]
    assert 0 < done.pressed <= 0.05
    assert {(x > 0, z > 0) for x, _, z in standing} == {(False, False), (False, True), (True, False), (True, True)}
    np.testing.assert_array_equal(mesh.faces, before.faces)
    assert is_watertight(mesh)
    assert mesh_facts(mesh).genus == mesh_facts(before).genus
    assert (mesh.area_faces > 0).all()
    assert mesh.extents[1] == pytest.approx(before.extents[1] * (1 - done.pressed), abs=0.03)


@pytest.mark.parametrize(
    ("place", "low", "middle"),
    [
        ("ground", (-0.5, 0.0, -1.5), (0, 1, 0)),
        ("center", (-0.5, -1.0, -1.5), (0, 0, 0)),
        ("as_is", (4.5, 4, 3.5), (5, 5, 5)),
    ],
)
def test_a_mesh_lies_where_it_was_asked_to(place: Place, low: tuple[float, ...], middle: tuple[float, ...]) -> None:
    mesh, done = place_mesh(box(extents=(1, 2, 3)).apply_translation((5, 5, 5)), place, "off", view_aligned=True)
    np.testing.assert_array_equal(mesh.bounds[0], low)
    np.testing.assert_allclose(mesh.bounds.mean(axis=0), middle)
    assert done == Placement(place)


def test_as_is_and_off_leave_the_mesh_alone() -> None:
    mesh = turned(stool(0.03), 15)
    same, _ = place_mesh(mesh, "as_is", "off", view_aligned=True)
    assert same is mesh


def test_an_unusable_mesh_is_a_named_error() -> None:
    with pytest.raises(InvalidMesh):
        place_mesh(trimesh.Trimesh(), "ground", "auto", view_aligned=True)
