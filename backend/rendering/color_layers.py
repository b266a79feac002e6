"""Which part of a mesh shows which layer of its colours: what the camera sees, flanks, the far side, and the hidden.

Knows nothing of colours or images.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.ops import require_usable
from backend.hunyuan3d.mesh.topology import Faces, Vertices
from backend.rendering.camera_model import Camera
from backend.rendering.color_fill import Floats
from backend.rendering.raster import Bools, Raster, rasterize

# Cosines between a surface and the view: up to FLANK it is a flank, from SHEER on it shows the image alone.
FLANK, SHEER = 0.08, 0.3
# What lies so much behind what the camera sees, in shares of the mesh's extent, is hidden.
_HIDDEN = 0.012


class Layer(IntEnum):
    """The layers; HIDDEN_NEAR looks towards the camera, HIDDEN_FAR away from it.

    MIRRORED shows NEAR's image at the place of the mirrored point.
    """

    NEAR = 0
    FLANK = 1
    FAR = 2
    HIDDEN_NEAR = 3
    HIDDEN_FAR = 4
    MIRRORED = 5


@dataclass(frozen=True, eq=False)
class Seen:
    """A mesh as a camera sees it, in an image of side x side pixels that holds all of it.

    vertices (V, 3), faces (F, 3) : the mesh's own. pixels : (V, 2), near : (V,), facing : (V,) the cosine between
    normal and view. normals : (V, 3). vertex_layer : (V,), face_layer : (F,) int8. front, back : what a ray meets
    first and last. facing_front, facing_back : (side, side), the cosine there, 0 where there is nothing. mirrored :
    (V, 2), as pixels, of the points mirrored through the object's plane; None where that was not asked.
    """

    vertices: Vertices
    faces: Faces
    pixels: Floats
    near: Floats
    facing: Floats
    normals: Floats
    vertex_layer: NDArray[np.int8]
    face_layer: NDArray[np.int8]
    front: Raster
    back: Raster
    facing_front: Floats
    facing_back: Floats
    mirrored: Floats | None = None


def see(mesh: trimesh.Trimesh, camera: Camera, window: tuple[float, float, float], side: int) -> Seen:
    """Look at a mesh through a square window: left, top and side in shares of the camera's image.

    Raises InvalidMesh.
    """
    vertices, faces = require_usable(mesh)
    left, top, extent = window
    pixels, near = camera.project(vertices)
    pixels = ((pixels - np.array([left, top], np.float32)) * np.float32(side / extent)).astype(np.float32)
    normals, face_facing = _normals(vertices, faces, camera)
    facing = np.einsum("ij,ij->i", normals, camera.towards(vertices)).astype(np.float32)
    front = rasterize(pixels, near, faces, side, face_facing > 0)
    back = rasterize(pixels, -near, faces, side, face_facing < 0)
    size = extent_of(vertices)
    pixel = size / max(extent_of(pixels), 1.0)
    shown = visible(pixels, near, facing, front.near, (_HIDDEN * size, pixel))
    reached = visible(pixels, -near, -facing, back.near, (_HIDDEN * size, pixel))
    vertex_layer = _layers(facing, shown, reached)
    own = np.asarray((face_facing + _over_corners(facing, faces) / 3) / 2, np.float32)
    face_layer = _layers(own, _over_corners(shown, faces) >= 2, _over_corners(reached, faces) >= 2)
    facing_front, facing_back = front.of_corners(facing, faces), -back.of_corners(facing, faces)
    return Seen(
        vertices, faces, pixels, near, facing, normals, vertex_layer, face_layer, front, back, facing_front, facing_back
    )


def extent_of(points: NDArray[np.floating[Any]]) -> float:
    """Return the longest side of the bounds of points (N, k)."""
    # Each axis by itself: numpy takes many times as long for all at once.
    return max(float(np.ptp(axis)) for axis in points.T)


def _over_corners(values: NDArray[Any], faces: Faces) -> Floats:
    """Sum values (V,) over each face's corners, (F,)."""
    return np.asarray(sum(values[faces[:, k]].astype(np.float32) for k in range(3)), np.float32)


def _normals(vertices: Vertices, faces: Faces, camera: Camera) -> tuple[Floats, Floats]:
    """Return the vertices' normals (V, 3), weighted by area, and each face's cosine to the view (F,)."""
    points = np.ascontiguousarray(vertices.T, np.float32)
    corners = [np.ascontiguousarray(faces[:, k]) for k in range(3)]
    a, b, c = (points[:, corner] for corner in corners)
    (ux, uy, uz), (vx, vy, vz) = b - a, c - a
    normal = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    length = np.maximum(np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2), 1e-20)
    towards = np.asarray(camera.towards(((a + b + c) / 3).T), np.float32).T
    facing = (normal[0] * towards[0] + normal[1] * towards[1] + normal[2] * towards[2]) / length
    total = np.stack(
        [sum(np.bincount(corner, part, points.shape[1]) for corner in corners) for part in normal], axis=1
    ).astype(np.float32)
    total /= np.maximum(np.sqrt(np.einsum("ij,ij->i", total, total)), 1e-20)[:, None]
    return total, np.asarray(facing, dtype=np.float32)


def visible(pixels: Floats, near: Floats, facing: Floats, nearest: Floats, tolerance: tuple[float, float]) -> Bools:
    """Return which points (V,) nothing hides.

    nearest : (side, side), how near the surface is. tolerance : the depth that is no difference, and a pixel's width.
    A steep surface may hide behind the edge of its own pixel: for it, the deepest of the pixels around counts.
    """
    side = len(nearest)
    column, row = np.floor(pixels).astype(np.int64).clip(0, side - 1).T
    around = cv2.erode(np.maximum(nearest, np.float32(-1e9)), np.ones((3, 3), np.uint8))
    slack, pixel = tolerance
    slope = np.sqrt(np.maximum(1 - facing**2, 0)) / np.maximum(np.abs(facing), 0.15)
    margin = slack + 1.5 * pixel * slope
    limit = np.where(np.abs(facing) < SHEER, around[row, column], nearest[row, column])
    return np.asarray(near >= limit - margin)


def _layers(facing: Floats, shown: Bools, reached: Bools) -> NDArray[np.int8]:
    layer = np.where(facing >= 0, Layer.HIDDEN_NEAR, Layer.HIDDEN_FAR).astype(np.int8)
    layer[shown & (facing > FLANK)] = Layer.NEAR
    layer[reached & (facing < -FLANK)] = Layer.FAR
    layer[(shown | reached) & (np.abs(facing) <= FLANK)] = Layer.FLANK
    return layer
