"""The camera that explains an image of a mesh: where it stood, and how well the mesh's silhouette then fits.

A view-aligned checkpoint's camera is known. For the others it is searched (camera_search.py). This module does not know
of colours or files.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray

from backend.hunyuan3d.image.outline import aligned_frame
from backend.hunyuan3d.mesh.ops import require_usable
from backend.rendering.camera_model import Camera
from backend.rendering.camera_search import search_camera
from backend.rendering.raster import Bools, overlap, rasterize

SCORE_SIDE = 128

_SHOWN = 0.5


def find_camera(mesh: trimesh.Trimesh, cutout_alpha: NDArray[np.uint8], view_aligned: bool) -> Camera:
    """Return the camera that explains the cut-out best, with its silhouette score.

    cutout_alpha : (S, S) uint8. view_aligned : the mesh lies as the camera saw it; then nothing is searched.
    Raises InvalidMesh for an empty or non-finite mesh.
    """
    camera = aligned_camera(cutout_alpha) if view_aligned else search_camera(mesh, cutout_alpha)
    return replace(camera, score=silhouette_score(mesh, cutout_alpha, camera))


def aligned_camera(cutout_alpha: NDArray[np.uint8]) -> Camera:
    """Return a view-aligned checkpoint's camera: along -Z, the outline's longer side 1.8 long, about the origin."""
    frame = aligned_frame(cutout_alpha)
    return Camera(scale=frame.scale, shift=frame.shift)


def silhouette_score(
    mesh: trimesh.Trimesh, cutout_alpha: NDArray[np.uint8], camera: Camera, side: int = SCORE_SIDE
) -> float:
    """Return the intersection over union, 0 to 1, of the mesh's silhouette with the cut-out's, at side x side pixels.

    Raises InvalidMesh.
    """
    return overlap(silhouette(mesh, camera, side), shown(cutout_alpha, side))


def silhouette(mesh: trimesh.Trimesh, camera: Camera, side: int = SCORE_SIDE) -> Bools:
    """Return which pixels' centres (side, side) the mesh covers. Raises InvalidMesh."""
    vertices, faces = require_usable(mesh)
    pixels, near = camera.project(vertices, side)
    return rasterize(pixels, near, faces, side).covered


def shown(alpha: NDArray[np.uint8], side: int) -> Bools:
    """Return which of side x side pixels the cut-out's alpha (S, S) covers by half or more."""
    size = (side, side)
    coarse = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA if len(alpha) >= side else cv2.INTER_LINEAR)
    return np.asarray(coarse >= _SHOWN * 255)
