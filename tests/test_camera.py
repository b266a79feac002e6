"""The camera that explains an image: projected as a renderer would, known where it is known, found where it is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh

from backend.rendering.camera import aligned_camera, find_camera, silhouette, silhouette_score
from backend.rendering.camera_model import Camera
from backend.rendering.render import View

Alpha = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def jug() -> trimesh.Trimesh:
    """Return a thing that looks different from everywhere: a body, a handle to the right, a spout to the front."""
    body = trimesh.creation.cylinder(0.4, 1.2, sections=40)
    body.apply_transform(trimesh.transformations.rotation_matrix(math.pi / 2, (1, 0, 0)))
    handle = trimesh.creation.torus(0.3, 0.07).apply_translation((0.5, 0, 0))
    spout = trimesh.creation.box((0.15, 0.15, 0.7)).apply_translation((0, 0.35, 0.6))
    foot = trimesh.creation.box((1.1, 0.1, 0.6)).apply_translation((-0.2, -0.6, 0.1))
    return trimesh.util.concatenate([body, handle, spout, foot])


def alpha_of(mesh: trimesh.Trimesh, camera: Camera, side: int = 256) -> Alpha:
    return silhouette(mesh, camera, side).astype(np.uint8) * 255


def apart(a: Camera, b: Camera) -> float:
    """Return the angle between two cameras' directions, degrees."""
    return math.degrees(math.acos(float(np.clip(a.axes()[2] @ b.axes()[2], -1, 1))))


def test_axes_are_those_of_the_renderer() -> None:
    np.testing.assert_allclose(Camera(35.0, 22.0).axes(), View("any", 35.0, 22.0).axes(), atol=1e-6)


def test_points_fall_where_they_are_seen() -> None:
    points = np.array([[0.0, 0.0, 0.0], [0.5, 0.25, 0.0], [0.0, 0.0, 0.5]])
    pixels, near = Camera().project(points, 100)
    np.testing.assert_allclose(pixels, np.array([[50, 50], [75, 37.5], [50, 50]]))
    np.testing.assert_allclose(near, [0, 0, 0.5])
    pixels, near = Camera(azimuth=90.0).project(points, 100)
    np.testing.assert_allclose(pixels, np.array([[50, 50], [50, 37.5], [25, 50]]), atol=1e-4)
    np.testing.assert_allclose(near, [0, 0.5, 0], atol=1e-6)


def test_perspective_enlarges_what_is_near() -> None:
    camera = Camera(field_of_view=60.0)
    assert camera.distance == pytest.approx(2.0)
    pixels, _ = camera.project(np.array([[0.5, 0, 0.0], [0.5, 0, 1.0], [0.5, 0, -2.0]]), 2.0)
    np.testing.assert_allclose(pixels[:, 0] - 1, [0.5, 1.0, 0.25], atol=1e-6)
    towards = camera.towards(np.array([[0.0, 0, 0], [1.0, 0, 2.0]]))
    np.testing.assert_allclose(towards, [[0, 0, 1], [-1, 0, 0]], atol=1e-6)


def test_a_view_aligned_mesh_is_seen_along_z_at_the_size_it_was_trained_for() -> None:
    box = trimesh.creation.box((1.8, 0.9, 1.0))
    alpha = np.zeros((200, 200), np.uint8)
    alpha[60:145, 15:185] = 255
    camera = find_camera(box, alpha, view_aligned=True)
    assert (camera.azimuth, camera.elevation, camera.field_of_view) == (0.0, 0.0, 0.0)
    assert camera.scale == pytest.approx(0.85 / 0.9)
    assert camera.shift == pytest.approx((0.0, -0.025))
    assert camera.score > 0.97
    assert not camera.doubtful
    assert camera.facts()["projection"] == "orthographic"


def test_an_empty_cutout_has_a_camera_that_is_doubtful() -> None:
    camera = find_camera(jug(), np.zeros((64, 64), np.uint8), view_aligned=True)
    assert camera.score == 0.0
    assert camera.doubtful
    assert aligned_camera(np.zeros((8, 8), np.uint8)) == Camera()


@pytest.mark.parametrize(
    "true",
    [
        Camera(azimuth=-40.0, elevation=20.0, scale=0.8, shift=(0.05, -0.03), radius=1.2),
        Camera(azimuth=25.0, elevation=35.0, field_of_view=45.0, scale=0.7, radius=1.2),
    ],
)
def test_the_camera_of_a_rendered_silhouette_is_found(true: Camera) -> None:
    mesh = jug()
    found = find_camera(mesh, alpha_of(mesh, true), view_aligned=False)
    assert found.score > 0.93
    assert apart(found, true) < 6.0


def test_the_score_of_another_shape_is_low_and_said_to_be_doubtful() -> None:
    rod = trimesh.creation.box((0.1, 2.0, 0.1))
    disc = np.zeros((128, 128), np.uint8)
    rows, columns = np.mgrid[:128, :128]
    disc[(rows - 64) ** 2 + (columns - 64) ** 2 < 50**2] = 255
    found = find_camera(rod, disc, view_aligned=False)
    assert found.doubtful
    assert found.score == silhouette_score(rod, disc, found)
