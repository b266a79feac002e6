"""How close a mesh is to the truth: occupancy, silhouette, Chamfer distance, pieces, depth.

Plain arrays in, plain numbers out. Knows nothing of models, files or data sets. World frame: picture right +X, up +Y,
towards the viewer +Z; the box reaches from -1.01 to 1.01 on each axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

BOUNDS = 1.01
IMAGE_HALF_WIDTH = 0.9 / 0.85
STEEP_WITHIN = 3.0

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Sides = tuple[float, float, float]

# Vertices of an extracted surface lie on lattice planes, which cell centres also do at some resolutions. Moving the
# columns by less than a millionth of the box keeps them off every vertex and edge.
_NUDGE = (7.0710678e-7, 4.2426407e-7)


@dataclass(frozen=True)
class Crossings:
    """Where lines along z meet a mesh: column (K,) and row (K,) of the line, height z (K,), and turn (K,).

    turn is 1 where the face looks towards +Z, so that the inside lies below, and -1 where it looks away.
    """

    column: Indices
    row: Indices
    z: Array
    turn: Indices


def cell_centres(cells: int, bounds: float = BOUNDS) -> Array:
    """Return the centres (cells,) of equal cells of the interval from -bounds to bounds."""
    return ((np.arange(cells) + 0.5) / cells * 2 - 1) * bounds


def crossings(vertices: Array, faces: Indices, xs: Array, ys: Array) -> Crossings:
    """Find all points where the lines x = xs[column], y = ys[row] meet the faces.

    vertices : (V, 3); faces : (F, 3); xs, ys : even axes, rising, of two values or more. Faces seen edge-on count for
    nothing.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    flat = corners[:, :, :2] - np.array([xs[0], ys[0]]) - np.array(_NUDGE)
    flat /= np.array([xs[1] - xs[0], ys[1] - ys[0]])
    first = np.maximum(np.ceil(flat.min(axis=1)), 0).astype(np.int64)
    last = np.minimum(np.floor(flat.max(axis=1)), [len(xs) - 1, len(ys) - 1]).astype(np.int64)
    size = np.maximum(last - first + 1, 0)
    face, column, row = _candidates(first, size)
    a, b, c = (flat[face, k] for k in range(3))
    p = np.stack([column, row], axis=1).astype(np.float64)
    weights = np.stack([_turn(b, c, p), _turn(c, a, p), _turn(a, b, p)], axis=1)
    hit = (weights > 0).all(axis=1) | (weights < 0).all(axis=1)
    weights = weights[hit]
    z = (weights * corners[face[hit], :, 2]).sum(axis=1) / weights.sum(axis=1)
    turn = np.where(weights[:, 0] > 0, 1, -1).astype(np.int64)
    return Crossings(column[hit], row[hit], z, turn)


def occupancy(vertices: Array, faces: Indices, cells: int = 64, bounds: float = BOUNDS) -> Mask:
    """Find which cell centres (cells, cells, cells) [x, y, z] lie inside a closed mesh, wound outwards.

    A centre is inside when the faces above it that look up outnumber those that look down.
    """
    axis = cell_centres(cells, bounds)
    met = crossings(vertices, faces, axis, axis)
    count = np.zeros((cells, cells, cells + 1), np.int64)
    np.add.at(count, (met.column, met.row, np.searchsorted(axis, met.z)), met.turn)
    winding = np.cumsum(count[:, :, ::-1], axis=2)[:, :, ::-1][:, :, 1:]
    return np.asarray(winding > 0)


@dataclass(frozen=True)
class Shadow:
    """A mesh seen along z without perspective, on the front picture's pixels, top row first.

    mask : (S, S) where a face lies under the pixel's centre; span : mean distance from the first face to the last under
    those pixels, which a hollow inside or a tilt does not change; 0 without any.
    """

    mask: Mask
    span: float


def cast_shadow(vertices: Array, faces: Indices, size: int, half_width: float = IMAGE_HALF_WIDTH) -> Shadow:
    """Return the shadow on a picture of size x size pixels whose half side is half_width in world units."""
    axis = cell_centres(size, half_width)
    met = crossings(vertices, faces, axis, axis)
    first, last = np.full((size, size), np.inf), np.full((size, size), -np.inf)
    pixel = (size - 1 - met.row, met.column)
    np.minimum.at(first, pixel, met.z)
    np.maximum.at(last, pixel, met.z)
    mask = last >= first
    return Shadow(mask, float((last - first)[mask].mean()) if mask.any() else 0.0)


