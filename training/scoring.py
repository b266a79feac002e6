"""How well results answer their tasks: a score for each, and summaries of many.

Knows results and metrics, not where tasks come from nor how scores are shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.hunyuan3d.mesh.ops import mesh_facts
from backend.hunyuan3d.results import ShapeResult
from training.metrics import (
    Sides,
    cast_shadow,
    chamfer,
    depth_ratio,
    extent,
    iou,
    occupancy,
    steep_share,
    surface_points,
)
from training.tasks import SURFACE_POINTS, Task

# A round thing's mesh with less than this share of the true mean span is a slab.
SLAB_BELOW = 0.5


@dataclass(frozen=True)
class Score:
    """What was measured of one result. A picture without a mesh scores 0 in both overlaps.

    sides : the mesh's extents; iou, chamfer, true_depth : only where the shape is known; fullness : of a round
    thing, the mesh's mean span over the true one; None for the rest. side : overlap of the silhouettes seen along x;
    steep, true_steep : shares of mesh and true surface that stand along the viewing direction.
    """

    name: str
    group: str
    silhouette: float
    watertight: bool
    pieces: int
    faces: int = 0
    sides: Sides | None = None
    iou: float | None = None
    chamfer: float | None = None
    true_depth: float | None = None
    fullness: float | None = None
    side: float | None = None
    steep: float | None = None
    true_steep: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Summary:
    """Means over scores: count, and NaN where no score has the figure.

    depth : the meshes' depth over the silhouette's larger side; true_depth : the same of the true shapes; depth_error :
    mean absolute difference of the two; fullness, slabs : of the round_count round things, how full they are and how
    many came out flat; failed : no mesh at all; worst : the poorest silhouette; side, steep, true_steep : as Score's.
    """

    count: int
    failed: int
    iou: float
    silhouette: float
    chamfer: float
    watertight: float
    one_piece: float
    depth: float
    true_depth: float
    depth_error: float
    round_count: int
    fullness: float
    slabs: int
    worst: float
    side: float
    steep: float
    true_steep: float


def score(task: Task, result: ShapeResult, seed: int = 0) -> Score:
    """Measure one result. seed : of the points drawn on the mesh for the Chamfer distance."""
    true_depth = depth_ratio(task.solid.sides) if task.solid else None
    if result.mesh is None:
        code = result.error.code if result.error else "UNKNOWN"
        found = 0.0 if task.solid else None
        return Score(task.name, task.group, 0.0, False, 0, iou=found, side=found, true_depth=true_depth, error=code)
    facts = mesh_facts(result.mesh)
    vertices, faces = np.asarray(result.mesh.vertices, np.float64), np.asarray(result.mesh.faces, np.int64)
    sides = extent(vertices[np.unique(faces)])
    distance = overlap = side = None
    if task.solid is not None:
        inside = occupancy(vertices, faces, len(task.solid.inside))
        overlap = iou(inside, task.solid.inside)
        side = iou(np.asarray(inside.any(axis=0)), np.asarray(task.solid.inside.any(axis=0)))
        if task.solid.surface is not None:
            points = surface_points(vertices, faces, SURFACE_POINTS, np.random.default_rng(seed))
            distance = chamfer(points, task.solid.surface)
    shadow = cast_shadow(vertices, faces, len(task.shadow))
    return Score(
        name=task.name,
        group=task.group,
        silhouette=iou(shadow.mask, task.shadow),
        watertight=facts.watertight,
        pieces=facts.components,
        faces=facts.faces,
        sides=sides,
        iou=overlap,
        chamfer=distance,
        true_depth=true_depth,
        fullness=None if task.span is None else shadow.span / task.span,
        side=side,
        steep=steep_share(result.mesh.face_normals, result.mesh.area_faces),
        true_steep=task.solid.steep if task.solid else None,
    )


def summarise(scores: Sequence[Score]) -> Summary:
    """Return the means of one or more scores."""
    made = [s for s in scores if s.sides is not None]
    pairs = [(depth_ratio(s.sides), s.true_depth) for s in made if s.sides and s.true_depth is not None]
    fullness = [s.fullness for s in scores if s.fullness is not None]
    return Summary(
        count=len(scores),
        failed=len(scores) - len(made),
        iou=_mean([s.iou for s in scores]),
        silhouette=_mean([s.silhouette for s in scores]),
        chamfer=_mean([s.chamfer for s in scores]),
        watertight=_mean([s.watertight for s in scores]),
        one_piece=_mean([s.pieces == 1 for s in scores]),
        depth=_mean([depth_ratio(s.sides) for s in made if s.sides]),
        true_depth=_mean([true for _, true in pairs]),
        depth_error=_mean([abs(found - true) for found, true in pairs]),
        round_count=len(fullness),
        fullness=_mean(fullness),
        slabs=sum(value < SLAB_BELOW for value in fullness),
        worst=min(s.silhouette for s in scores),
        side=_mean([s.side for s in scores]),
        steep=_mean([s.steep for s in scores]),
        true_steep=_mean([s.true_steep for s in scores]),
    )


def _mean(values: Sequence[float | None]) -> float:
    known = [float(value) for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan
