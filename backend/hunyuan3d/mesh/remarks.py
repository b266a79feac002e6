"""What a caller should hear of a mesh that was made all the same: many parts, a lean, walls that are too thin.

This module does not know where that is said.
"""

from __future__ import annotations

import math

from backend.hunyuan3d.facts import Remark
from backend.hunyuan3d.mesh.place import Placement
from backend.hunyuan3d.mesh.print_facts import THINNEST_PRINTABLE_MM, PrintFacts


def remarks_on(parts: int | None, placement: Placement, facts: PrintFacts, scale_mm: float) -> tuple[Remark, ...]:
    """Return what is to be said of a mesh of so many parts, placed and measured at its size."""
    found: list[Remark] = []
    # From two on: a lid that lies apart is no fault, but only who asked can say, and on a printer's bed it floats.
    if parts is not None and parts > 1:
        found.append(
            Remark("MANY_PARTS", f"The mesh is in {parts} parts that do not touch; objects=largest keeps the largest.")
        )
    if placement.leans:
        found.append(
            Remark("LEANS", "The mesh may lean by as much as its picture looks down: it has no flat under side.")
        )
    elif placement.leveled_by == "axis":
        found.append(
            Remark("LEANS", "The mesh may lean by some degrees: with no flat under side it was levelled by its axis.")
        )
    if facts.thin_walls and facts.thinnest_wall_mm is not None:
        enough = math.ceil(scale_mm * THINNEST_PRINTABLE_MM / max(facts.thinnest_wall_mm, 1e-3) - 0.01)
        found.append(
            Remark(
                "THIN_WALLS",
                f"At {scale_mm:g} mm the thinnest walls are {facts.thinnest_wall_mm:.1f} mm; most printers need "
                f"{THINNEST_PRINTABLE_MM} mm, which they have at scale_mm={enough}.",
            )
        )
    return tuple(found)
