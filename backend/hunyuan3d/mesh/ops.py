"""Pure functions on meshes: what is true of one, its floaters and degenerate faces removed, fewer faces, its size.

Every function returns a new mesh (or the same object, unchanged, where it says so). It does not know of models,
pictures, files, or of units other than those it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import trimesh
from numpy.typing import NDArray

from backend.errors import DecimationFailed, InvalidMesh, InvalidParameter, InvalidScale, InvalidTargetFaces
from backend.hunyuan3d.mesh import topology
from backend.hunyuan3d.mesh.decimation import contract
from backend.hunyuan3d.mesh.topology import Faces, Labels, Vertices

Point = tuple[float, float, float]
Contract = Callable[[Vertices, Faces, int, float], tuple[Vertices, Faces]]
"""What contracts edges, as decimation.contract does."""

_MIN_FACES = 4
_LEAST_KEPT = 0.9
_AGGRESSIVENESS = (7.0, 5.0, 9.0)


@dataclass(frozen=True)
class MeshFacts:
    """What is true of a mesh; lengths in the mesh's own unit.

    bounds : lowest and highest corner. components : pieces that hang together through edges. euler : V - E + F.
    genus : holes through all pieces together, and volume : only for a watertight mesh, else None.
    """

    vertices: int
    faces: int
    watertight: bool
    bounds: tuple[Point, Point]
    components: int
    euler: int
    genus: int | None
    area: float
    volume: float | None


@dataclass(frozen=True)
class CleanOptions:
    """When a piece counts as a floater: its `measure` is below `min_share` (0 to 1) of the largest piece's."""

    min_share: float = 0.01
    measure: Literal["area", "faces", "volume"] = "area"

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_share <= 1.0:
            raise InvalidParameter(f"min_share must be from 0 to 1, not {self.min_share}.")
        if self.measure not in ("area", "faces", "volume"):
            raise InvalidParameter(f"measure must be area, faces or volume, not {self.measure!r}.")


@dataclass(frozen=True)
class Decimation:
    """A decimated mesh and what was done: most faces wanted, faces before and after, and whether it is watertight."""

    mesh: trimesh.Trimesh
    target_faces: int
    faces_before: int
    faces_after: int
    watertight: bool
    changed: bool


def require_usable(mesh: trimesh.Trimesh) -> tuple[Vertices, Faces]:
    """Return the mesh's vertices (V, 3) float64 and faces (F, 3) int64.

    Raises InvalidMesh when it has no faces, a coordinate that is not finite, or a face that names a missing vertex.
    """
    vertices = np.asarray(mesh.vertices, dtype=np.float64).reshape(-1, 3)
    faces = np.asarray(mesh.faces, dtype=np.int64).reshape(-1, 3)
    if not len(faces) or not len(vertices):
        raise InvalidMesh("The mesh has no faces.")
    if not np.isfinite(vertices).all():
        raise InvalidMesh("The mesh has coordinates that are not finite.")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InvalidMesh("A face of the mesh names a vertex that does not exist.")
    return vertices, faces


def is_watertight(mesh: trimesh.Trimesh) -> bool:
    """Return whether every edge has exactly two faces, wound consistently; trimesh ignores the winding."""
    return topology.is_closed(np.asarray(mesh.faces, dtype=np.int64).reshape(-1, 3))


def mesh_facts(mesh: trimesh.Trimesh) -> MeshFacts:
    """Measure a mesh. Raises InvalidMesh for an empty or non-finite one."""
    vertices, faces = topology.drop_unused(*require_usable(mesh))
    components = int(topology.label_vertices(faces, len(vertices)).max()) + 1
    watertight = topology.is_closed(faces)
    # Of a closed surface every edge belongs to two faces, every face has three.
    edges = len(faces) * 3 // 2 if watertight else topology.count_edges(faces)
    euler = len(vertices) - edges + len(faces)
    areas, volumes = _areas_and_volumes(vertices, faces)
    low, high = (corner.tolist() for corner in topology.used_bounds(vertices, faces))
    return MeshFacts(
        vertices=len(vertices),
        faces=len(faces),
        watertight=watertight,
        bounds=((low[0], low[1], low[2]), (high[0], high[1], high[2])),
        components=components,
        euler=euler,
        genus=(2 * components - euler) // 2 if watertight else None,
        area=float(areas.sum()),
        volume=float(volumes.sum()) if watertight else None,
    )


