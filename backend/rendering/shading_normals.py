"""Normals to shade a mesh with, one for each face's corner: smooth over curves, the face's own beside edges.

In 32 bits and made to be quick: these are looked at, not kept. Does not know of light or rays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.topology import Faces

Floats = NDArray[np.float32]

# The cosine between a face's normal and its corner's smooth one, below which the face's own is taken; and from which
# on, a little higher, the smooth one.
_EDGE, _CURVE = 0.65, 0.85


def corner_normals(vertices: Floats, faces: Faces) -> Floats:
    """Return the unit normal at each face corner (F, 3, 3), 0 for faces of no area among their like.

    A vertex's smooth normal is the mean of its faces', weighted by the angle that each has there. Where it differs
    much from a face's there is an edge, not a curve: a box's sides stay flat. Source: Thuermer and Wuethrich, 1998.
    """
    flat, angles = _flat(vertices, faces)
    smooth = np.take(_unit(_gathered(flat, angles, faces, len(vertices))), faces, axis=0)
    agreement = np.einsum("fi,fki->fk", flat, smooth)
    edge = np.nonzero(agreement < _CURVE)
    share = np.clip((agreement[edge] - _EDGE) / (_CURVE - _EDGE), 0.0, 1.0)[:, None]
    smooth[edge] = _unit(share * smooth[edge] + (1.0 - share) * flat[edge[0]])
    return smooth


def _flat(vertices: Floats, faces: Faces) -> tuple[Floats, list[Floats]]:
    """Return each face's unit normal (F, 3) and the angles at its three corners, (F,) each."""
    a, b, c = (np.take(vertices, faces[:, k], axis=0) for k in range(3))
    sides = b - a, c - b, a - c
    cross = np.cross(sides[0], -sides[2])
    double_area = np.sqrt(np.einsum("fi,fi->f", cross, cross))
    angles = [np.arctan2(double_area, -np.einsum("fi,fi->f", sides[k], sides[k - 1])) for k in range(3)]
    return cross / np.maximum(double_area, 1e-30)[:, None], angles


def _gathered(flat: Floats, angles: list[Floats], faces: Faces, count: int) -> Floats:
    """Sum the faces' normals at each of `count` vertices, weighted by the angles, (count, 3)."""
    corners = np.concatenate([faces[:, k] for k in range(3)])
    sums = [
        np.bincount(corners, np.concatenate([angle * flat[:, i] for angle in angles]), minlength=count)
        for i in range(3)
    ]
    return np.stack(sums, axis=1).astype(np.float32)


def _unit(vectors: Floats) -> Floats:
    length = np.sqrt(np.einsum("ni,ni->n", vectors, vectors))
    return np.asarray(vectors / np.maximum(length, 1e-12)[:, None], dtype=np.float32)
