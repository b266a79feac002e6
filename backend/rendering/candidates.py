"""Several meshes of one image, judged and put in order, and a sheet that shows them side by side.

They are put in order by what is unsound: parts that do not touch, an open surface, thin walls. The silhouette of the
network's own shape is told, and decides between equals alone: of two candidates of one image, the one whose silhouette
fits better is the truer one in space in one of two cases (benchmarks/results/candidates.md). What a single image cannot
say, how the far side looks, nobody judges. This module does not know how meshes are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from backend.errors import ServiceError
from backend.hunyuan3d.mesh.print_facts import thinnest_wall
from backend.hunyuan3d.results import ShapeResult
from backend.rendering.camera import find_camera
from backend.rendering.contact_sheet import SheetRow, contact_sheet
from backend.rendering.render import BACK, SIDE, THREE_QUARTER, RenderOptions, painters

# Seen from the front all look alike: that is what they were made of.
_VIEWS = (THREE_QUARTER, SIDE, BACK)
_TILE = 160
_DRAWN = RenderOptions(size=_TILE, samples=1, occlusion_rays=2, light_step=2)
_LABELS = ("picture", *(view.name for view in _VIEWS))
_MOST_IN_A_COLUMN = 4


@dataclass(frozen=True, eq=False)
class Candidate:
    """One mesh of an image, or why there is none, and what it is judged by; None where nobody could.

    silhouette_iou : intersection over union of the network's own silhouette with the cut-out's, 0 to 1
    thinnest_wall_mm : as PrintFacts has it
    """

    result: ShapeResult
    silhouette_iou: float | None = None
    thinnest_wall_mm: float | None = None

    @property
    def rank(self) -> tuple[bool, int, bool, float, float]:
        """What sorts the better one first: a mesh, few parts, a closed surface, thick walls, its silhouette."""
        facts = self.result.metadata
        return (
            not self.result.ok,
            facts.parts or 0,
            not facts.watertight,
            -(self.thinnest_wall_mm or 0.0),
            -(self.silhouette_iou or 0.0),
        )


def in_order(results: Sequence[ShapeResult], scale_mm: float) -> list[Candidate]:
    """Judge the meshes of one image, and return the best one first; a single one is not judged.

    scale_mm : length of the longest side, for the walls.
    """
    if len(results) == 1:
        return [Candidate(results[0])]
    return sorted((judge(result, scale_mm) for result in results), key=lambda candidate: candidate.rank)


def judge(result: ShapeResult, scale_mm: float) -> Candidate:
    """Return a result with what it is judged by."""
    if result.mesh is None:
        return Candidate(result)
    try:
        wall = thinnest_wall(result.mesh, scale_mm)
        return Candidate(result, _silhouette(result), None if wall is None else round(wall, 2))
    except ServiceError:
        # Of a mesh that cannot be looked at nothing is known, which puts it behind the others.
        return Candidate(result)


def candidate_sheet(candidates: Sequence[Candidate]) -> Image.Image:
    """Draw all candidates in their order, each with its seed and scores. Raises PreviewUnavailable."""
    rows = [_row(place, candidate) for place, candidate in enumerate(candidates, start=1)]
    return contact_sheet(rows, tile=_TILE, columns=-(-len(rows) // _MOST_IN_A_COLUMN), labels=_LABELS)


def _silhouette(result: ShapeResult) -> float | None:
    followed = result.metadata.outline
    if followed is not None:
        return round(followed.raw_silhouette_iou, 4)
    if result.cutout is None:
        return None
    score = find_camera(result.unwrap(), np.asarray(result.cutout.getchannel("A")), result.view_aligned).score
    return None if math.isnan(score) else round(score, 4)


def _row(place: int, candidate: Candidate) -> SheetRow:
    result, seed = candidate.result, candidate.result.metadata.seed
    image = result.cutout or Image.new("RGBA", (_TILE, _TILE))
    said = [f"{place}", f"seed {seed}"]
    if result.error is not None:
        return SheetRow(image, (), " · ".join(said), result.error.message)
    if candidate.silhouette_iou is not None:
        said.append(f"silhouette {candidate.silhouette_iou:.3f}")
    said.append(f"{result.metadata.parts} part{'' if result.metadata.parts == 1 else 's'}")
    views = [paint() for paint in painters(result.unwrap(), _VIEWS, _DRAWN)]
    return SheetRow(image, views, " · ".join(said))
