"""Rays at a mesh that is handed over in pieces: they meet the same faces as if it were whole."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from backend.hunyuan3d.mesh import rays
from backend.hunyuan3d.mesh.rays import RayScene


def from_all_around(count: int) -> tuple[rays.Floats32, rays.Floats32]:
    """Return rays from a sphere of radius 4 towards the middle, some of which pass the mesh."""
    origins = np.random.default_rng(3).normal(size=(count, 3))
    origins *= 4 / np.linalg.norm(origins, axis=1)[:, None]
    aims = np.random.default_rng(4).uniform(-1.5, 1.5, (count, 3))
    return origins.astype(np.float32), (aims - origins).astype(np.float32)


def test_each_ray_meets_the_face_that_lies_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rays, "_FACES_AT_ONCE", 100)
    ball = trimesh.creation.icosphere(subdivisions=3)
    scene, (origins, directions) = RayScene(ball.vertices, ball.faces), from_all_around(5000)
    found = scene.hits(origins, directions)
    met = found["primID"] >= 0
    assert 0.2 < met.mean() < 0.9
    assert len(np.unique(found["primID"][met])) > 0.5 * len(ball.faces)
    u, v = found["u"][met, None], found["v"][met, None]
    corners = ball.vertices[ball.faces[found["primID"][met]]]
    points = (1 - u - v) * corners[:, 0] + u * corners[:, 1] + v * corners[:, 2]
    way = found["tfar"][met, None]
    assert points == pytest.approx(origins[met] + way * directions[met], abs=1e-4)
    assert np.array_equal(scene.stops(origins, directions) == 0, met)
    assert scene.distances(origins, directions)[met] == pytest.approx(way[:, 0])


def test_it_makes_no_difference_in_how_many_pieces_a_mesh_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = trimesh.creation.icosphere(subdivisions=3)
    whole = RayScene(ball.vertices, ball.faces).hits(*from_all_around(2000))
    monkeypatch.setattr(rays, "_FACES_AT_ONCE", 7)
    pieces = RayScene(ball.vertices, ball.faces).hits(*from_all_around(2000))
    for name in ("primID", "u", "v", "Ng", "tfar"):
        assert np.array_equal(whole[name], pieces[name]), name
