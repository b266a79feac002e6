"""What whoever prints a mesh wants to know before: volume, thinnest wall, overhang, footprint, and the room it takes.

Formulas, for a mesh as it stands (world frame, Y up), scaled to its longest side in millimetres:

- volume: the sum of the tetrahedra that the faces span with a point, exact for a closed surface; None for an open one.
- thinnest wall: from points spread evenly over the surface a ray runs inwards along the face's normal to where it
  leaves the body again; the length that 2 % of them stay below. A wall that makes up less of the surface is not seen,
  and between two sides at an angle of 30 degrees it is 15 % longer than the shortest way across.
- overhang: of the surface above the first half millimetre, the share that faces down by more than 45 degrees.
- footprint: what the mesh covers seen from above, on a grid of 512 cells along its longer side: within 1 %.

Rays are Embree's (embreex); where it is missing there is no thinnest wall. This module knows no printer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import trimesh

from backend.hunyuan3d.mesh.ops import check_scale_mm, require_usable
from backend.hunyuan3d.mesh.sampling import spread_points
from backend.hunyuan3d.mesh.topology import Faces, Vertices, is_closed

THINNEST_PRINTABLE_MM = 0.8
"""Two lines of a 0.4 mm nozzle side by side."""

_RAYS = 4096
_THINNEST_SHARE = 0.02
_ON_PLATE_MM = 0.5
_STEEP = -math.cos(math.radians(45.0))
_GRID = 512
_FRACTION = 3


@dataclass(frozen=True)
class PrintFacts:
    """What is true of a mesh at its size.

    thinnest_wall_mm, volume_cm3 : None where unknown. overhang_share : 0 to 1. fits_mm : width, depth and height.
    """

    volume_cm3: float | None
    thinnest_wall_mm: float | None
    overhang_share: float
    footprint_cm2: float
    fits_mm: tuple[float, float, float]

    @property
    def thin_walls(self) -> bool:
        """Whether walls are thinner than a usual nozzle can print."""
        return self.thinnest_wall_mm is not None and self.thinnest_wall_mm < THINNEST_PRINTABLE_MM


def print_facts(mesh: trimesh.Trimesh, scale_mm: float) -> PrintFacts:
    """Measure a mesh as it stands, its longest side `scale_mm` long. Raises InvalidMesh, InvalidScale."""
    vertices, faces = require_usable(mesh)
    low, high = vertices[faces].min(axis=(0, 1)), vertices[faces].max(axis=(0, 1))
    vertices = (vertices - low) * (check_scale_mm(scale_mm) / max(float((high - low).max()), 1e-300))
    width, height, depth = vertices[faces].max(axis=(0, 1)).tolist()
    normals, areas = _normals_and_areas(vertices, faces)
    return PrintFacts(
        volume_cm3=_volume(vertices, faces) / 1000 if is_closed(faces) else None,
        thinnest_wall_mm=_thinnest_wall(vertices, faces, normals, areas),
        overhang_share=_overhang_share(vertices, faces, normals, areas),
        footprint_cm2=_footprint(vertices, faces, normals) / 100,
        fits_mm=(width, depth, height),
    )


def _normals_and_areas(vertices: Vertices, faces: Faces) -> tuple[Vertices, Vertices]:
    """Return unit normals (F, 3), zero for a face without area, and areas (F,)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1)
    return normals / np.maximum(length, 1e-300)[:, None], length / 2


def _volume(vertices: Vertices, faces: Faces) -> float:
    a, b, c = (vertices[faces[:, k]] - vertices.mean(axis=0) for k in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def _overhang_share(vertices: Vertices, faces: Faces, normals: Vertices, areas: Vertices) -> float:
    above = vertices[faces][:, :, 1].max(axis=1) > _ON_PLATE_MM
    steep = above & (normals[:, 1] < _STEEP)
    return float(areas[steep].sum() / max(areas[above].sum(), 1e-300))


def _footprint(vertices: Vertices, faces: Faces, normals: Vertices) -> float:
    """Return the area covered from above, mm²: what faces up is drawn on a grid, for a closed surface that is all."""
    side = max(float(np.ptp(vertices[:, [0, 2]], axis=0).max()), 1e-12)
    cell = side / _GRID
    ups = faces[normals[:, 1] > 0] if is_closed(faces) else faces
    # OpenCV takes whole numbers with some bits behind the point, and a pixel's middle for its place.
    corners = np.rint((vertices[:, [0, 2]] / cell - 0.5) * 2**_FRACTION).astype(np.int32)[ups]
    grid = np.zeros((_GRID + 1, _GRID + 1), np.uint8)
    for corner in corners:
        cv2.fillConvexPoly(grid, corner, 1, lineType=cv2.LINE_8, shift=_FRACTION)
    return float(np.count_nonzero(grid)) * cell * cell


def _thinnest_wall(vertices: Vertices, faces: Faces, normals: Vertices, areas: Vertices) -> float | None:
    """Return the length in mm that 2 % of the surface is thinner than, None without Embree or where no ray leaves."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        return None
    scene = EmbreeScene()
    TriangleMesh(scene, vertices.astype(np.float32), faces.astype(np.int32))
    chosen, points = spread_points(vertices, faces, areas, _RAYS)
    inwards = -normals[chosen]
    # Begun a little inside: a ray that starts on a face would end on it.
    inside = 1e-4 * float(np.ptp(vertices, axis=0).max())
    starts = (points + inside * inwards).astype(np.float32)
    distances = scene.run(starts, inwards.astype(np.float32), query="DISTANCE")
    left = np.sort(distances[np.isfinite(distances) & (distances < 1e30)])
    if not len(left):
        return None
    return float(left[int(_THINNEST_SHARE * (len(left) - 1))]) + inside
