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
from backend.hunyuan3d.mesh.export import write_atomically
from backend.hunyuan3d.mesh.ops import is_watertight
from backend.rendering.candidates import Candidate, candidate_sheet, in_order
from backend.rendering.contact_sheet import SheetRow, contact_sheet, png_bytes
from backend.rendering.outputs import OutputChoices, OutputOptions, Outputs, make_outputs
from backend.rendering.previews import turntable_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.hunyuan3d.results import ShapeMetadata, ShapeResult
    from backend.limits import KeptCandidates

_TILE = 320
_SHEET_TILE = 200


class FileChoices(OutputChoices, Protocol):
    """What the command line says about files."""

    @property
    def scale_mm(self) -> float: ...
    @property
    def preview(self) -> bool: ...
    @property
    def turntable(self) -> bool: ...
    @property
    def contact_sheet(self) -> bool: ...
    @property
    def keep(self) -> KeptCandidates: ...


def write_result(
    choices: FileChoices, image: Path, names: OutputNames, made: Sequence[ShapeResult] | ServiceError, seconds: float
) -> tuple[Outcome, SheetRow]:
    """Write the files of one image; return the outcome for the table and the row for the contact sheet.

    made : the results of all its candidates, or its error

    A preview that cannot be drawn or written is a note: the mesh is there. A mesh that cannot be written is a problem.
    """
    outcome = Outcome(image)
    started = time.perf_counter()
    try:
        if isinstance(made, ServiceError):
            raise made
        candidates = in_order(made, choices.scale_mm)
        result = candidates[0].result
        outcome = replace(outcome, seed=result.metadata.seed, note=_shortage(result.metadata))
        outputs = make_outputs(result, _options(choices, image, result.metadata))
        meshes = [output.data for output in outputs.files if output.kind == "mesh"]
        files = tuple(write_atomically(data, path) for data, path in zip(meshes, names.meshes, strict=True))
        files += _write_others(choices, image, names, candidates[1:]) if choices.keep == "all" else ()
    except ServiceError as failure:
        outcome = replace(outcome, problem=failure.message)
        return outcome, failed_row(outcome)
    mesh = outputs.shape.mesh
    remarks = (*result.metadata.remarks, *outputs.remarks)
    outcome = replace(
        outcome,
        files=files,
        faces=len(mesh.faces),
        watertight=is_watertight(mesh),
        warnings=tuple(f"{remark.code}: {remark.message}" for remark in remarks),
    )
    outcome, row = _drawn(choices, names, outputs, outcome)
    if len(candidates) > 1:
        outcome = _with_candidates(choices, names, candidates, outcome)
    return replace(outcome, seconds=seconds + time.perf_counter() - started), row


def _write_others(
    choices: FileChoices, image: Path, names: OutputNames, others: Sequence[Candidate]
) -> tuple[Path, ...]:
    """Write the meshes of the candidates behind the best one, of those that have one. Raises ExportError."""
    written: list[Path] = []
    for candidate, paths in zip(others, names.others, strict=True):
        if candidate.result.ok:
            options = replace(_options(choices, image, candidate.result.metadata), preview=False)
            files = make_outputs(candidate.result, options).files
            written += (write_atomically(file.data, path) for file, path in zip(files, paths, strict=True))
    return tuple(written)


def _with_candidates(
    choices: FileChoices, names: OutputNames, candidates: Sequence[Candidate], outcome: Outcome
) -> Outcome:
    """Say that it is the best of several, and draw them side by side where previews are wanted."""
    fits = candidates[0].silhouette_iou
    said = f"best of {len(candidates)} seeds" + ("" if fits is None else f", silhouette {fits:.3f}")
    outcome = replace(outcome, note="; ".join(filter(None, (outcome.note, said))))
    if choices.preview:
        try:
            write_atomically(png_bytes(candidate_sheet(candidates)), names.candidates)
        except ServiceError as failure:
            return replace(outcome, note=f"{outcome.note}; {failure.message}")
        outcome = replace(outcome, files=(*outcome.files, names.candidates))
    return outcome


def failed_row(outcome: Outcome) -> SheetRow:
    """Return the contact sheet's row of an image without a mesh, with its problem."""
    return SheetRow(_thumbnail(outcome.image), (), outcome.image.name, outcome.problem)


def row_of(outcome: Outcome, views: Sequence[Image.Image]) -> SheetRow:
    """Return the contact sheet's row of an image with its mesh, seen as a preview sees it."""
    return SheetRow(_thumbnail(outcome.image), views, _caption(outcome))


def write_preview(row: SheetRow, path: Path, outcome: Outcome) -> Outcome:
    """Write a row as a picture of its own; return the outcome with the file, or a note why there is none."""
    try:
        write_atomically(png_bytes(contact_sheet([row], tile=_TILE)), path)
    except ServiceError as failure:
        return replace(outcome, note=failure.message)
    return replace(outcome, files=(*outcome.files, path))


def write_contact_sheet(rows: Sequence[SheetRow], path: Path) -> Path:
    """Draw all rows on one sheet and write it; return its path. Raises ExportError, InvalidParameter."""
    sheet = contact_sheet(rows, tile=_SHEET_TILE, columns=2 if len(rows) > 4 else 1)
    return write_atomically(png_bytes(sheet), path)


def _options(choices: FileChoices, image: Path, facts: ShapeMetadata) -> OutputOptions:
    return OutputOptions.chosen(
        choices,
        name=image.stem,
        extras={
            "seed": facts.seed,
            "model": facts.model,
            "steps": facts.num_inference_steps,
            "guidance_scale": facts.guidance_scale,
            "octree_resolution": facts.octree_resolution,
            **({} if facts.target_faces is None else {"target_faces": facts.target_faces}),
        },
        preview=choices.preview or choices.contact_sheet,
        keep=False,
    )


def _drawn(choices: FileChoices, names: OutputNames, outputs: Outputs, outcome: Outcome) -> tuple[Outcome, SheetRow]:
    """Write what is to be seen of a mesh whose files are there; what was left out is a note."""
    row = row_of(outcome, outputs.views)
    if outputs.notes:
        outcome = replace(outcome, note=" ".join(filter(None, (outcome.note, *outputs.notes))))
    if (choices.preview or choices.contact_sheet) and not outputs.views:
        row = replace(row, problem=outcome.note)
    if choices.preview and outputs.views:
        outcome = write_preview(row, names.preview, outcome)
    if choices.turntable:
        try:
            write_atomically(turntable_bytes(outputs.shape), names.turntable)
            outcome = replace(outcome, files=(*outcome.files, names.turntable))
        except ServiceError as failure:
            outcome = replace(outcome, note=failure.message)
    return outcome, row


def _shortage(facts: ShapeMetadata) -> str:
    """Say what was done because memory was short; nothing where it was not."""
    return f"memory was short: {', '.join(facts.fallbacks)}" if facts.fallbacks else ""


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