def mean_span(inside: Mask, bounds: float = BOUNDS) -> float:
    """Return the same mean span, in world units, of an occupancy grid (n, n, n) [x, y, z] that is not empty."""
    cells = inside.shape[2]
    first, last = inside.argmax(axis=2), cells - 1 - inside[:, :, ::-1].argmax(axis=2)
    return float((last - first + 1)[inside.any(axis=2)].mean() * 2 * bounds / cells)


def round_span(mask: Mask, half_width: float) -> float:
    """Return the mean span, in world units, of what is round about an axis and has this silhouette (S, S), not empty.

    Each row is a disc as wide as the row is long, of mean span pi/4 of that; the same for columns; the smaller of the
    two, since a thing is turned about its longer axis.
    """
    pixel = 2 * half_width / len(mask)
    columns, rows = (mask.sum(axis=axis).astype(np.float64) for axis in (0, 1))
    discs = [float((widths * widths).sum() / widths.sum()) for widths in (columns, rows)]
    return min(discs) * pixel * math.pi / 4


def iou(found: Mask, truth: Mask) -> float:
    """Return the intersection over union of two masks of one shape; 1 when both are empty."""
    if found.shape != truth.shape:
        raise ValueError(f"masks of different shapes {found.shape} and {truth.shape} cannot be compared")
    union = int(np.count_nonzero(found | truth))
    return int(np.count_nonzero(found & truth)) / union if union else 1.0


def surface_points(vertices: Array, faces: Indices, count: int, rng: np.random.Generator) -> Array:
    """Draw points (count, 3) of the mesh's surface, uniform by area."""
    a, b, c = (np.asarray(vertices, np.float64)[faces[:, k]] for k in range(3))
    total = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    chosen = np.searchsorted(total, rng.random(count) * total[-1], side="right")
    u, v = rng.random((2, count, 1))
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    a, b, c = a[chosen], b[chosen], c[chosen]
    return np.asarray(a + u * (b - a) + v * (c - a))


def chamfer(found: Array, truth: Array) -> float:
    """Return the symmetric Chamfer distance of point sets (P, 3) and (Q, 3), in the points' unit.

    The mean of two means: of each found point's distance to the nearest true one, and of each true point's distance to
    the nearest found one. Distances are not squared.
    """
    there = cKDTree(truth).query(found)[0].mean()
    back = cKDTree(found).query(truth)[0].mean()
    return float(there + back) / 2


def steep_share(normals: Array, weights: Array | None = None) -> float:
    """Return the share of a surface that stands within STEEP_WITHIN degrees of the viewing direction, 0 to 1.

    normals : (P, 3) unit vectors. weights : (P,) areas; all alike when None.
    """
    steep = np.abs(normals[:, 2]) < math.sin(math.radians(STEEP_WITHIN))
    return float(np.average(steep, weights=weights))


def extent(vertices: Array) -> Sides:
    """Return the sides of the axis-aligned box around points (V, 3)."""
    x, y, z = np.ptp(np.asarray(vertices, np.float64), axis=0)
    return float(x), float(y), float(z)


def depth_ratio(sides: Sides) -> float:
    """Return the depth over the larger side of the silhouette: about 1 for a ball, near 0 for a slab."""
    return sides[2] / max(sides[0], sides[1])


def _turn(a: Array, b: Array, p: Array) -> Array:
    """Return twice the signed area (K,) of the triangles a, b, p in the plane; positive when they turn left."""
    along, towards = b - a, p - a
    return np.asarray(along[:, 0] * towards[:, 1] - along[:, 1] * towards[:, 0])


def _candidates(first: Indices, size: Indices) -> tuple[Indices, Indices, Indices]:
    """Return every face with every line inside its bounding rectangle: face (K,), column (K,), row (K,)."""
    count = size[:, 0] * size[:, 1]
    face = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    height = size[face, 1]
    return face, first[face, 0] + offset // height, first[face, 1] + offset % height