def clean_mesh(mesh: trimesh.Trimesh, options: CleanOptions | None = None) -> trimesh.Trimesh:
    """Remove floaters, sealed hollows, degenerate and duplicate faces; a watertight mesh stays watertight.

    The largest piece always stays, and every other one that is not much smaller. A hollow that no opening leads into
    is filled: nobody sees it or what lies in it, and a slicer takes it for a part of its own. A degenerate face goes
    by drawing its shortest edge together, never by leaving a hole; if that would break a watertight mesh, it stays.
    Raises InvalidMesh for an empty or non-finite mesh, or one of degenerate faces only.
    """
    options = options or CleanOptions()
    vertices, faces = require_usable(mesh)
    watertight = topology.is_closed(faces)
    cleaned = _collapse_degenerate(vertices, faces)
    changed = not np.array_equal(cleaned[1], faces)
    if changed and watertight and len(cleaned[1]) and not topology.is_closed(cleaned[1]):
        cleaned = topology.separate_sheets(*cleaned)
        if not topology.is_closed(cleaned[1]):
            cleaned = vertices, faces
    vertices, faces = cleaned
    if not len(faces):
        raise InvalidMesh("The mesh has only degenerate faces.")
    vertices, faces = topology.drop_unused(vertices, _drop_pieces(vertices, faces, options))
    return _mesh(topology.nudge_coincident(vertices, faces), faces)


def decimate(mesh: trimesh.Trimesh, target_faces: int) -> Decimation:
    """Reduce a mesh to at most `target_faces` faces, a little fewer as a rule; a watertight mesh stays watertight.

    A mesh that already has no more faces is returned as it is. Whether it is still the same thing is for whoever asks
    (reduction.py). Raises InvalidTargetFaces below 4, InvalidMesh for an empty or non-finite mesh, DecimationFailed
    when no attempt comes to at most the target, or the process that contracts a large mesh fails (see decimation.py).
    """
    found = try_to_decimate(mesh, check_target_faces(target_faces))
    if found is None:
        raise DecimationFailed(
            f"The mesh could not be reduced to {target_faces} faces, its pieces need more; ask for more faces.",
            details={"asked": target_faces, "faces": len(mesh.faces)},
        )
    return found


def check_target_faces(target_faces: int) -> int:
    """Return the most faces. Raises InvalidTargetFaces unless it is a whole number of at least 4."""
    whole = isinstance(target_faces, int | np.integer) and not isinstance(target_faces, bool)
    if not whole or target_faces < _MIN_FACES:
        raise InvalidTargetFaces(f"The target face count must be a whole number of at least {_MIN_FACES}.")
    return target_faces


def try_to_decimate(mesh: trimesh.Trimesh, target_faces: int, contract: Contract = contract) -> Decimation | None:
    """Reduce a mesh as `decimate` does; None when no attempt comes to at most the target.

    Quadric edge contraction by fast_simplification may leave several sheets on one edge: these are taken apart, and the
    count and the watertightness that are reported are those of the mesh returned. Raises InvalidMesh, DecimationFailed.
    """
    vertices, faces = require_usable(mesh)
    was_watertight = topology.is_closed(faces)
    if len(faces) <= target_faces:
        return Decimation(mesh, target_faces, len(faces), len(faces), was_watertight, changed=False)
    best: Decimation | None = None
    for aggressiveness in _AGGRESSIVENESS:
        points, corners = _contract(vertices, faces, target_faces, aggressiveness, contract, repair=was_watertight)
        if not 0 < len(corners) <= target_faces:
            continue
        closed = topology.is_closed(corners)
        found = Decimation(_mesh(points, corners), target_faces, len(faces), len(corners), closed, changed=True)
        if (closed or not was_watertight) and len(corners) >= _LEAST_KEPT * target_faces:
            return found
        if best is None or (found.watertight, found.faces_after) > (best.watertight, best.faces_after):
            best = found
    return best


