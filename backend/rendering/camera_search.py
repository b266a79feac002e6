"""The search for the camera whose silhouette of a mesh fits a cut-out best, coarse to fine.

Coarse: every direction of a grid, orthographic and in perspective, with scale and shift from the outlines' bounds.
Fine: the best few, stepped in each coordinate in turn with ever smaller steps. Silhouettes are points drawn on the
surface, as many as fill the pixels: a look costs a millisecond, whatever the number of faces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
_POINTS = {_COARSE: 8_000, _FINE: 30_000}
_AZIMUTHS = range(-180, 180, 15)
_ELEVATIONS = range(-30, 76, 15)
_FIELDS = (0.0, 40.0)
_KEPT, _REFINED = 12, 3
_STEPS = {"azimuth": 6.0, "elevation": 6.0, "field_of_view": 12.0, "scale": 0.03, "x": 0.02, "y": 0.02}
_COARSE_STEPS, _FINE_STEPS = (1.0, 0.5), (0.5, 0.25, 0.12, 0.06)
_MOST_ELEVATION, _MOST_FIELD = 85.0, 75.0
# A silhouette from behind and below is much the same mirrored: among equals, the front, seen from the side or above.
_FRONT_FIRST, _ABOVE_FIRST = 0.01, 0.04


def search_camera(mesh: trimesh.Trimesh, cutout_alpha: NDArray[np.uint8]) -> Camera:
    """Return the camera with the best overlap found; the same for the same input. Raises InvalidMesh."""
    points, centre, radius = _surface_points(mesh, max(_POINTS.values()))
    start = Camera(centre=centre, radius=radius)
    coarse, fine = (_Judge(points[: _POINTS[side]], start, cutout_alpha, side) for side in (_COARSE, _FINE))
    cameras = [
        coarse.fitted(replace(start, azimuth=float(azimuth), elevation=float(elevation), field_of_view=field))
        for azimuth, elevation, field in product(_AZIMUTHS, _ELEVATIONS, _FIELDS)
    ]
    ranked = sorted(cameras, key=coarse.score, reverse=True)
    stepped = [_climb(camera, _COARSE_STEPS, coarse.score) for camera in _apart(ranked)]
    best = sorted(stepped, key=fine.score, reverse=True)[:_REFINED]
    return max((_climb(camera, _FINE_STEPS, fine.score) for camera in best), key=fine.score)


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


class _Judge:
    """Scores cameras by the pixels that a mesh's points touch at all, against those that the cut-out does."""

    def __init__(self, points: Vertices, start: Camera, alpha: NDArray[np.uint8], side: int) -> None:
        # As a camera's own projection does, but in single precision and from the centre: it is done a thousand times.
        self._points = ((points - np.asarray(start.centre)) / start.radius).astype(np.float32)
        self._side = side
        self._touched = _touched(alpha, side)
        rows, columns = np.flatnonzero(self._touched.any(axis=1)), np.flatnonzero(self._touched.any(axis=0))
        edges = ((line[0], line[-1] + 1) if line.size else (0, side) for line in (columns, rows))
        (left, right), (top, bottom) = edges
        self._low = np.array([left / side * 2 - 1, 1 - bottom / side * 2])
        self._high = np.array([right / side * 2 - 1, 1 - top / side * 2])

    def score(self, camera: Camera) -> float:
        """Return the overlap, less a little for unlikely places to take a picture from."""
        x, y = self._seen(camera) * np.float32(camera.scale)
        column = np.floor((x + np.float32(1 + camera.shift[0])) * np.float32(self._side / 2)).astype(np.int32)
        row = np.floor((np.float32(1 - camera.shift[1]) - y) * np.float32(self._side / 2)).astype(np.int32)
        inside = (column >= 0) & (column < self._side) & (row >= 0) & (row < self._side)
        mask = np.zeros(self._side * self._side, np.bool_)
        mask[(row * self._side + column)[inside]] = True
        unlikely = _FRONT_FIRST * abs(camera.azimuth) / 180 + _ABOVE_FIRST * max(0.0, -camera.elevation) / 90
        return overlap(mask.reshape(self._side, self._side), self._touched) - unlikely

    def fitted(self, camera: Camera) -> Camera:
        """Return the camera with the scale and shift at which the outlines' bounds agree."""
        seen = self._seen(camera)
        least, most = seen.min(axis=1), seen.max(axis=1)
        scale = float(np.sqrt(np.prod((self._high - self._low) / np.maximum(most - least, 1e-6))))
        shift = (self._low + self._high) / 2 - (least + most) / 2 * scale
        return replace(camera, scale=scale, shift=(float(shift[0]), float(shift[1])))

    def _seen(self, camera: Camera) -> NDArray[np.float32]:
        """Return the points (2, N) as they fall at scale 1 without a shift, y upwards."""
        turned = camera.axes().astype(np.float32) @ self._points.T
        if not camera.field_of_view:
            return np.asarray(turned[:2])
        return np.asarray(turned[:2] * (camera.distance / (camera.distance - turned[2])), dtype=np.float32)


def _touched(alpha: NDArray[np.uint8], side: int) -> Bools:
    """Return which of side x side pixels hold any of what the alpha (S, S) shows."""
    large = cv2.resize(alpha, (side * 8, side * 8), interpolation=cv2.INTER_LINEAR) >= 128
    return np.asarray(large.reshape(side, 8, side, 8).mean(axis=(1, 3)) > 0.1)


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


def _climb(camera: Camera, sizes: Sequence[float], score: Callable[[Camera], float]) -> Camera:
    """Step each coordinate as long as the score rises, by ever smaller shares of _STEPS."""
    best, value = camera, score(camera)
    for size in sizes:
        for _ in range(4):
            before = value
            for name, step in _STEPS.items():
                for signed in (step * size, -step * size):
                    tried = _stepped(best, name, signed)
                    found = score(tried)
                    if found > value:
                        best, value = tried, found
                        break
            if value == before:
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
