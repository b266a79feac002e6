"""A camera: where it stands, and where the points of a mesh fall in its image.

Knows nothing of meshes, colours or files. World frame: Y up; azimuth 0 looks along -Z, and grows as the camera goes
towards +X.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.hunyuan3d.mesh.topology import Vertices
from backend.rendering.raster import Floats

DOUBTFUL_BELOW = 0.8


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
        """Return where points (N, 3) fall, and how near they are.

        The first is (N, 2), from the upper left corner of an image of `side` pixels; the nearness (N,) is the height
        towards the camera above the centre, in world units.
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
