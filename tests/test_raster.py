"""Which face a pixel sees: against rays, for small faces and large ones."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from backend.rendering import raster
from backend.rendering.raster import Floats, overlap, rasterize

SIDE = 48


def placed(mesh: trimesh.Trimesh) -> tuple[Floats, Floats]:
    """Return where the vertices fall in an image that spans -1 to 1, seen along -Z, and how near they are."""
    x, y, z = np.asarray(mesh.vertices, np.float32).T
    return np.stack([(x + 1) * SIDE / 2, (1 - y) * SIDE / 2], axis=1), z


@pytest.mark.parametrize("subdivisions", [0, 4])
def test_a_pixel_sees_what_a_ray_strikes_first(subdivisions: int) -> None:
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.7)
    box = trimesh.creation.box((0.5, 0.2, 0.3)).apply_translation((0.35, 0.1, 0.7))
    mesh = trimesh.util.concatenate([ball, box])
    seen = rasterize(*placed(mesh), np.asarray(mesh.faces), SIDE)
    steps = (np.arange(SIDE) + 0.5) * 2 / SIDE - 1
    x, y = (axis.ravel() for axis in np.meshgrid(steps, -steps))
    origins = np.stack([x, y, np.full(x.shape, 5.0)], axis=1)
    points, ray, _ = mesh.ray.intersects_location(origins, np.tile([0.0, 0.0, -1.0], (len(x), 1)), multiple_hits=False)
    nearness = np.full(SIDE * SIDE, -np.inf)
    nearness[ray] = points[:, 2]
    assert (seen.covered.ravel() != np.isfinite(nearness)).sum() <= 2
    both = seen.covered.ravel() & np.isfinite(nearness)
    assert np.quantile(np.abs(seen.near.ravel()[both] - nearness[both]), 0.99) < 1e-3
    position = seen.of_corners(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces))
    np.testing.assert_allclose(position[seen.covered][:, 0], x.reshape(SIDE, SIDE)[seen.covered], atol=1e-4)


def test_many_faces_are_drawn_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = trimesh.creation.torus(0.6, 0.25)
    whole = rasterize(*placed(mesh), np.asarray(mesh.faces), SIDE)
    monkeypatch.setattr(raster, "_AT_ONCE", 100)
    parts = rasterize(*placed(mesh), np.asarray(mesh.faces), SIDE)
    np.testing.assert_array_equal(whole.face, parts.face)
    np.testing.assert_array_equal(whole.near, parts.near)


def test_only_chosen_faces_are_seen_and_none_outside_the_image() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=3.0)
    away = np.asarray(mesh.face_normals)[:, 2] < 0
    seen = rasterize(*placed(mesh), np.asarray(mesh.faces), SIDE, away)
    assert seen.covered.all()
    assert away[seen.face].all()
    far = mesh.copy().apply_translation((9, 0, 0))
    assert not rasterize(*placed(far), np.asarray(far.faces), SIDE).covered.any()


def test_overlap_of_nothing_is_none() -> None:
    nothing = np.zeros((4, 4), np.bool_)
    assert overlap(nothing, nothing) == 0.0
    assert overlap(~nothing, ~nothing) == 1.0
