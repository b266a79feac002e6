"""Signed distance primitives and the evaluation of a list of parts on a grid or at points.

Knows nothing of object families, cameras or pictures. Distances here are NEGATIVE inside (the usual convention of
distance fields); training.shapes.field turns the sign round for whoever samples a shape.
Formulas of the primitives: https://iquilezles.org/articles/distfunctions (read, then written for numpy).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Matrix = NDArray[np.float64]
Real = NDArray[np.floating]
Distance = Callable[[Array, Array, Array], Real]

TRUNCATION = 0.15
"""World distance beyond which a part's field is not evaluated and distances are clipped."""


@dataclass(frozen=True)
class Solid:
    """A primitive in its own frame: its distance function and the half sides of its bounding box about the origin."""

    distance: Distance
    half: tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """One solid placed in the object's frame (Y up, front +Z): point = rotation @ local + centre."""

    solid: Solid
    centre: Matrix
    rotation: Matrix
    paint: int = 0
    mode: Literal["union", "cut", "decal"] = "union"
    smooth: float = 0.0


@dataclass(frozen=True)
class Placement:
    """World = scale * (rotation @ object - offset)."""

    rotation: Matrix
    scale: float = 1.0
    offset: Matrix = field(default_factory=lambda: np.zeros(3))

    def local(self, part: Part) -> tuple[Matrix, Matrix]:
        """Return the matrix and shift taking world points to the part's frame."""
        turn = part.rotation.T
        matrix = turn @ self.rotation.T / self.scale
        return matrix, turn @ (self.rotation.T @ self.offset - part.centre)

    def box(self, part: Part) -> tuple[Matrix, Matrix]:
        """Return the lower and upper world corners of the part's bounding box."""
        centre = self.scale * (self.rotation @ part.centre - self.offset)
        half = self.scale * (np.abs(self.rotation @ part.rotation) @ np.asarray(part.solid.half))
        return centre - half, centre + half


