"""The search for the camera whose silhouette of a mesh fits a cut-out best, coarse to fine.

Coarse: every direction of a grid, orthographic and in perspective, with scale and shift from the outlines' bounds.
Fine: the best few, each coordinate stepped in turn with ever smaller steps. Silhouettes are points drawn on the
surface, as many as fill the pixels: a look costs a millisecond, whatever the number of faces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.ops import require_usable
from backend.hunyuan3d.mesh.topology import Vertices
from backend.rendering.camera_model import Camera
from backend.rendering.raster import Bools, overlap

_COARSE, _FINE = 48, 96
_POINTS = {_COARSE: 9_000, _FINE: 30_000}
_AZIMUTHS = range(-180, 180, 15)
_ELEVATIONS = range(-30, 76, 15)
_FIELDS = (0.0, 40.0)
_KEPT = 8
_STEPS = {"azimuth": 6.0, "elevation": 6.0, "field_of_view": 12.0, "scale": 0.03, "x": 0.02, "y": 0.02}
_HALVINGS = 5
_MOST_ELEVATION, _MOST_FIELD = 85.0, 75.0
# A silhouette seen from behind is the same mirrored: among equals, the front.
_FRONT_FIRST = 0.01


def search_camera(mesh: trimesh.Trimesh, cutout_alpha: NDArray[np.uint8]) -> Camera:
    """Return the camera with the best overlap found; the same for the same input. Raises InvalidMesh."""
    points, centre, radius = _surface_points(mesh, max(_POINTS.values()))
    start = Camera(centre=centre, radius=radius)
    coarse, fine = _judge(points, cutout_alpha, _COARSE), _judge(points, cutout_alpha, _FINE)
    fitted = _fitter(points[: _POINTS[_COARSE]], cutout_alpha)
    cameras = [
        fitted(replace(start, azimuth=float(azimuth), elevation=float(elevation), field_of_view=field))
        for azimuth, elevation, field in product(_AZIMUTHS, _ELEVATIONS, _FIELDS)
    ]
    ranked = sorted(cameras, key=coarse, reverse=True)
    return max((_climb(camera, fine) for camera in _apart(ranked)), key=fine)


def _surface_points(mesh: trimesh.Trimesh, count: int) -> tuple[Vertices, tuple[float, float, float], float]:
    """Return points spread over the surface by area, the middle of its bounds, and the farthest vertex from there."""
    vertices, faces = require_usable(mesh)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    rng = np.random.default_rng(11)
    ends = np.cumsum(area)
    drawn = (np.arange(count) + rng.random(count)) / count * ends[-1]
    own = np.minimum(np.searchsorted(ends, drawn), len(faces) - 1)
    u, v = rng.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    points = a[own] + u * (b[own] - a[own]) + v * (c[own] - a[own])
    used = vertices[np.unique(faces)]
    middle = (used.min(axis=0) + used.max(axis=0)) / 2
    radius = max(float(np.linalg.norm(used - middle, axis=1).max()), 1e-9)
    # Shuffled, so that the first few are a fair draw too.
    return rng.permutation(points), (float(middle[0]), float(middle[1]), float(middle[2])), radius


def _judge(points: Vertices, alpha: NDArray[np.uint8], side: int) -> Callable[[Camera], float]:
    """Return the function that scores a camera, by the pixels that are touched at all."""
    touched = _touched(alpha, side)
    few = points[: _POINTS[side]]

    def score(camera: Camera) -> float:
        pixels, _ = camera.project(few, side)
        x, y = np.floor(pixels).astype(np.int64).T
        inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
        mask = np.zeros(side * side, np.bool_)
        mask[y[inside] * side + x[inside]] = True
        return overlap(mask.reshape(side, side), touched) - _FRONT_FIRST * abs(camera.azimuth) / 180

    return score


def _touched(alpha: NDArray[np.uint8], side: int) -> Bools:
    """Return which of side x side pixels hold any of what the alpha (S, S) shows."""
    large = cv2.resize(alpha, (side * 8, side * 8), interpolation=cv2.INTER_LINEAR) >= 128
    return np.asarray(large.reshape(side, 8, side, 8).mean(axis=(1, 3)) > 0.1)


def _fitter(points: Vertices, alpha: NDArray[np.uint8]) -> Callable[[Camera], Camera]:
    """Return the function that gives a camera the scale and shift at which the outlines' bounds agree."""
    rows, columns = np.flatnonzero((alpha >= 128).any(axis=1)), np.flatnonzero((alpha >= 128).any(axis=0))
    if not rows.size:
        return lambda camera: camera
    low = np.array([columns[0], rows[0]]) / len(alpha)
    high = np.array([columns[-1] + 1, rows[-1] + 1]) / len(alpha)

    def fit(camera: Camera) -> Camera:
        pixels, _ = camera.project(points)
        least, most = pixels.min(axis=0), pixels.max(axis=0)
        scale = float(np.sqrt(np.prod((high - low) / np.maximum(most - least, 1e-9))))
        moved = (low + high) / 2 - ((least + most) / 2 - 0.5) * scale - 0.5
        return replace(camera, scale=scale, shift=(float(moved[0] * 2), float(-moved[1] * 2)))

    return fit


def _apart(ranked: list[Camera]) -> list[Camera]:
    """Return the best cameras that are not each other's neighbours."""
    kept: list[Camera] = []
    for camera in ranked:
        near = any(other.axes()[2] @ camera.axes()[2] > 0.95 for other in kept)
        if not near:
            kept.append(camera)
        if len(kept) == _KEPT:
            break
    return kept


def _climb(camera: Camera, score: Callable[[Camera], float]) -> Camera:
    """Step each coordinate as long as the score rises, then halve the steps."""
    best, value = camera, score(camera)
    for halving in range(_HALVINGS):
        rises = True
        rounds = 0
        while rises and rounds < 4:
            rises, rounds = False, rounds + 1
            for name, step in _STEPS.items():
                for signed in (step / 2**halving, -step / 2**halving):
                    tried = _stepped(best, name, signed)
                    found = score(tried)
                    if found > value:
                        best, value, rises = tried, found, True
                        break
    return best


def _stepped(camera: Camera, name: str, step: float) -> Camera:
    if name == "x":
        return replace(camera, shift=(camera.shift[0] + step, camera.shift[1]))
    if name == "y":
        return replace(camera, shift=(camera.shift[0], camera.shift[1] + step))
    if name == "scale":
        return replace(camera, scale=camera.scale * (1 + step))
    if name == "azimuth":
        return replace(camera, azimuth=(camera.azimuth + step + 180) % 360 - 180)
    if name == "elevation":
        return replace(camera, elevation=min(max(camera.elevation + step, -_MOST_ELEVATION), _MOST_ELEVATION))
    return replace(camera, field_of_view=min(max(camera.field_of_view + step, 0.0), _MOST_FIELD))