def keep_largest(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return the part of the largest volume, with the hollows in it; of an open mesh the one of the largest area.

    A mesh of one part is returned as it is. Raises InvalidMesh.
    """
    vertices, faces = require_usable(mesh)
    label, sizes = _parts(vertices, faces)
    if len(sizes) == 1:
        return mesh
    largest = int(sizes.argmax())
    keep = np.zeros(len(sizes), np.bool_)
    keep[largest] = True
    inside = vertices[faces[label == largest]].reshape(-1, 3)
    for part in np.flatnonzero(sizes < 0):
        corners = vertices[faces[label == part]].reshape(-1, 3)
        keep[part] = (corners > inside.min(axis=0)).all() and (corners < inside.max(axis=0)).all()
    return _mesh(*topology.drop_unused(vertices, faces[keep[label]]))


def count_parts(mesh: trimesh.Trimesh) -> int:
    """Count the pieces that do not touch; a hollow inside of one is none. Raises InvalidMesh."""
    _, sizes = _parts(*require_usable(mesh))
    return int((sizes > 0).sum())


def part_vertices(mesh: trimesh.Trimesh) -> list[Vertices]:
    """Return the vertices (V, 3) of each piece that does not touch another, hollows aside, the largest first.

    Raises InvalidMesh.
    """
    vertices, faces = require_usable(mesh)
    label, sizes = _parts(vertices, faces)
    order = np.argsort(-sizes, kind="stable")[: (sizes > 0).sum()]
    return [vertices[np.unique(faces[label == part])] for part in order] if len(order) > 1 else [vertices]


def scale_to_mm(mesh: trimesh.Trimesh, longest_side_mm: float) -> trimesh.Trimesh:
    """Scale a copy about the origin so that the longest side of its bounds is `longest_side_mm`.

    Raises InvalidScale unless it is finite and above zero, InvalidMesh for an empty mesh or one without extent.
    """
    check_scale_mm(longest_side_mm)
    vertices, faces = require_usable(mesh)
    used = vertices[faces]
    longest = float((used.max(axis=(0, 1)) - used.min(axis=(0, 1))).max())
    if longest <= 0:
        raise InvalidMesh("The mesh has no extent, so it cannot be scaled.")
    return _mesh(vertices * (longest_side_mm / longest), faces)


def check_scale_mm(longest_side_mm: float) -> float:
    """Return the length, in millimetres. Raises InvalidScale unless it is finite and above zero."""
    if not math.isfinite(longest_side_mm) or longest_side_mm <= 0:
        raise InvalidScale(f"The scale must be a finite number of millimetres above zero, not {longest_side_mm}.")
    return longest_side_mm


def smooth_normals(vertices: Vertices, faces: Faces) -> Vertices:
    """Return unit vertex normals (V, 3): face normals weighted by the angle each face has at the vertex.

    A vertex without a face of any area gets (0, 1, 0). Source: Thuermer and Wuethrich, 1998.
    """
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    sides = b - a, c - b, a - c
    normal = np.cross(sides[0], -sides[2])
    length = np.linalg.norm(normal, axis=1)
    normal /= np.maximum(length, 1e-300)[:, None]
    total = np.zeros_like(vertices)
    for k in range(3):
        angle = np.arctan2(length, -np.einsum("fi,fi->f", sides[k], sides[k - 1]))
        for i in range(3):
            total[:, i] += np.bincount(faces[:, k], weights=angle * normal[:, i], minlength=len(vertices))
    size = np.linalg.norm(total, axis=1)
    total[size < 1e-12] = (0.0, 1.0, 0.0)
    normals: Vertices = total / np.where(size < 1e-12, 1.0, size)[:, None]
    return normals


def _mesh(vertices: Vertices, faces: Faces) -> trimesh.Trimesh:
    return trimesh.Trimesh(vertices=vertices, faces=faces, process=False)


def _areas_and_volumes(vertices: Vertices, faces: Faces) -> tuple[Vertices, Vertices]:
    """Return each face's area and the signed volume that it spans with the middle of the bounds, (F,) each."""
    axes = [axis - (axis.min() + axis.max()) / 2 for axis in vertices.T]
    # Each axis by itself: numpy takes many times as long for short rows.
    a, b, c = ([axis[column] for axis in axes] for column in (np.ascontiguousarray(faces[:, k]) for k in range(3)))
    x, y, z = _cross([q - p for p, q in zip(a, b, strict=True)], [q - p for p, q in zip(a, c, strict=True)])
    spanned = _cross(b, c)
    volumes = a[0] * spanned[0] + a[1] * spanned[1] + a[2] * spanned[2]
    return np.sqrt(x * x + y * y + z * z) / 2, volumes / 6


def _cross(u: list[Vertices], v: list[Vertices]) -> tuple[Vertices, Vertices, Vertices]:
    """Return the cross products of vectors, given and returned axis by axis."""
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]


def _parts(vertices: Vertices, faces: Faces) -> tuple[Labels, Vertices]:
    """Return each face's part (F,), and each part's volume, negative for a hollow; areas where the mesh is open.

    Of a single part, as nearly all are, nothing is measured: its size is 1.
    """
    label = topology.label_vertices(faces, len(vertices))[faces[:, 0]]
    if (label == label[0]).all():
        return np.zeros(len(faces), np.int64), np.ones(1)
    # Vertices that no face uses have labels of their own; the others keep their order.
    label = (np.cumsum(np.bincount(label) > 0) - 1)[label]
    areas, volumes = _areas_and_volumes(vertices, faces)
    sizes = volumes if topology.is_closed(faces) else areas
    return label, np.bincount(label, weights=sizes).astype(np.float64)


