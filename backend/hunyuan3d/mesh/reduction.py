"""Fewer faces, and still the same thing: what contraction gives is held against what it was given.

A count alone says nothing: four shards are watertight too. A reduced mesh holds when it is as closed as before, in as
many parts, within 2 % of the bounds and 10 % of the volume, and has as many holes through it; or, where tiny holes have
closed, when no point of either surface is further than 2 % of the longest side from the other. Where a count does not
hold, the next larger one is tried; of a large mesh, from one that was reduced to a little more than the largest count
before, so that all those tries take little longer than the first. This module does not know how edges are contracted.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from backend.errors import DecimationFailed
from backend.hunyuan3d.mesh.decimation import contract
from backend.hunyuan3d.mesh.ops import (
    Contract,
    Decimation,
    MeshFacts,
    check_target_faces,
    is_watertight,
    mesh_facts,
    require_usable,
    try_to_decimate,
)
from backend.hunyuan3d.mesh.sampling import spread_points

_LARGER = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
_LEFT_ALONE = 32
# From how many faces on more than one try begins with fewer, and how many those are, as a share of the largest count.
_LARGE, _MORE = 100_000, 1.25
_BOUNDS, _VOLUME, _DISTANCE = 0.02, 0.1, 0.02
_POINTS = 20_000


def reduce_mesh(mesh: trimesh.Trimesh, target_faces: int, contract: Contract = contract) -> Decimation:
    """Reduce a mesh to at most `target_faces` faces, or to the next larger count at which it is still the same thing.

    Counts up to eight times the target are tried. Where none holds, a mesh of up to 32 times as many stays as it is.
    Raises InvalidTargetFaces, InvalidMesh, DecimationFailed where none holds.
    """
    check_target_faces(target_faces)
    require_usable(mesh)
    if len(mesh.faces) <= target_faces:
        return _as_it_is(mesh, target_faces)
    # Large meshes are contracted by another process, so that this one has time to measure.
    with ThreadPoolExecutor(1, "measure") as beside:
        return _reduced(mesh, target_faces, contract, beside.submit(_Reference.of, mesh))


def _reduced(mesh: trimesh.Trimesh, target_faces: int, contract: Contract, reference: Future[_Reference]) -> Decimation:
    before = len(mesh.faces)
    begin = mesh
    for factor in _LARGER:
        if factor == _LARGER[1]:
            begin = _begin_again(mesh, target_faces, contract)
        found = try_to_decimate(begin, round(target_faces * factor), contract)
        if found is None:
            continue
        if not found.changed:
            return Decimation(mesh, target_faces, before, before, found.watertight, changed=False)
        if reference.result().holds(found.mesh):
            return Decimation(found.mesh, target_faces, before, found.faces_after, found.watertight, changed=True)
    if before <= _LEFT_ALONE * target_faces:
        return _as_it_is(mesh, target_faces)
    most = round(target_faces * _LARGER[-1])
    raise DecimationFailed(
        f"The mesh cannot be reduced to {target_faces} faces, nor to {most}, and keep its shape; ask for more.",
        details={"asked": target_faces, "faces": before},
    )


def _begin_again(mesh: trimesh.Trimesh, target_faces: int, contract: Contract) -> trimesh.Trimesh:
    """Return what further tries begin with: a large mesh with somewhat more faces than the largest count."""
    enough = round(target_faces * _LARGER[-1] * _MORE)
    if len(mesh.faces) < max(_LARGE, 2 * enough):
        return mesh
    found = try_to_decimate(mesh, enough, contract)
    return mesh if found is None or found.watertight != is_watertight(mesh) else found.mesh


def _as_it_is(mesh: trimesh.Trimesh, target_faces: int) -> Decimation:
    return Decimation(mesh, target_faces, len(mesh.faces), len(mesh.faces), is_watertight(mesh), changed=False)


@dataclass(frozen=True, eq=False)
class _Reference:
    """What a reduced mesh is held against."""

    mesh: trimesh.Trimesh
    facts: MeshFacts
    longest: float

    @classmethod
    def of(cls, mesh: trimesh.Trimesh) -> _Reference:
        """Measure a mesh."""
        facts = mesh_facts(mesh)
        return cls(mesh, facts, float(np.subtract(facts.bounds[1], facts.bounds[0]).max()))

    def holds(self, mesh: trimesh.Trimesh) -> bool:
        """Return whether another mesh is the same thing."""
        mine, other = self.facts, mesh_facts(mesh)
        if (mine.watertight, mine.components) != (other.watertight, other.components):
            return False
        if np.abs(np.subtract(mine.bounds, other.bounds)).max() > _BOUNDS * self.longest:
            return False
        if mine.volume is not None and other.volume is not None:
            if abs(other.volume - mine.volume) > _VOLUME * abs(mine.volume):
                return False
            return mine.genus == other.genus or self._is_near(mesh)
        return abs(other.area - mine.area) <= _VOLUME * mine.area

    def _is_near(self, mesh: trimesh.Trimesh) -> bool:
        """Return whether no point of either surface is far from the other."""
        theirs = _points(mesh)
        far = max(float(self._tree.query(theirs)[0].max()), float(cKDTree(theirs).query(self._tree.data)[0].max()))
        return far <= _DISTANCE * self.longest

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(_points(self.mesh))


def _points(mesh: trimesh.Trimesh) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return spread_points(vertices, faces, np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2, _POINTS)[1]
