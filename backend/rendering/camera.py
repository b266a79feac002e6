"""The camera that explains an image of a mesh: where it stood, and how well the mesh's silhouette then fits.

A view-aligned checkpoint's camera is known. For the others it is searched (camera_search.py). This module does not know
of colours or files. World frame: Y up; azimuth 0 looks along -Z, and grows as the camera goes towards +X.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.ops import require_usable
from backend.hunyuan3d.mesh.topology import Vertices
from backend.rendering.raster import Bools, Floats, rasterize

DOUBTFUL_BELOW = 0.8
SCORE_SIDE = 128

# A view-aligned checkpoint was trained on shapes whose outline's longer side is so long.
_ALIGNED_SPAN = 1.8
_SHOWN = 0.5


@dataclass(frozen=True)
class Camera:
    """Where an image of a mesh was taken from, and how the mesh falls into it.

    azimuth, elevation : degrees, of the direction from the mesh to the camera. field_of_view : degrees that a ball of
    `radius` about `centre` fills; 0 is orthographic. scale : half the image's sides to a radius, at the centre's
    distance. shift : where the centre falls, in half sides right of and above the image's middle. score : intersection
    over union of the mesh's silhouette with the image's, 0 to 1; NaN where nobody measured it.
    """

    azimuth: float = 0.0
    elevation: float = 0.0
    field_of_view: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius: float = 1.0
    score: float = math.nan

    def axes(self) -> NDArray[np.float64]:
        """Return as rows (3, 3) the image's right, its up, and the direction to the camera, in world coordinates."""
        a, e = math.radians(self.azimuth), math.radians(self.elevation)
        right = (math.cos(a), 0.0, -math.sin(a))
        up = (-math.sin(a) * math.sin(e), math.cos(e), -math.cos(a) * math.sin(e))
        back = (math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e))
        return np.array([right, up, back])

    @property
    def distance(self) -> float:
        """How far from the centre the camera stands, in radii; infinite when orthographic."""
        return 1.0 / math.sin(math.radians(self.field_of_view) / 2) if self.field_of_view else math.inf

    def project(self, points: Vertices, side: float = 1.0) -> tuple[Floats, Floats]:
        """Return where points (N, 3) fall in an image of `side` pixels, (N, 2) from its upper left corner, and how near.

        The nearness (N,) is the height towards the camera above the centre, in world units.
        """
        right, up, back = ((np.asarray(points) - self.centre) @ self.axes().T / self.radius).T
        closer = self.scale if math.isinf(self.distance) else self.scale * self.distance / (self.distance - back)
        x, y = right * closer + self.shift[0], up * closer + self.shift[1]
        pixels = np.stack([(x + 1) * (side / 2), (1 - y) * (side / 2)], axis=1)
        return pixels.astype(np.float32), (back * self.radius).astype(np.float32)

    def towards(self, points: Vertices) -> Vertices:
        """Return the unit direction (N, 3) from each point to the camera."""
        back = self.axes()[2]
        if math.isinf(self.distance):
            return np.broadcast_to(back, np.shape(points))
        away: Vertices = np.asarray(self.centre) + back * (self.distance * self.radius) - points
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        return away

    @property
    def doubtful(self) -> bool:
        """Whether the silhouettes agree too little to trust the camera."""
        return not self.score >= DOUBTFUL_BELOW

    def facts(self) -> dict[str, float | str | bool]:
        """Return what metadata says of the camera."""
        return {
            "azimuth": round(self.azimuth, 1),
            "elevation": round(self.elevation, 1),
            "projection": "perspective" if self.field_of_view else "orthographic",
            "field_of_view": round(self.field_of_view, 1),
            "silhouette_iou": round(self.score, 3),
            "doubtful": self.doubtful,
        }


def find_camera(mesh: trimesh.Trimesh, cutout_alpha: NDArray[np.uint8], view_aligned: bool) -> Camera:
    """Return the camera that explains the cut-out best, with its silhouette score.

    cutout_alpha : (S, S) uint8. view_aligned : the mesh lies as the camera saw it; then nothing is searched.
    Raises InvalidMesh for an empty or non-finite mesh.
    """
    from backend.rendering.camera_search import search_camera

    camera = aligned_camera(cutout_alpha) if view_aligned else search_camera(mesh, cutout_alpha)
    return replace(camera, score=silhouette_score(mesh, cutout_alpha, camera))


def aligned_camera(cutout_alpha: NDArray[np.uint8]) -> Camera:
    """Return the camera of a view-aligned checkpoint: along -Z, the outline's longer side 1.8 long, about the origin."""
    rows, columns = np.flatnonzero(cutout_alpha.any(axis=1)), np.flatnonzero(cutout_alpha.any(axis=0))
    if not rows.size:
        return Camera()
    (top, bottom), (left, right) = ((float(line[0]), float(line[-1] + 1)) for line in (rows, columns))
    half = len(cutout_alpha) / 2
    span = max(bottom - top, right - left) / half
    middle = (left + right) / 2 / half - 1, 1 - (top + bottom) / 2 / half
    return Camera(scale=span / _ALIGNED_SPAN, shift=middle)


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


def overlap(a: Bools, b: Bools) -> float:
    """Return the intersection over union of two masks; 0 when both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0
