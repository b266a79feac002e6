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
    boxes = _boxes(pixels, faces[index], side)
    index, boxes = index[boxes.some], boxes.kept()
    canvas = _Canvas(
        np.full(side * side, -1, np.int64),
        np.zeros((side * side, 3), np.float32),
        np.full(side * side, -np.inf, np.float32),
    )
    ends = np.cumsum(boxes.columns * boxes.rows)
    begin = 0
    while begin < len(index):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _AT_ONCE, side="right")))
        part = slice(begin, end)
        _draw(boxes.part(part), index[part], near[faces[index[part]]], canvas, side)
        begin = end
    shape = (side, side)
    return Raster(canvas.face.reshape(shape), canvas.weights.reshape(*shape, 3), canvas.near.reshape(shape))


def overlap(a: Bools, b: Bools) -> float:
    """Return the intersection over union of two masks; 0 when both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


@dataclass(frozen=True, eq=False)
class _Canvas:
    """A raster while it is drawn, its pixels in one row."""

    face: NDArray[np.int64]
    weights: Floats
    near: Floats


@dataclass(frozen=True, eq=False)
class _Boxes:
    """The pixels' centres that each face's bounds hold, all (n,), and its corners (6, n): ax, ay, bx, by, cx, cy.

    left, top : the first centre; corners count from there. columns, rows : how many centres. some : which faces'
    bounds hold any.
    """

    left: NDArray[np.int64]
    top: NDArray[np.int64]
    columns: NDArray[np.int64]
    rows: NDArray[np.int64]
    corners: Floats

    @property
    def some(self) -> Bools:
        return np.asarray((self.columns > 0) & (self.rows > 0))

    def kept(self) -> _Boxes:
        some = np.flatnonzero(self.some)
        left, top = self.left[some], self.top[some]
        corners = self.corners[:, some]
        corners[0::2] -= left
        corners[1::2] -= top
        return _Boxes(left, top, self.columns[some], self.rows[some], corners)

    def part(self, part: slice) -> _Boxes:
        return _Boxes(self.left[part], self.top[part], self.columns[part], self.rows[part], self.corners[:, part])


def _boxes(pixels: Floats, faces: Faces, side: int) -> _Boxes:
    x, y = (np.ascontiguousarray(pixels[:, k], np.float32) - np.float32(0.5) for k in range(2))
    columns = [np.ascontiguousarray(faces[:, k]) for k in range(3)]
    xs, ys = [x[column] for column in columns], [y[column] for column in columns]
    (left, right), (top, bottom) = _spans(xs, side), _spans(ys, side)
    corners = np.stack([xs[0], ys[0], xs[1], ys[1], xs[2], ys[2]])
    return _Boxes(left, top, right - left + 1, bottom - top + 1, corners)


def _spans(values: list[Floats], side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last whole number between the least and the greatest of three, within the image."""
    least = np.minimum(np.minimum(values[0], values[1]), values[2])
    most = np.maximum(np.maximum(values[0], values[1]), values[2])
    return np.ceil(least).clip(0, side).astype(np.int64), np.floor(most).clip(-1, side - 1).astype(np.int64)


def _draw(boxes: _Boxes, index: NDArray[np.int64], near: Floats, canvas: _Canvas, side: int) -> None:
    """Draw faces on the canvas where they are nearer. index : (n,) their numbers; near : (n, 3), their corners'."""
    count = boxes.columns * boxes.rows
    own = np.repeat(np.arange(len(index)), count)
    step = np.arange(len(own)) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(step, boxes.columns[own])
    ax, ay, bx, by, cx, cy = boxes.corners
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    with np.errstate(divide="ignore"):
        inverse = np.where(np.abs(area) > 1e-12, 1 / area, np.float32(np.nan)).astype(np.float32)
    # Barycentric coordinates as planes over the image: two products each instead of cross products.
    x, y = column.astype(np.float32), row.astype(np.float32)
    v = _plane((cx, cy), (ax, ay), inverse, own, (x, y))
    w = _plane((ax, ay), (bx, by), inverse, own, (x, y))
    hit = np.flatnonzero((v >= -1e-5) & (w >= -1e-5) & (v + w <= 1 + 1e-5))
    v, w, own = v[hit], w[hit], own[hit]
    pixel = (boxes.top[own] + row[hit]) * side + boxes.left[own] + column[hit]
    a, b, c = near[own].T
    depth = a + v * (b - a) + w * (c - a)
    # Of several values for one place, the last stays.
    order = np.argsort(depth, kind="stable")
    order = order[depth[order] >= canvas.near[pixel[order]]]
    where = pixel[order]
    canvas.face[where] = index[own[order]]
    canvas.near[where] = depth[order]
    canvas.weights[where] = np.stack([1 - v[order] - w[order], v[order], w[order]], axis=1)


def _plane(
    p: tuple[Floats, Floats],
    q: tuple[Floats, Floats],
    inverse: Floats,
    own: NDArray[np.int64],
    at: tuple[Floats, Floats],
) -> Floats:
    """Return cross(q - p, point - p) times `inverse`, for the faces `own` at the points."""
    dx, dy = (q[0] - p[0]) * inverse, (q[1] - p[1]) * inverse
    constant = dy * p[0] - dx * p[1]
    return np.asarray(dx[own] * at[1] - dy[own] * at[0] + constant[own], dtype=np.float32)
