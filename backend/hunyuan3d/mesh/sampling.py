"""Points spread evenly over a surface, the same for the same mesh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.topology import Faces, Vertices

# The steps of a sequence of low discrepancy in two dimensions. Source: Roberts, 2018.
_STEPS = (0.7548776662466927, 0.5698402909980532)


def spread_points(
    vertices: Vertices, faces: Faces, areas: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], Vertices]:
    """Return `count` faces' numbers (P,) and a point on each (P, 3); areas : of the faces, (F,)."""
    total = np.cumsum(areas)
    at = (np.arange(count) + 0.5) / count * total[-1]
    chosen = np.minimum(np.searchsorted(total, at), len(faces) - 1)
    u, v = (np.arange(1, count + 1) * step % 1 for step in _STEPS)
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    a, b, c = (vertices[faces[chosen, k]] for k in range(3))
    return chosen, a + u[:, None] * (b - a) + v[:, None] * (c - a)
