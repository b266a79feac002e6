"""A sheet of pictures beside the meshes made of them, for the eye: picture, front, three-quarter, side.

Knows pictures and meshes, nothing of scores; backend.rendering.contact_sheet draws it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import trimesh
from PIL import Image

from backend.rendering.contact_sheet import SheetRow, contact_sheet
from backend.rendering.render import STANDARD_VIEWS, RenderOptions, render_views

TILE = 104
COLUMNS = 3
LABELS = ("picture", *(view.name for view in STANDARD_VIEWS))


@dataclass(frozen=True, eq=False)
class Exhibit:
    """What the sheet shows of one task; mesh is None where none was made."""

    name: str
    image: Image.Image
    mesh: trimesh.Trimesh | None


def draw_sheet(exhibits: Sequence[Exhibit]) -> Image.Image:
    """Lay out all exhibits, row by row, as one RGB picture. Raises InvalidParameter when there is none."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(sheet_row, exhibits))
    return contact_sheet(rows, tile=TILE, columns=COLUMNS, labels=LABELS)


def sheet_row(exhibit: Exhibit) -> SheetRow:
    """Return the picture and the mesh's three views, or the words that there is none."""
    if exhibit.mesh is None:
        return SheetRow(exhibit.image, (), exhibit.name, "no mesh")
    return SheetRow(exhibit.image, render_views(exhibit.mesh, STANDARD_VIEWS, RenderOptions(size=TILE)), exhibit.name)


def write_sheet(exhibits: Sequence[Exhibit], path: Path) -> None:
    """Write the sheet as a PNG."""
    draw_sheet(exhibits).save(path, optimize=True)
