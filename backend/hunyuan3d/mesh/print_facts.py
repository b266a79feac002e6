"""What whoever prints a mesh wants to know before: volume, thinnest wall, overhang, footprint, and the room it takes.

Formulas, for a mesh as it stands (world frame, Y up), scaled to its longest side in millimetres:

- volume: the sum of the tetrahedra that the faces span with a point, exact for a closed surface; None for an open one.
- thinnest wall: from points spread evenly over the surface a ray runs inwards along the face's normal to where it
  leaves the body again; the length that 2 % of them stay below. A wall that makes up less of the surface is not seen,
  and between two sides at an angle of 30 degrees it is 15 % longer than the shortest way across.
- overhang: of the surface above the first half millimetre, the share that faces down by more than 45 degrees.
- footprint: what the mesh covers seen from above, by a grid of rays, 256 along its longer side: within 1 %.

Rays are Embree's (embreex); where it is missing there is no thinnest wall, and the footprint is drawn instead. This
module knows no printer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import trimesh

from backend.hunyuan3d.mesh.ops import check_scale_mm, require_usable
from backend.hunyuan3d.mesh.rays import RayScene
from backend.hunyuan3d.mesh.sampling import spread_points
from backend.hunyuan3d.mesh.topology import Faces, Vertices, is_closed, used_bounds

THINNEST_PRINTABLE_MM = 0.8
"""Two lines of a 0.4 mm nozzle side by side."""

_RAYS = 4096
_THINNEST_SHARE = 0.02
_ON_PLATE_MM = 0.5
_STEEP = -math.cos(math.radians(45.0))
_GRID = 512
_FRACTION = 3
_RAYS_A_SIDE = 256
# Where in its cell a ray from above falls: not where the edges of a box's sides or their diagonals are.
_IN_CELL = (0.5, 0.46875)


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
    vertices, faces, (width, height, depth) = _in_millimetres(mesh, scale_mm)
    normals, areas = _normals_and_areas(vertices, faces)
    closed, scene = is_closed(faces), _scene(vertices, faces)
    if scene is None:
        footprint = _drawn_footprint(vertices, faces[normals[:, 1] > 0] if closed else faces)
    else:
        footprint = _footprint(scene, (width, height, depth))
    return PrintFacts(
        volume_cm3=_volume(vertices, faces) / 1000 if closed else None,
        thinnest_wall_mm=None if scene is None else _thinnest_wall(scene, vertices, faces, normals, areas),
        overhang_share=_overhang_share(vertices, faces, normals, areas),
        footprint_cm2=footprint / 100,
        fits_mm=(width, depth, height),
    )


def thinnest_wall(mesh: trimesh.Trimesh, scale_mm: float) -> float | None:
    """Measure what PrintFacts calls the thinnest wall alone, mm. Raises InvalidMesh, InvalidScale."""
    vertices, faces, _ = _in_millimetres(mesh, scale_mm)
    scene = _scene(vertices, faces)
    return None if scene is None else _thinnest_wall(scene, vertices, faces, *_normals_and_areas(vertices, faces))


def _in_millimetres(mesh: trimesh.Trimesh, scale_mm: float) -> tuple[Vertices, Faces, tuple[float, float, float]]:
    """Return vertices, faces and width, height and depth, its lowest corner at the origin."""
    vertices, faces = require_usable(mesh)
    low, high = used_bounds(vertices, faces)
    scale = check_scale_mm(scale_mm) / max(float((high - low).max()), 1e-300)
    width, height, depth = ((high - low) * scale).tolist()
    return (vertices - low) * scale, faces, (width, height, depth)


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
    height = np.ascontiguousarray(vertices[:, 1])
    above = np.maximum.reduce([height[faces[:, k]] for k in range(3)]) > _ON_PLATE_MM
    steep = above & (normals[:, 1] < _STEEP)
    return float(areas[steep].sum() / max(areas[above].sum(), 1e-300))


def _scene(vertices: Vertices, faces: Faces) -> RayScene | None:
    """Return the mesh for rays to be sent at, None where there is no Embree."""
    try:
        return RayScene(vertices, faces)
    except ImportError:
        return None


def _footprint(scene: RayScene, size: tuple[float, float, float]) -> float:
    """Return the area covered from above, mm²; size : of the mesh, whose lowest corner is the origin."""
    width, height, depth = size
    cell = max(width, depth, 1e-12) / _RAYS_A_SIDE
    across, along = (np.arange(math.ceil(side / cell - 1e-6)) for side in (width, depth))
    starts = np.empty((len(across), len(along), 3), np.float32)
    starts[..., 0] = ((across + _IN_CELL[0]) * cell)[:, None]
    starts[..., 1] = height * 1.01 + 1
    starts[..., 2] = (along + _IN_CELL[1]) * cell
    down = np.zeros((starts.size // 3, 3), np.float32)
    down[:, 1] = -1
    return float(np.count_nonzero(scene.stops(starts.reshape(-1, 3), down) >= 0)) * cell * cell


def _drawn_footprint(vertices: Vertices, faces: Faces) -> float:
    """Return the area covered from above, mm², by drawing faces on a grid."""
    side = max(float(np.ptp(vertices[:, [0, 2]], axis=0).max()), 1e-12)
    cell = side / _GRID
    # OpenCV takes whole numbers with some bits behind the point, and a pixel's middle for its place.
    corners = np.rint((vertices[:, [0, 2]] / cell - 0.5) * 2**_FRACTION).astype(np.int32)[faces]
    grid = np.zeros((_GRID + 1, _GRID + 1), np.uint8)
    for corner in corners:
        cv2.fillConvexPoly(grid, corner, 1, lineType=cv2.LINE_8, shift=_FRACTION)
    return float(np.count_nonzero(grid)) * cell * cell


def _thinnest_wall(
    scene: RayScene, vertices: Vertices, faces: Faces, normals: Vertices, areas: Vertices
) -> float | None:
    """Return the length in mm that 2 % of the surface is thinner than, None where no ray leaves."""
    chosen, points = spread_points(vertices, faces, areas, _RAYS)
    inwards = -normals[chosen]
    # Begun a little inside: a ray that starts on a face would end on it.
    inside = 1e-4 * float(np.ptp(vertices, axis=0).max())
    starts = (points + inside * inwards).astype(np.float32)
    distances = scene.distances(starts, inwards.astype(np.float32))
    left = np.sort(distances[np.isfinite(distances) & (distances < 1e30)])
    if not len(left):
        return None
    return float(left[int(_THINNEST_SHARE * (len(left) - 1))]) + inside
