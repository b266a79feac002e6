"""A distance grid and what is read from it: distances, gradients, surface points, extents.

Knows nothing of parts or pictures. World points w and grid points g agree up to a small correction measured after the
grid was filled: w = scale * (g - centre). Distances in here are negative inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.shapes.sdf import TRUNCATION, Array, Matrix

BOUNDS = 1.01
CELLS = 64


def axis_of(cells: int) -> Array:
    """Return the cell centres (cells,) of the interval ±BOUNDS."""
    return (((np.arange(cells) + 0.5) / cells * 2 - 1) * BOUNDS).astype(np.float32)


def extents(values: Array, axis: Array) -> tuple[Matrix, Matrix]:
    """Return the solid's lower and upper corners, finer than a cell: where an axis's least distance changes its sign.

    Raises ValueError if nothing is inside.
    """
    low, high = np.empty(3), np.empty(3)
    over_z = values.min(2)
    for i, least in enumerate((over_z.min(1), over_z.min(0), values.min(1).min(0))):
        inside = np.flatnonzero(least < 0)
        if not len(inside):
            raise ValueError("the solid is empty")
        low[i] = _crossing(least, axis, int(inside[0]), -1)
        high[i] = _crossing(least, axis, int(inside[-1]), 1)
    return low, high


def _crossing(least: Array, axis: Array, inner: int, step: int) -> float:
    outer = inner + step
    if not 0 <= outer < len(axis):
        return float(axis[inner])
    share = least[inner] / (least[inner] - least[outer])
    return float(axis[inner] + share * (axis[outer] - axis[inner]))


@dataclass(frozen=True)
class DistanceField:
    """values (n,n,n) float32 and, interleaved, table (n,n,n,4) of distance and gradient; grid axis (n,)."""

    values: Array
    table: Array
    axis: Array
    scale: float
    centre: Matrix

    @property
    def cell(self) -> float:
        """Side of a grid cell in world units."""
        return float(self.axis[1] - self.axis[0]) * self.scale

    def to_grid(self, points: Array) -> Array:
        """Turn world points into grid points."""
        return points * np.float32(1 / self.scale) + self.centre.astype(np.float32)

    def lookup(self, points: Array) -> Array:
        """Return (Q,4) at world points (Q,3): distance, negative inside, and its gradient, interpolated trilinearly."""
        n = len(self.axis)
        step = self.axis[1] - self.axis[0]
        u = (self.to_grid(points) - self.axis[0]) * (1 / step)
        np.clip(u, 0, n - 1.001, out=u)
        corner = u.astype(np.int32)
        f = u - corner
        base = (corner[:, 0] * n + corner[:, 1]) * n + corner[:, 2]
        flat = self.table.reshape(-1, 4)
        fx, fy, fz = (f[:, i : i + 1] for i in range(3))
        columns = []
        for offset in (0, n, n * n, n * n + n):
            first = flat[base + offset]
            columns.append(first + (flat[base + (offset + 1)] - first) * fz)
        left = columns[0] + (columns[1] - columns[0]) * fy
        right = columns[2] + (columns[3] - columns[2]) * fy
        out = left + (right - left) * fx
        out[:, 0] *= self.scale
        return np.asarray(out, np.float32)

    def surface(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw points (count,3) on the surface, uniform by area, and outward unit normals (count,3).

        Points uniform in a thin shell of constant thickness are uniform by area once they are moved along the normal.
        """
        shell = 0.4 * self.cell / self.scale
        cells = np.flatnonzero(np.abs(self.values).ravel() < shell + 0.87 * self.cell / self.scale)
        n = len(self.axis)
        step = self.axis[1] - self.axis[0]
        found: list[Array] = []
        have = 0
        while have < 1.03 * count:
            pick = cells[rng.integers(0, len(cells), max(int(2.9 * (count - have)) + 400, 200))]
            grid = np.stack([pick // (n * n), pick // n % n, pick % n], 1).astype(np.float32)
            grid += rng.random(grid.shape, np.float32) - np.float32(0.5)
            points = ((grid * step + self.axis[0]) - self.centre.astype(np.float32)) * np.float32(self.scale)
            here = self.lookup(points)
            keep = np.abs(here[:, 0]) < shell * self.scale
            found.append(self._project(points[keep], here[keep]))
            have += int(keep.sum())
        points = np.concatenate(found)
        for _ in range(2):
            points = self._project(points, self.lookup(points))
        here = self.lookup(points)
        # In sharp creases the step overshoots; the few points left off the surface give way to the surplus.
        best = np.argsort(np.abs(here[:, 0]) > 0.004, kind="stable")[:count]
        return points[best], unit(here[best, 1:])

    @staticmethod
    def _project(points: Array, here: Array) -> Array:
        """Take one Newton step on to the surface, at most the distance itself long."""
        slope = here[:, 1:]
        power = np.maximum((slope * slope).sum(1), 0.5)
        out: Array = points - slope * (here[:, 0] / power)[:, None]
        return out

    def occupancy(self) -> Array:
        """Resample distances to the world's own grid of the same resolution, for exact occupancy."""
        weights = [interpolation(self.to_grid(np.repeat(self.axis[:, None], 3, 1))[:, i], self.axis) for i in range(3)]
        out = np.einsum("ai,ijk->ajk", weights[0], self.values, optimize=True)
        out = np.einsum("bj,ajk->abk", weights[1], out, optimize=True)
        return np.asarray(np.einsum("ck,abk->abc", weights[2], out, optimize=True), np.float32)


def unit(vectors: Array) -> Array:
    """Scale vectors (Q,3) to length one."""
    out: Array = vectors / np.maximum(np.sqrt((vectors * vectors).sum(1, keepdims=True)), np.float32(1e-6))
    return out


def interpolation(points: Array, axis: Array) -> Array:
    """Return the matrix (Q,n) that interpolates values given on an even axis (n,) linearly at the points."""
    n = len(axis)
    u = np.clip((points - axis[0]) / (axis[1] - axis[0]), 0, n - 1.001)
    k = u.astype(np.int64)
    out = np.zeros((len(points), n), np.float32)
    rows = np.arange(len(points))
    out[rows, k] = 1 - (u - k)
    out[rows, k + 1] = u - k
    return out


def build_field(values: Array, axis: Array) -> DistanceField:
    """Make values a true distance near the surface (divide by the gradient's length) and measure the correction."""
    gain = np.float32(0.5 / (axis[1] - axis[0]))
    table = np.zeros((*values.shape, 4), np.float32)
    gx, gy, gz = table[..., 1], table[..., 2], table[..., 3]
    np.subtract(values[2:], values[:-2], out=gx[1:-1])
    np.subtract(values[:, 2:], values[:, :-2], out=gy[:, 1:-1])
    np.subtract(values[:, :, 2:], values[:, :, :-2], out=gz[:, :, 1:-1])
    table[..., 1:] *= gain
    length = np.sqrt(np.einsum("...i,...i->...", table, table))
    # Kinks (medial sheets, creases) have short averaged gradients although distances there are right: hence the floor.
    values = np.clip(values / np.maximum(length, np.float32(0.85)), -TRUNCATION, TRUNCATION)
    table[..., 0] = values
    low, high = extents(values, axis)
    size = high - low
    scale = 1.8 / float(max(size[0], size[1]))
    return DistanceField(values, table, axis, scale, (low + high) / 2)
