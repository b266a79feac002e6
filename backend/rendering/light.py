"""How much light reaches points of a mesh: rays towards one soft key light and into the room, shared by neighbours.

Few points throw few rays each, so one point alone tells little. All points of a small square throw different ones, and
what they found is averaged over such squares: the light of a surface changes slowly.

Does not know of cameras, colours or images. World frame: Y up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.rays import RayScene

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

_SKY = np.array([0.95, 0.98, 1.03], np.float32)
_BOUNCE = 0.55 * np.array([1.0, 0.96, 0.90], np.float32)
# What a ray brings back that the mesh itself stops: a little of its clay's color.
_STOPPED = 0.10 * np.array([0.70, 0.62, 0.54], np.float32)
_KEY_SPREAD = 0.16
_FLOOR_POINTS = 36
_FLOOR_RAYS = 16
_FLOOR_SQUARE = 3


@dataclass(frozen=True, eq=False)
class Places:
    """Points of a mesh that light is looked for at, and their cells in a grid (side, side), at most one in each.

    square : how many cells wide the squares are whose points throw different rays and share what they find.
    cell : (m,) row by row. start : (m, 3), just above the surface. normal : (m, 3), unit.
    """

    side: int
    square: int
    cell: Indices
    start: Floats
    normal: Floats


def light_at(scene: RayScene, places: Places, key: Floats, rays: int) -> Floats:
    """Return a grid (side, side, 4): the share of the key light that is seen, and the room's light, RGB.

    scene : with the mesh. key : the direction to the key light (3,), unit. rays : for each place, into the room. Cells
    beside a place's own hold its light too, for whoever interpolates.
    """
    order = _pattern(places)
    found = np.empty((len(places.cell), 3), np.float32)
    found[:, 0] = _seen_key(scene, places, key, order)
    found[:, 1:] = _seen_room(scene, places, order, rays)
    smooth = _smooth(found, places)
    return np.concatenate([smooth[..., :1], _room_light(smooth[..., 1:])], axis=2)


def floor_shadow(scene: RayScene, corner: Floats, right: Floats, down: Floats, height: float) -> Floats:
    """Return the share of its light that each point of a floor loses to the mesh (n, n), fading out far from it.

    corner, right, down : (3,), the floor's point at the grid's first corner and the ways to the next two corners.
    height : the floor's, where the mesh stands.
    """
    steps = (np.arange(_FLOOR_POINTS, dtype=np.float32) + 0.5) / _FLOOR_POINTS
    floor = _short(corner + (steps[:, None, None] * down + steps[None, :, None] * right).reshape(-1, 3))
    far = np.hypot(floor[:, 0], floor[:, 2])
    weight = np.clip((1.8 - far) / 0.9, 0.0, 1.0)
    cell = np.flatnonzero(weight > 0)
    start = floor[cell]
    start[:, 1] = height + 1e-3
    up = np.zeros_like(start)
    up[:, 1] = 1.0
    places = Places(_FLOOR_POINTS, _FLOOR_SQUARE, cell, start, up)
    seen = _smooth(_seen_room(scene, places, _pattern(places), _FLOOR_RAYS), places)
    light = _room_light(seen)[..., 1]
    lost = 1.0 - light / max(float(light.max()), 1e-6)
    return np.asarray(0.85 * lost * weight.reshape(lost.shape), dtype=np.float32)


def unit(vectors: NDArray[np.floating[Any]]) -> Floats:
    """Return vectors (..., 3) with length 1, or 0 where they have none."""
    short = _short(vectors)
    length = np.sqrt(np.einsum("...i,...i->...", short, short))
    return _short(short / np.maximum(length, 1e-12)[..., None])


def _pattern(places: Places) -> Indices:
    """Give the places numbers (m,) from 0 such that no two within a square have the same one."""
    row, column = np.divmod(places.cell, places.side)
    return np.asarray((row % places.square) * places.square + column % places.square, dtype=np.int64)


def _seen_key(scene: RayScene, places: Places, key: Floats, order: Indices) -> Floats:
    """Return 1 where a place sees its own point of the key light, a disc on the sky, (m,)."""
    disc = _spiral(places.square**2)
    right = unit(np.cross(key, np.array([0.0, 1.0, 0.01], np.float32)))
    rays = unit(key + _KEY_SPREAD * (disc[:, :1] * right + disc[:, 1:] * np.cross(right, key)))
    return _open_sky(scene, places.start, np.take(rays, order, axis=0))


def _seen_room(scene: RayScene, places: Places, order: Indices, rays: int) -> Floats:
    """Return (m, 2): the share of a place's rays that leave the mesh behind, weighted by how far up they go, and as is.

    Rays are as dense as the light that they stand for: by the cosine to the normal.
    """
    disc = _spiral(places.square**2 * rays).reshape(rays, -1, 2)
    height = np.sqrt(np.maximum(0.0, 1.0 - (disc**2).sum(axis=-1)))
    local = np.concatenate([disc, height[..., None]], axis=-1)
    across, along = _tangents(places.normal)
    total = np.zeros((len(places.cell), 2), np.float32)
    for own in local:
        x, y, z = (np.take(own[:, k], order)[:, None] for k in range(3))
        direction = _short(x * across + y * along + z * places.normal)
        seen = _open_sky(scene, places.start, direction)
        total[:, 0] += seen * (direction[:, 1] * 0.5 + 0.5)
        total[:, 1] += seen
    return _short(total / rays)


def _room_light(seen: Floats) -> Floats:
    """Return the light (..., 3) that rays (..., 2) into the room found: the sky's above, the floor's below."""
    above, all_around = seen[..., :1], seen[..., 1:]
    light = above * _SKY + (all_around - above) * _BOUNCE + (1.0 - all_around) * _STOPPED
    return _short(light)


def _open_sky(scene: RayScene, start: Floats, direction: Floats) -> Floats:
    """Return 1 where a ray leaves the mesh behind, 0 where it is stopped, (m,)."""
    if not len(start):
        return np.zeros(0, np.float32)
    return np.asarray(scene.stops(np.ascontiguousarray(start), np.ascontiguousarray(direction)) < 0, np.float32)


def _smooth(values: Floats, places: Places) -> Floats:
    """Average values (m, k) of the places over squares: a grid (side, side, k), 0 far from all."""
    side, window = places.side, (places.square, places.square)
    grid = np.zeros((side * side, values.shape[1] + 1), np.float32)
    grid[places.cell, :-1] = values
    grid[places.cell, -1] = 1.0
    blurred = cv2.blur(grid.reshape(side, side, -1), window, borderType=cv2.BORDER_REPLICATE)
    blurred = np.asarray(blurred, np.float32).reshape(side, side, -1)
    return np.asarray(blurred[..., :-1] / np.maximum(blurred[..., -1:], 1e-6), dtype=np.float32)


def _spiral(count: int) -> Floats:
    """Spread points evenly over the unit disc (count, 2), shuffled so that neighbours in the list lie far apart."""
    index = np.arange(count)
    radius = np.sqrt((index + 0.5) / count)
    angle = index * (math.pi * (3 - math.sqrt(5)))
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
    return points[np.random.default_rng(7).permutation(count)]


def _short(values: NDArray[np.floating[Any]]) -> Floats:
    return np.asarray(values, np.float32)


def _tangents(normal: Floats) -> tuple[Floats, Floats]:
    """Return two unit vectors across each normal (m, 3). Source: Duff et al., Building an orthonormal basis, 2017."""
    x, y, z = normal.T
    sign = np.where(z >= 0, 1.0, -1.0).astype(np.float32)
    a = -1.0 / (sign + z)
    b = x * y * a
    across = np.stack([1.0 + sign * x * x * a, sign * b, -sign * x], axis=1)
    along = np.stack([b, sign + y * y * a, -y], axis=1)
    return across, along
