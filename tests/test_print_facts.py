"""What is said of a print is true of solids whose measures are known, and what is thin or in pieces is remarked on."""

from __future__ import annotations

import math
import sys

import pytest
import trimesh
from trimesh.creation import box, icosphere

from backend.errors import InvalidMesh, InvalidScale
from backend.hunyuan3d.mesh.place import Placement
from backend.hunyuan3d.mesh.print_facts import print_facts
from backend.hunyuan3d.mesh.remarks import remarks_on


def hollow(outer: trimesh.Trimesh, inner: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return a solid with a room in it."""
    inner = inner.copy()
    inner.invert()
    return trimesh.util.concatenate([outer, inner])


BALL = math.pi / 6 * 100**3 / 1000
SOLIDS = {
    "cube": (box(extents=(1, 1, 1)), 100, 1000.0, 100.0, 100.0, 0.0),
    "ball": (icosphere(5), 100, BALL, 100.0, math.pi * 25, 0.146),
    "shell of 2 mm": (
        hollow(icosphere(5, 50.0), icosphere(5, 48.0)), 100, BALL * (1 - 0.96**3), 2.0, math.pi * 25, 0.146,
    ),
    "plate of 1 mm": (box(extents=(50, 1, 50)), 50, 2.5, 1.0, 25.0, 0.0),
    "box with walls of 3 mm": (
        hollow(box(extents=(60, 60, 60)), box(extents=(54, 54, 54))), 60, 58.536, 3.0, 36.0, 0.082,
    ),
}  # fmt: skip


@pytest.mark.parametrize("solid", SOLIDS)
def test_known_solids_are_measured_within_a_hundredth(solid: str) -> None:
    mesh, longest, volume, wall, footprint, overhang = SOLIDS[solid]
    facts = print_facts(mesh, longest)
    assert facts.volume_cm3 == pytest.approx(volume, rel=0.01)
    assert facts.thinnest_wall_mm == pytest.approx(wall, rel=0.01)
    assert facts.footprint_cm2 == pytest.approx(footprint, rel=0.01)
    assert facts.overhang_share == pytest.approx(overhang, abs=0.01)


def test_room_is_width_depth_and_height_at_the_size_asked_for() -> None:
    assert print_facts(box(extents=(1, 4, 2)), 100).fits_mm == pytest.approx((25, 50, 100))


def test_a_bridge_overhangs() -> None:
    bridge = trimesh.util.concatenate(
        [
            box(extents=(10, 20, 10)).apply_translation((-20, 10, 0)),
            box(extents=(10, 20, 10)).apply_translation((20, 10, 0)),
            box(extents=(50, 2, 10)).apply_translation((0, 21, 0)),
        ]
    )
    assert print_facts(bridge, 50).overhang_share > 0.1


def test_an_open_surface_has_no_volume() -> None:
    half = icosphere(4)
    half = trimesh.Trimesh(half.vertices, half.faces[half.triangles_center[:, 1] > 0], process=False)
    assert print_facts(half, 50).volume_cm3 is None


def test_without_embree_there_is_no_thinnest_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embreex.mesh_construction", None)
    facts = print_facts(icosphere(4), 50)
    assert facts.thinnest_wall_mm is None
    assert not facts.thin_walls
    assert facts.footprint_cm2 == pytest.approx(math.pi * 25 / 4, rel=0.01)
    assert facts.volume_cm3 == pytest.approx(BALL / 8, rel=0.01)


def test_what_is_wrong_is_a_named_error() -> None:
    with pytest.raises(InvalidMesh):
        print_facts(trimesh.Trimesh(), 10)
    with pytest.raises(InvalidScale):
        print_facts(icosphere(), 0)


def test_thin_walls_many_parts_and_a_lean_are_remarked_on() -> None:
    facts = print_facts(box(extents=(50, 1, 50)), 25)
    found = remarks_on(4, Placement("ground", leans=True), facts, 25)
    assert [remark.code for remark in found] == ["MANY_PARTS", "LEANS", "THIN_WALLS"]
    assert "4 parts" in found[0].message
    assert "0.5 mm" in found[2].message
    assert "scale_mm=40" in found[2].message


def test_levelling_by_the_axis_alone_is_remarked_on() -> None:
    facts = print_facts(box(extents=(50, 1, 50)), 50)
    (found,) = remarks_on(1, Placement("ground", -4.0, "axis"), facts, 50)
    assert (found.code, "axis" in found.message) == ("LEANS", True)


def test_a_sound_mesh_is_not_remarked_on() -> None:
    facts = print_facts(box(extents=(50, 1, 50)), 50)
    assert remarks_on(1, Placement("ground", -4.0, "under side"), facts, 50) == ()
    assert remarks_on(1, Placement("ground"), facts, 50) == ()
    assert remarks_on(None, Placement("ground"), facts, 50) == ()
