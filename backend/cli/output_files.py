"""One image's result, as the command line leaves it: mesh files, a preview, and what to say about them.

This module does not know how the result was made, nor how its outcome is shown.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from backend.cli.console import Outcome
from backend.cli.output_names import OutputNames
from backend.errors import ServiceError
from backend.hunyuan3d.image.open_image import open_image
from backend.hunyuan3d.mesh.export import write_atomically, write_mesh
from backend.hunyuan3d.mesh.ops import is_watertight
from backend.rendering.contact_sheet import SheetRow, contact_sheet, png_bytes
from backend.rendering.render import RenderOptions, render_views

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trimesh

    from backend.hunyuan3d.results import ShapeMetadata, ShapeResult

_TILE = 320
_SHEET_TILE = 200


class OutputOptions(Protocol):
    """What the command line says about files."""

    @property
    def scale_mm(self) -> float | None: ...
    @property
    def preview(self) -> bool: ...
    @property
    def contact_sheet(self) -> bool: ...


def write_result(
    output_options: OutputOptions, image: Path, names: OutputNames, result: ShapeResult | ServiceError, seconds: float
) -> tuple[Outcome, SheetRow]:
    """Write one result's files; return the outcome for the table and the row for the contact sheet.

    A preview that cannot be drawn or written is a note: the mesh is there. A mesh that cannot be written is a problem.
    """
    outcome = Outcome(image)
    if not isinstance(result, ServiceError):
        outcome = replace(outcome, seed=result.metadata.seed, note=_shortage(result.metadata))
    started = time.perf_counter()
    try:
        mesh = _mesh_of(result)
        files = tuple(write_mesh(mesh, path, scale_mm=output_options.scale_mm) for path in names.meshes)
    except ServiceError as failure:
        outcome = replace(outcome, problem=failure.message)
        return outcome, failed_row(outcome)
    outcome = replace(outcome, files=files, faces=len(mesh.faces), watertight=is_watertight(mesh))
    outcome, row = draw_preview(output_options, names.preview, mesh, outcome)
    return replace(outcome, seconds=seconds + time.perf_counter() - started), row


def failed_row(outcome: Outcome) -> SheetRow:
    """Return the contact sheet's row of an image without a mesh, with its problem."""
    return SheetRow(_thumbnail(outcome.image), (), outcome.image.name, outcome.problem)


def draw_preview(
    output_options: OutputOptions, preview: Path, mesh: trimesh.Trimesh, outcome: Outcome
) -> tuple[Outcome, SheetRow]:
    """Draw a mesh that lies in its files already; a preview that cannot be drawn or written is a note."""
    row = SheetRow(_thumbnail(outcome.image), (), _caption(outcome))
    if output_options.preview or output_options.contact_sheet:
        try:
            row = replace(row, views=render_views(mesh, options=RenderOptions(size=_TILE)))
            if output_options.preview:
                write_atomically(png_bytes(contact_sheet([row], tile=_TILE)), preview)
                outcome = replace(outcome, files=(*outcome.files, preview))
        except ServiceError as failure:
            outcome = replace(outcome, note=failure.message)
            row = replace(row, problem=failure.message)
    return outcome, row


def write_contact_sheet(rows: Sequence[SheetRow], path: Path) -> Path:
    """Draw all rows on one sheet and write it; return its path. Raises ExportError, InvalidParameter."""
    sheet = contact_sheet(rows, tile=_SHEET_TILE, columns=2 if len(rows) > 4 else 1)
    return write_atomically(png_bytes(sheet), path)


def _shortage(facts: ShapeMetadata) -> str:
    """Say what was done because memory was short; nothing where it was not."""
    return f"memory was short: {', '.join(facts.fallbacks)}" if facts.fallbacks else ""


def _mesh_of(result: ShapeResult | ServiceError) -> trimesh.Trimesh:
    if isinstance(result, ServiceError):
        raise result
    return result.unwrap()


def _caption(outcome: Outcome) -> str:
    faces = f"{outcome.faces:,} faces".replace(",", " ")
    seal = "watertight" if outcome.watertight else "not watertight"
    seed = "" if outcome.seed is None else f" · seed {outcome.seed}"
    return f"{outcome.image.name} · {faces} · {seal}{seed}"


def _thumbnail(path: Path) -> Image.Image:
    """Open an image at the sheet's size; return an empty one where the file is no readable image."""
    try:
        image = open_image(path)
    except ServiceError:
        return Image.new("RGB", (_TILE, _TILE), (238, 238, 238))
    image.thumbnail((_TILE, _TILE))
    return image
