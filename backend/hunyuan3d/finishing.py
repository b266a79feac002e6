"""A field near its surface to a finished mesh, on the CPU, many at a time.

This module does not know of networks or devices: it is given a volume in main memory, or the error that took its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import trimesh
from PIL import Image
from torch import Tensor

from backend.errors import NoSurface, ServiceError
from backend.hunyuan3d.image.outline import Outline
from backend.hunyuan3d.memory_errors import named_memory_errors, without_frames
from backend.hunyuan3d.mesh.decimation import Contractor
from backend.hunyuan3d.mesh.ops import clean_mesh, count_parts, is_watertight, keep_largest, part_vertices
from backend.hunyuan3d.mesh.reduction import reduce_mesh
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult, Stopwatch
from backend.hunyuan3d.volume.marching_cubes import extract_surface
from backend.hunyuan3d.volume.sparse_volume import SparseVolume
from backend.hunyuan3d.volume.struts import find_struts, with_struts

Outcome = SparseVolume | ServiceError
Out = TypeVar("Out")


@dataclass(frozen=True, eq=False)
class PendingShape:
    """One image's field, off the device, or the error that took its place: what is left to do needs only the CPU.

    cutout, view_aligned : handed on to the ShapeResult.
    """

    outcome: Outcome
    metadata: ShapeMetadata
    cutout: Image.Image | None = None
    view_aligned: bool = False

    @property
    def error(self) -> ServiceError | None:
        """What went wrong so far."""
        return self.outcome if isinstance(self.outcome, ServiceError) else None

    def with_fallbacks(self, fallbacks: tuple[str, ...]) -> PendingShape:
        """Return the same with what was done because memory was short."""
        return replace(self, metadata=replace(self.metadata, fallbacks=fallbacks))

    def build_mesh(self) -> ShapeResult:
        """Build the cleaned mesh, with fewer faces where that was asked; or return the image's error.

        Any thread may call it. In metadata.seconds `mesh` is what this one took.
        """
        watch = Stopwatch(torch.device("cpu"))
        with watch.stage("mesh"):
            result = _mesh_or_error(self)
        return replace(result, metadata=result.metadata.after(watch))


def build_meshes(pending: Sequence[PendingShape], on_built: Callable[[int], None] | None = None) -> list[ShapeResult]:
    """Build all meshes, on as many threads as there are cores; in metadata.seconds `mesh` is what they took together.

    on_built(index) is called in order, on the caller's thread.
    """
    watch = Stopwatch(torch.device("cpu"))
    with watch.stage("mesh"):
        results = in_parallel(_mesh_or_error, pending, on_done=on_built)
    return [replace(result, metadata=result.metadata.after(watch)) for result in results]


def in_parallel(
    function: Callable[..., Out], *items: Sequence[object], on_done: Callable[[int], None] | None = None
) -> list[Out]:
    """Do as `map` does, for sequences of one length, in order, on as many threads as there are cores.

    on_done(index) is called in order, on the caller's thread; what it raises is raised, and what has not begun is left.
    """
    out: list[Out] = []
    pool = ThreadPoolExecutor(max(1, min(len(items[0]), os.cpu_count() or 1)))
    try:
        for result in pool.map(function, *items):
            out.append(result)
            if on_done is not None:
                on_done(len(out) - 1)
    finally:
        pool.shutdown(cancel_futures=True)
    return out


def draw_ball() -> trimesh.Trimesh:
    """Build a small mesh as any other, so that what is loaded and built on first use (0.1 s and more) is there."""
    axis = torch.linspace(-1, 1, 17)
    values = 0.5 - torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    return closed_mesh(SparseVolume.from_dense(values))


def closed_mesh(volume: SparseVolume) -> trimesh.Trimesh:
    """Build the closed surface, without floaters and degenerate faces. Raises NoSurface where the field has none."""
    return clean_mesh(_surface(volume))


def _surface(volume: SparseVolume) -> trimesh.Trimesh:
    vertices, faces = extract_surface(volume)
    if not inside_box(vertices, faces, volume.bounds).any():
        raise NoSurface
    return to_mesh(vertices, faces)


def _joined(mesh: trimesh.Trimesh, shape: PendingShape) -> tuple[trimesh.Trimesh, ShapeMetadata]:
    """Join the parts that hang together in the outline, where the field was made to follow one."""
    metadata, volume = shape.metadata, shape.outcome
    if metadata.outline is None or shape.cutout is None or not isinstance(volume, SparseVolume):
        return mesh, metadata
    parts = part_vertices(mesh)
    if len(parts) == 1:
        return mesh, metadata
    outline = Outline.of(shape.cutout, volume.bounds)
    struts = find_struts(parts, outline)
    if not struts:
        return mesh, metadata
    whole = closed_mesh(with_struts(volume, struts, outline))
    joined = len(parts) - count_parts(whole)
    if joined <= 0:
        return mesh, metadata
    return whole, replace(metadata, outline=replace(metadata.outline, joined=joined))


def inside_box(vertices: Tensor, faces: Tensor, bounds: float) -> Tensor:
    """Find which faces (F,) are of the field itself: the others close the surface along one of the box's walls.

    vertices : (V, 3) world; faces : (F, 3) int64; bounds : half the box's side.
    """
    on_wall = torch.cat([vertices, -vertices], dim=1) >= bounds * (1 - 1e-6)
    if not on_wall.any():
        return torch.ones(len(faces), dtype=torch.bool, device=faces.device)
    return ~on_wall[faces].all(1).any(1)


def to_mesh(vertices: Tensor, faces: Tensor) -> trimesh.Trimesh:
    """Make a mesh of vertices (V, 3) and faces (F, 3) as they are. Raises NoSurface when there are no faces."""
    if not len(faces):
        raise NoSurface
    return trimesh.Trimesh(vertices.cpu().numpy(), faces.cpu().numpy(), process=False)


def _mesh_or_error(shape: PendingShape) -> ShapeResult:
    metadata = shape.metadata
    try:
        if isinstance(shape.outcome, ServiceError):
            raise shape.outcome
        with named_memory_errors(), Contractor() as contract:
            mesh = _surface(shape.outcome)
            if metadata.target_faces is not None and len(mesh.faces) > metadata.target_faces:
                contract.expect(len(mesh.faces))
            mesh, metadata = _joined(clean_mesh(mesh), shape)
            if metadata.objects == "largest":
                mesh = keep_largest(mesh)
            found = len(mesh.faces)
            if metadata.target_faces is not None:
                mesh = reduce_mesh(mesh, metadata.target_faces, contract).mesh
    except ServiceError as e:
        return ShapeResult(None, without_frames(e), metadata, shape.cutout, shape.view_aligned)
    facts = replace(
        metadata,
        vertices=len(mesh.vertices),
        faces=len(mesh.faces),
        faces_found=found,
        parts=count_parts(mesh),
        watertight=is_watertight(mesh),
        evaluated=shape.outcome.evaluated,
    )
    return ShapeResult(mesh, None, facts, shape.cutout, shape.view_aligned)