def rotation_about(axis: int, degrees: float) -> Matrix:
    """Return the right-handed rotation (3,3) about the x, y or z axis."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    out = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    out[first, first] = out[second, second] = cos
    out[first, second], out[second, first] = -sin, sin
    return out


def rotation_to(direction: Matrix) -> Matrix:
    """Return a rotation (3,3) that takes +Y to `direction`."""
    y = direction / np.linalg.norm(direction)
    helper = np.array([0.0, 0.0, 1.0]) if abs(y[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    x = np.cross(y, helper)
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def ellipsoid(a: float, b: float, c: float) -> Solid:
    """Return an ellipsoid with half axes a, b, c; a sphere where they agree."""
    if a == b == c:
        return Solid(lambda x, y, z: np.sqrt(x * x + y * y + z * z) - a, (a, a, a))

    def distance(x: Array, y: Array, z: Array) -> Real:
        u, v, w = x * (1 / a), y * (1 / b), z * (1 / c)
        k0 = np.sqrt(u * u + v * v + w * w)
        u, v, w = u * (1 / a), v * (1 / b), w * (1 / c)
        k1 = np.sqrt(u * u + v * v + w * w) + 1e-6
        out: Real = (k0 * (k0 - 1.0) / k1 - 1e-6).astype(np.float32, copy=False)
        return out

    return Solid(distance, (a, b, c))


def box(a: float, b: float, c: float, rounding: float = 0.0) -> Solid:
    """Return a box with half sides a, b, c, its edges rounded by a radius."""
    r = min(rounding, 0.99 * min(a, b, c))

    def distance(x: Array, y: Array, z: Array) -> Real:
        u, v, w = np.abs(x) - (a - r), np.abs(y) - (b - r), np.abs(z) - (c - r)
        inside = np.minimum(np.maximum(np.maximum(u, v), w), 0.0)
        u, v, w = np.maximum(u, 0.0), np.maximum(v, 0.0), np.maximum(w, 0.0)
        return np.sqrt(u * u + v * v + w * w) + inside - r

    return Solid(distance, (a, b, c))


def limb(length: float, bottom: float, top: float) -> Solid:
    """Return a capsule along Y whose radius changes linearly from the bottom end (-length/2) to the top end."""
    widest = max(bottom, top)

    def distance(x: Array, y: Array, z: Array) -> Real:
        t = np.clip(y * (1 / length) + 0.5, 0.0, 1.0)
        v = y - (t - 0.5) * length
        out: Real = np.sqrt(x * x + v * v + z * z) - (bottom + (top - bottom) * t)
        return out

    return Solid(distance, (widest, length / 2 + widest, widest))


def tapered(length: float, bottom: float, top: float, rounding: float = 0.02, sides: int = 0) -> Solid:
    """Return a cylinder or cone frustum along Y with rounded rims; a prism or pyramid where `sides` is at least 3."""
    slope = (bottom - top) / length
    lean = 1.0 / np.sqrt(1.0 + slope * slope)
    widest = max(bottom, top) / (np.cos(np.pi / sides) if sides else 1.0)

    def distance(x: Array, y: Array, z: Array) -> Real:
        if sides:
            reach = np.full(np.broadcast(x, z).shape, -np.inf, np.float32)
            for k in range(sides):
                angle = 2 * np.pi * (k + 0.5) / sides
                reach = np.maximum(reach, x * float(np.sin(angle)) + z * float(np.cos(angle)))
        else:
            reach = np.sqrt(x * x + z * z)
        side = (reach - (bottom + top) / 2 + slope * y) * float(lean) + rounding
        cap = np.abs(y) - (length / 2 - rounding)
        u, v = np.maximum(side, 0.0), np.maximum(cap, 0.0)
        out: Real = np.sqrt(u * u + v * v) + np.minimum(np.maximum(side, cap), 0.0) - rounding
        return out

    return Solid(distance, (float(widest), length / 2, float(widest)))


def gable(a: float, rise: float, c: float) -> Solid:
    """Return a ridge roof: a triangle of half width a and height `rise` about the origin, extended to ±c along Z."""
    slope = rise / a
    lean = 1.0 / float(np.sqrt(1.0 + slope * slope))

    def distance(x: Array, y: Array, z: Array) -> Real:
        side = ((y - rise / 2) + np.abs(x) * slope) * lean
        out: Real = np.maximum(np.maximum(side, -rise / 2 - y), np.abs(z) - c)
        return out

    return Solid(distance, (a, rise / 2, c))


def torus(ring: float, tube: float) -> Solid:
    """Return a torus about Z: the circle of radius `ring` in the xy plane, thickened by `tube`."""

    def distance(x: Array, y: Array, z: Array) -> Real:
        u = np.sqrt(x * x + y * y) - ring
        return np.sqrt(u * u + z * z) - tube

    return Solid(distance, (ring + tube, ring + tube, tube))


def _carve(target: Array, d: Array, part: Part, scale: float) -> None:
    if part.mode == "cut":
        np.maximum(target, -d, out=target)
        return
    if part.smooth > 0:
        k = np.float32(part.smooth * scale)
        blend = np.maximum(k - np.abs(target - d), 0.0)
        np.minimum(target, d, out=target)
        target -= blend * blend * (0.25 / k)
        return
    np.minimum(target, d, out=target)


def evaluate_grid(parts: list[Part], placement: Placement, axis: Array, truncation: float = TRUNCATION) -> Array:
    """Return distances (n,n,n) float32 [x,y,z] on the cubic grid of an axis (n,); `truncation` where far outside."""
    out = np.full((len(axis),) * 3, truncation, np.float32)
    for part in parts:
        if part.mode == "decal":
            continue
        low, high = placement.box(part)
        start = np.searchsorted(axis, low - truncation)
        stop = np.searchsorted(axis, high + truncation)
        if np.any(stop <= start):
            continue
        spans = [axis[i:j] for i, j in zip(start, stop, strict=True)]
        matrix, shift = placement.local(part)
        m, o = matrix.astype(np.float32), shift.astype(np.float32)
        local = [
            (m[i, 0] * spans[0])[:, None, None] + ((m[i, 1] * spans[1])[:, None] + (m[i, 2] * spans[2] + o[i]))
            for i in range(3)
        ]
        d = part.solid.distance(*local) * np.float32(placement.scale)
        _carve(out[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]], d, part, placement.scale)
    return out


def evaluate_part(part: Part, placement: Placement, points: Array) -> tuple[Array, Array]:
    """Return the world distance (Q,) to one part at world points (Q,3), and the points in the part's frame (Q,3)."""
    matrix, shift = placement.local(part)
    local = points @ matrix.T.astype(np.float32) + shift.astype(np.float32)
    return part.solid.distance(local[:, 0], local[:, 1], local[:, 2]) * np.float32(placement.scale), local
