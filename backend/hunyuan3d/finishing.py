"""A field near its surface to a finished mesh, on the CPU, many at a time.

Knows nothing of networks: what it is given is a volume, or the error that took its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch
import trimesh
from torch import Tensor

from backend.errors import NoSurface, ServiceError
from backend.hunyuan3d.mesh_ops import clean_mesh, decimate, is_watertight
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
from backend.hunyuan3d.sparse_volume import SparseVolume
from backend.hunyuan3d.surface import extract_surface

Outcome = SparseVolume | ServiceError
Out = TypeVar("Out")


def in_parallel(function: Callable[..., Out], *items: Sequence[object]) -> list[Out]:
    """As `map`, for sequences of one length, in order, on as many threads as there are cores."""
    if len(items[0]) < 2:
        return [function(*arguments) for arguments in zip(*items, strict=True)]
    with ThreadPoolExecutor(min(len(items[0]), os.cpu_count() or 1)) as pool:
        return list(pool.map(function, *items))


def raw_result(outcome: Outcome, metadata: ShapeMetadata) -> ShapeResult:
    """The surface as extracted, open where the field is positive at the box's wall; or the image's error."""

    def extract(volume: SparseVolume) -> trimesh.Trimesh:
        vertices, faces = extract_surface(volume)
        used, numbers = torch.unique(faces[inside_box(vertices, faces, volume.bounds)], return_inverse=True)
        return to_mesh(vertices[used], numbers)

    return _result(outcome, metadata, extract)


def finished_result(outcome: Outcome, metadata: ShapeMetadata) -> ShapeResult:
    """The surface closed, without floaters and degenerate faces, with fewer faces where metadata asks; or an error."""

    def finish(volume: SparseVolume) -> trimesh.Trimesh:
        vertices, faces = extract_surface(volume)
        if not inside_box(vertices, faces, volume.bounds).any():
            raise NoSurface
        mesh = clean_mesh(to_mesh(vertices, faces))
        return mesh if metadata.target_faces is None else decimate(mesh, metadata.target_faces).mesh

    return _result(outcome, metadata, finish)


def inside_box(vertices: Tensor, faces: Tensor, bounds: float) -> Tensor:
    """Which faces (F,) are of the field itself: the others close the surface along one of the box's walls.

    vertices : (V, 3) world; faces : (F, 3) int64; bounds : half the box's side.
    """
    on_wall = torch.cat([vertices, -vertices], dim=1) >= bounds * (1 - 1e-6)
    return ~on_wall[faces].all(1).any(1)


def to_mesh(vertices: Tensor, faces: Tensor) -> trimesh.Trimesh:
    """vertices (V, 3) and faces (F, 3) as they are. Raises NoSurface when there are no faces."""
    if not len(faces):
        raise NoSurface
    return trimesh.Trimesh(vertices.cpu().numpy(), faces.cpu().numpy(), process=False)


def _result(
    outcome: Outcome, metadata: ShapeMetadata, to_finished: Callable[[SparseVolume], trimesh.Trimesh]
) -> ShapeResult:
    try:
        if isinstance(outcome, ServiceError):
            raise outcome
        mesh = to_finished(outcome)
    except ServiceError as e:
        return ShapeResult(None, e, metadata)
    facts = replace(
        metadata,
        vertices=len(mesh.vertices),
        faces=len(mesh.faces),
        watertight=is_watertight(mesh),
        evaluated=outcome.evaluated,
    )
    return ShapeResult(mesh, None, facts)
