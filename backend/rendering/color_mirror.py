"""The side that a camera aslant does not see, mirrored through the object's own plane, as a car's far doors are.

The plane is taken to be upright and to face the world's X. It counts only where the mesh is its own mirror image and
the colours of what is seen on both sides agree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from backend.hunyuan3d.mesh.topology import Vertices
from backend.rendering.camera_model import Camera
from backend.rendering.color_fill import Floats
from backend.rendering.color_layers import FLANK, Layer, Seen, visible
from backend.rendering.raster import Bools
from backend.rendering.surface_colors import sample

# Degrees from a straight front, side or back view up to which a view is not aslant.
_STRAIGHT = 12.0
# A mesh is its own mirror image where points and their images are so near, in shares of its extent.
_SYMMETRIC, _SLACK = 0.02, 0.025
_POINTS = 3000
# Colours differ by less than this, of 255, at half of the places that are seen on both sides.
_AGREE = 48.0
_LEAST_SEEN = 50


def aslant(camera: Camera) -> bool:
    """Say whether a camera sees the object neither from straight ahead nor straight from a side."""
    return _STRAIGHT < camera.azimuth % 90.0 < 90.0 - _STRAIGHT


def with_mirrored(seen: Seen, camera: Camera, window: tuple[float, float, float], image: Floats) -> Seen:
    """Return the same with the layer MIRRORED where a point is not seen, but its mirror image is.

    window : as `see` takes it. image : (n, n, 3), NEAR's. Unchanged where mesh or colours do not agree with the mirror.
    """
    low, high = seen.vertices.min(axis=0), seen.vertices.max(axis=0)
    middle, size = float(low[0] + high[0]) / 2, float((high - low).max())
    flip = np.array([-1.0, 1.0, 1.0])
    points: Vertices = seen.vertices * flip + np.array([2 * middle, 0.0, 0.0])
    if not _is_symmetric(seen.vertices, points, size):
        return seen
    side = len(seen.facing_front)
    left, top, extent = window
    pixels, near = camera.project(points)
    pixels = ((pixels - np.array([left, top], np.float32)) * np.float32(side / extent)).astype(np.float32)
    facing = np.einsum("ij,ij->i", seen.normals * flip, camera.towards(points)).astype(np.float32)
    pixel = size / max(float(np.ptp(seen.pixels, axis=0).max()), 1.0)
    shown = visible(pixels, near, facing, seen.front.near, (_SLACK * size, pixel)) & (facing > FLANK)
    if not _agrees(seen, image, np.asarray(pixels / side, np.float32), shown):
        return seen
    unseen = seen.vertex_layer >= Layer.FAR
    vertex_layer = np.where(unseen & shown, Layer.MIRRORED, seen.vertex_layer).astype(np.int8)
    whole = shown[seen.faces].all(axis=1) & (seen.face_layer >= Layer.FAR)
    face_layer = np.where(whole, Layer.MIRRORED, seen.face_layer).astype(np.int8)
    return replace(seen, vertex_layer=vertex_layer, face_layer=face_layer, mirrored=pixels)


def _is_symmetric(vertices: Vertices, mirrored: Vertices, size: float) -> bool:
    step = -(-len(vertices) // _POINTS)
    distance, _ = cKDTree(vertices[::step]).query(mirrored[:: 2 * step])
    own, _ = cKDTree(vertices[::step]).query(vertices[step // 2 :: 2 * step])
    # Points drawn twice are no nearer to each other than their spacing.
    return bool(np.mean(distance) < _SYMMETRIC * size + np.mean(own))


def _agrees(seen: Seen, image: Floats, mirrored: Floats, shown: Bools) -> bool:
    both = shown & (seen.vertex_layer == Layer.NEAR)
    if both.sum() < _LEAST_SEEN:
        return True
    own = sample(image, seen.pixels[both] / len(seen.facing_front))
    return bool(np.median(np.abs(own - sample(image, mirrored[both])).max(axis=1)) < _AGREE)
