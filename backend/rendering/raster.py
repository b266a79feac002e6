"""Triangles to pixels without a graphics library: which face each pixel's centre sees first, and how near it is.

Knows nothing of cameras or colours: it is given where the vertices fall and how near they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.topology import Faces

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

# So many tests of a pixel against a face are made at once: some 100 MB.
_AT_ONCE = 2_000_000


@dataclass(frozen=True, eq=False)
class Raster:
    """What each pixel (side, side) sees; rows from the top.

    face : (side, side) int64, the nearest face, -1 where there is none. weights : (side, side, 3) the point's
    barycentric coordinates in it. near : (side, side) its nearness, -inf where there is none.
    """

    face: NDArray[np.int64]
    weights: Floats
    near: Floats

    @property
    def covered(self) -> Bools:
        """Where there is a face at all."""
        return np.asarray(self.face >= 0)

    def of_corners(self, values: Floats, faces: Faces) -> Floats:
        """Interpolate values (V,) or (V, k) of the vertices: (side, side) or (side, side, k), 0 where no face is."""
        corners = values[faces[np.maximum(self.face, 0)]]
        weights = self.weights if values.ndim == 1 else self.weights[..., None]
        return np.asarray((corners * weights).sum(axis=2) * self._mask(values.ndim), dtype=np.float32)

    def _mask(self, dimensions: int) -> Floats:
        mask = self.covered.astype(np.float32)
        return mask if dimensions == 1 else mask[..., None]


def rasterize(pixels: Floats, near: Floats, faces: Faces, side: int, chosen: Bools | None = None) -> Raster:
    """Find the face that is nearest at every pixel's centre.

    pixels : (V, 2), x to the right and y down, pixel k's centre at k + 0.5. near : (V,), larger is nearer. faces :
    (F, 3). chosen : (F,), the faces that count; all when None. Weights are linear in the image, which a perspective's
    are not quite: for colours and depths of small faces it does not matter.
    """
    index = np.arange(len(faces)) if chosen is None else np.flatnonzero(chosen)
    corners = np.asarray(pixels, np.float32)[faces[index]] - np.float32(0.5)
    first = np.ceil(corners.min(axis=1)).clip(0, side).astype(np.int64)
    last = np.floor(corners.max(axis=1)).clip(-1, side - 1).astype(np.int64)
    size = np.maximum(last - first + 1, 0)
    count = size[:, 0] * size[:, 1]
    some = np.flatnonzero(count)
    face = np.full(side * side, -1, np.int64)
    best = np.full(side * side, -np.inf, np.float32)
    weights = np.zeros((side * side, 3), np.float32)
    ends = np.cumsum(count[some])
    begin = 0
    while begin < len(some):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _AT_ONCE, side="right")))
        part = some[begin:end]
        _draw(part, corners, first, size, count, near[faces[index[part]]], (face, best, weights), side)
        begin = end
    face[face >= 0] = index[face[face >= 0]]
    return Raster(face.reshape(side, side), weights.reshape(side, side, 3), best.reshape(side, side))


def overlap(a: Bools, b: Bools) -> float:
    """Return the intersection over union of two masks; 0 when both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def _draw(
    part: NDArray[np.int64],
    corners: Floats,
    first: NDArray[np.int64],
    size: NDArray[np.int64],
    count: NDArray[np.int64],
    near: Floats,
    canvas: tuple[NDArray[np.int64], Floats, Floats],
    side: int,
) -> None:
    """Draw the faces `part` on the canvas (face, nearness, weights), flattened, where they are nearer."""
    own = np.repeat(np.arange(len(part)), count[part])
    step = np.arange(len(own)) - np.repeat(np.cumsum(count[part]) - count[part], count[part])
    row, column = np.divmod(step, size[part, 0][own])
    x, y = first[part, 0][own] + column, first[part, 1][own] + row
    a, b, c = (corners[part, k] for k in range(3))
    area = _cross(b - a, c - a)
    area = np.where(np.abs(area) < 1e-12, np.float32(np.inf), area)
    # Barycentric coordinates as planes over the image: one multiplication each instead of three cross products.
    second = _plane(c, a, area)
    third = _plane(a, b, area)
    v = second[own, 0] * x + second[own, 1] * y + second[own, 2]
    w = third[own, 0] * x + third[own, 1] * y + third[own, 2]
    u = 1 - v - w
    hit = np.flatnonzero((u >= -1e-5) & (v >= -1e-5) & (w >= -1e-5) & np.isfinite(area)[own])
    u, v, w, own = u[hit], v[hit], w[hit], own[hit]
    pixel = y[hit] * side + x[hit]
    depth = (u * near[own, 0] + v * near[own, 1] + w * near[own, 2]).astype(np.float32)
    # Of several values for one place, the last stays.
    order = np.argsort(depth, kind="stable")
    order = order[depth[order] > canvas[1][pixel[order]]]
    where = pixel[order]
    canvas[0][where] = part[own[order]]
    canvas[1][where] = depth[order]
    canvas[2][where] = np.stack([u[order], v[order], w[order]], axis=1)


def _cross(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], dtype=np.float32)


def _plane(p: Floats, q: Floats, area: Floats) -> NDArray[np.float64]:
    """Return (n, 3): the coefficients of x, y and 1 in cross(q - p, point - p) / area."""
    p, q, whole = p.astype(np.float64), q.astype(np.float64), area.astype(np.float64)
    dx, dy = q[:, 0] - p[:, 0], q[:, 1] - p[:, 1]
    return np.stack([-dy, dx, dy * p[:, 0] - dx * p[:, 1]], axis=1) / whole[:, None]
