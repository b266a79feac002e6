"""One picture's result, as the command line leaves it: mesh files, a preview, and what to say about them.

Does not know how the result was made, nor how its outcome is shown.
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
    import trimesh

    from backend.hunyuan3d.results import ShapeMetadata, ShapeResult

_TILE = 320


class OutputOptions(Protocol):
    """What the command line says about files."""

    @property
    def scale_mm(self) -> float | None: ...
    @property
    def preview(self) -> bool: ...
    @property
    def contact_sheet(self) -> bool: ...


def finish(
    output_options: OutputOptions, picture: Path, names: OutputNames, result: ShapeResult | ServiceError, seconds: float
) -> tuple[Outcome, SheetRow]:
    """Write one result's files; the outcome for the table and the row for the contact sheet.

    A preview that cannot be drawn or written is a note: the mesh is there. A mesh that cannot be written is a problem.
    """
    outcome = Outcome(picture)
    if not isinstance(result, ServiceError):
        outcome = replace(outcome, seed=result.metadata.seed, note=_shortage(result.metadata))
    started = time.perf_counter()
    try:
        mesh = _mesh_of(result)
        files = tuple(write_mesh(mesh, path, scale_mm=output_options.scale_mm) for path in names.meshes)
    except ServiceError as failure:
        return not_made(replace(outcome, problem=failure.message))
    outcome = replace(outcome, files=files, faces=len(mesh.faces), watertight=is_watertight(mesh))
    outcome, row = shown(output_options, names.preview, mesh, outcome)
    return replace(outcome, seconds=seconds + time.perf_counter() - started), row


def not_made(outcome: Outcome) -> tuple[Outcome, SheetRow]:
    """The row of a picture without a mesh, with its problem."""
    return outcome, SheetRow(_thumbnail(outcome.image), (), outcome.image.name, outcome.problem)


def shown(
    output_options: OutputOptions, preview: Path, mesh: trimesh.Trimesh, outcome: Outcome
) -> tuple[Outcome, SheetRow]:
    """A mesh that lies in its files already, drawn; a preview that cannot be drawn or written is a note."""
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


def _shortage(facts: ShapeMetadata) -> str:
    """What was done because memory was short; nothing where it was not."""
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


def _thumbnail(picture: Path) -> Image.Image:
    """The picture at the sheet's size; an empty one where the file is no readable picture."""
    try:
        image = open_image(picture)
    except ServiceError:
        return Image.new("RGB", (_TILE, _TILE), (238, 238, 238))
    image.thumbnail((_TILE, _TILE))
    return image