def _drop_pieces(vertices: Vertices, faces: Faces, options: CleanOptions) -> Faces:
    """Drop the floaters, and of a closed surface what bounds sealed hollows and what lies in them."""
    label = topology.label_vertices(faces, len(vertices))[faces[:, 0]]
    if (label == label[0]).all():
        return faces
    _, starts, label = np.unique(label, return_index=True, return_inverse=True)
    areas, volumes = _areas_and_volumes(vertices, faces)
    weight = {"area": areas, "faces": np.ones(len(faces)), "volume": volumes}[options.measure]
    size = np.abs(np.bincount(label, weights=weight))
    keep = size >= options.min_share * size.max()
    spanned = np.bincount(label, weights=volumes)
    hollows = np.flatnonzero(spanned < 0)
    if len(hollows) and spanned.sum() > 0 and topology.is_closed(faces):
        points = vertices[faces[starts, 0]]
        for hollow in hollows:
            keep &= ~_within(points, vertices[faces[label == hollow]])
        keep[hollows] = False
    kept: Faces = faces[keep[label]]
    return kept


def _within(points: Vertices, walls: Vertices) -> NDArray[np.bool_]:
    """Find the points (P, 3) that lie in a hollow, bounded by triangles (F, 3, 3)."""
    inside: NDArray[np.bool_] = ((points > walls.min(axis=(0, 1))) & (points < walls.max(axis=(0, 1)))).all(axis=1)
    for number in np.flatnonzero(inside):
        inside[number] = abs(_winding_number(points[number], walls)) > 0.5
    return inside


def _winding_number(point: Vertices, triangles: Vertices) -> float:
    """Return how often a closed surface of triangles (F, 3, 3) goes around a point (3,) that is not on it.

    Source: Van Oosterom and Strackee, The solid angle of a plane triangle, 1983.
    """
    corners = triangles - point
    a, b, c = (corners[:, k] for k in range(3))
    la, lb, lc = (np.linalg.norm(corner, axis=1) for corner in (a, b, c))
    spanned = np.einsum("fi,fi->f", a, np.cross(b, c))
    dots = [np.einsum("fi,fi->f", u, v) * w for u, v, w in ((a, b, lc), (b, c, la), (c, a, lb))]
    return float(np.arctan2(spanned, la * lb * lc + sum(dots)).sum() / (2 * math.pi))


def _collapse_degenerate(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """Draw together edges of no length and the shortest edge of faces of no area, until none is left."""
    low, high = topology.used_bounds(vertices, faces)
    extent = float((high - low).max())
    for _ in range(4):
        pairs = _needless_edges(vertices, faces, extent)
        if not len(pairs):
            break
        label = topology.label_linked(pairs, len(vertices))
        vertices = vertices[np.unique(label, return_index=True)[1]]
        faces = topology.cancel_duplicates(label[faces])
    return topology.drop_unused(vertices, topology.cancel_duplicates(faces))


def _needless_edges(vertices: Vertices, faces: Faces, extent: float) -> Labels:
    """Find vertex pairs (n, 2) to be made one: within 1e-7 of the extent, or shortest edge of a face without area."""
    origin, end = topology.half_edges(faces)
    length = np.linalg.norm(vertices[origin] - vertices[end], axis=1).reshape(-1, 3)
    area = _areas_and_volumes(vertices, faces)[0]
    needless = length <= 1e-7 * extent
    flat = np.flatnonzero(area <= 1e-12 * extent * extent)
    needless[flat, length[flat].argmin(axis=1)] = True
    chosen = needless.reshape(-1)
    return np.stack([origin[chosen], end[chosen]], axis=1)


def _contract(
    vertices: Vertices, faces: Faces, target_faces: int, aggressiveness: float, contract: Contract, *, repair: bool
) -> tuple[Vertices, Faces]:
    """Try once: contract edges, drop what was folded flat, take shared edges apart; again if too many remain."""
    points, corners, aim = vertices, faces, target_faces
    for _ in range(4):
        aim = min(aim, len(corners))
        points, corners = contract(points, corners, aim, aggressiveness)
        corners = topology.cancel_duplicates(corners)
        if repair and len(corners) and not topology.is_closed(corners):
            points, corners = topology.separate_sheets(points, corners)
        if len(corners) <= target_faces:
            break
        aim = max(_MIN_FACES, aim - max(2, len(corners) - target_faces))
    points, corners = topology.drop_unused(points, corners)
    return (topology.nudge_coincident(points, corners) if len(corners) else points), corners
