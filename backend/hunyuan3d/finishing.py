"""A field near its surface to a finished mesh, on the CPU, many at a time.

Knows nothing of networks or devices: what it is given is a volume in main memory, or the error that took its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import trimesh
from torch import Tensor

from backend.errors import NoSurface, ServiceError
from backend.hunyuan3d.memory_errors import named_memory_errors, without_frames
from backend.hunyuan3d.mesh.ops import clean_mesh, decimate, is_watertight
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult, Stopwatch
from backend.hunyuan3d.volume.marching_cubes import extract_surface
from backend.hunyuan3d.volume.sparse_volume import SparseVolume

Outcome = SparseVolume | ServiceError
Out = TypeVar("Out")


@dataclass(frozen=True, eq=False)
class PendingShape:
    """One picture's field, off the device, or the error that took its place: what is left to do needs only the CPU."""

    outcome: Outcome
    metadata: ShapeMetadata

    @property
    def error(self) -> ServiceError | None:
        """What went wrong so far."""
        return self.outcome if isinstance(self.outcome, ServiceError) else None

    def finish(self) -> ShapeResult:
        """The cleaned mesh, with fewer faces where that was asked; or this picture's error. Any thread may call it.

        In metadata.seconds `mesh` is what this one took.
        """
        watch = Stopwatch(torch.device("cpu"))
        with watch.stage("mesh"):
            result = finished_result(self.outcome, self.metadata)
        return replace(result, metadata=result.metadata.after(watch))


def finish_together(
    pending: Sequence[PendingShape], on_finished: Callable[[int], None] | None = None
) -> list[ShapeResult]:
    """Finish all, on as many threads as there are cores; in metadata.seconds `mesh` is what they took together.

    on_finished(place) is called in order, on the caller's thread.
    """
    watch = Stopwatch(torch.device("cpu"))
    outcomes, metadata = [shape.outcome for shape in pending], [shape.metadata for shape in pending]
    with watch.stage("mesh"):
        results = in_parallel(finished_result, outcomes, metadata, on_done=on_finished)
    return [replace(result, metadata=result.metadata.after(watch)) for result in results]


def in_parallel(
    function: Callable[..., Out], *items: Sequence[object], on_done: Callable[[int], None] | None = None
) -> list[Out]:
    """As `map`, for sequences of one length, in order, on as many threads as there are cores.

    on_done(place) is called in order, on the caller's thread; what it raises is raised, and what has not begun is left.
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


def draw_ball() -> trimesh.Trimesh:
    """A small mesh, drawn as any other: what is loaded and built on first use (0.1 s and more) is there after it."""
    axis = torch.linspace(-1, 1, 17)
    values = 0.5 - torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    vertices, faces = extract_surface(SparseVolume.from_dense(values))
    return clean_mesh(to_mesh(vertices, faces))


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
        with named_memory_errors():
            mesh = to_finished(outcome)
    except ServiceError as e:
        return ShapeResult(None, without_frames(e), metadata)
    facts = replace(
        metadata,
        vertices=len(mesh.vertices),
        faces=len(mesh.faces),
        watertight=is_watertight(mesh),
        evaluated=outcome.evaluated,
    )
    return ShapeResult(mesh, None, facts)
