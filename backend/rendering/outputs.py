"""Everything that is made of one shape: colours, meshes in each format, a preview and a thumbnail, and what they show.

The one place where camera, colours, place, encoding and drawing follow one another, for service and command line.
This module does not know how a shape was made, or where files go.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from backend.errors import PreviewUnavailable
from backend.hunyuan3d.facts import Remark
from backend.hunyuan3d.mesh.export import Unit, exported_bounds, exported_unit
from backend.hunyuan3d.mesh.offered import carried_color
from backend.hunyuan3d.mesh.ops import Point
from backend.hunyuan3d.mesh.place import Placement, place_mesh
from backend.hunyuan3d.mesh.print_facts import PrintFacts, print_facts
from backend.hunyuan3d.mesh.remarks import remarks_on
from backend.limits import (
    DEFAULT_COLOR,
    DEFAULT_COMPRESSION,
    DEFAULT_PLACE,
    DEFAULT_SCALE_MM,
    DEFAULT_UPRIGHT,
    PREVIEW_FORMAT,
    ColorMode,
    Compression,
    FileKind,
    MeshFormat,
    Place,
    Upright,
)
from backend.rendering.camera import find_camera
from backend.rendering.camera_model import DOUBTFUL_BELOW, Camera
from backend.rendering.colors import color_mesh
from backend.rendering.previews import draw_views, preview_of, thumbnail_of, webp_bytes
from backend.rendering.shape_file import SHAPE_FORMAT, FinishedShape, encode, shape_bytes

if TYPE_CHECKING:
    from backend.hunyuan3d.results import ShapeResult


@dataclass(frozen=True)
class OutputOptions:
    """What is wanted of a shape.

    formats : of the mesh, at least one; scale_mm : longest side in millimetres; name, extras : as export_mesh's
    preview : whether a preview and a thumbnail are; keep : whether what goes beside the meshes is, to be stored: the
    cut-out, and the shape that other formats can be encoded from
    """

    formats: tuple[MeshFormat, ...]
    scale_mm: float | None = DEFAULT_SCALE_MM
    color: ColorMode = DEFAULT_COLOR
    compress: Compression = DEFAULT_COMPRESSION
    place: Place = DEFAULT_PLACE
    upright: Upright = DEFAULT_UPRIGHT
    name: str = "mesh"
    extras: Mapping[str, object] = field(default_factory=dict)
    preview: bool = True
    keep: bool = True


@dataclass(frozen=True, eq=False)
class Output:
    """One file that was made."""

    kind: FileKind
    format: str
    data: bytes


@dataclass(frozen=True, eq=False)
class Outputs:
    """What was made of a shape.

    files : the meshes in the order in which they were asked for, then the rest
    views : of the mesh, as preview_of takes them; () where none were drawn
    bounds, unit : of the first mesh's file. camera : None where there is no cut-out to look at; of the mesh before it
    was placed. facts : for whoever prints it, at its size; remarks : warnings
    notes : what was left out, and why, in sentences
    """

    files: tuple[Output, ...]
    shape: FinishedShape
    views: tuple[Image.Image, ...]
    bounds: tuple[Point, Point]
    unit: Unit
    camera: Camera | None
    placement: Placement
    facts: PrintFacts
    remarks: tuple[Remark, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class _Steps:
    """Counts what is done, and says so."""

    total: int
    report: Callable[[int, int], None]
    done: int = 0

    def __call__(self) -> None:
        self.report(self.done, self.total)
        self.done += 1


def make_outputs(
    result: ShapeResult, options: OutputOptions, on_step: Callable[[int, int], None] = lambda _done, _total: None
) -> Outputs:
    """Make all that is wanted of a shape that has a mesh.

    on_step : called with how many steps are done, of how many; what it raises ends the work and comes out
    A preview that cannot be drawn is a note; everything else that fails is raised. Raises ExportError and its like.
    """
    step = _Steps(2 + len(options.formats), on_step)
    step()
    camera, placement, shape = _finished(result, options)
    # A mesh without a size of its own is measured as if it had the usual one.
    scale_mm = options.scale_mm or DEFAULT_SCALE_MM
    # Drawing and encoding do not need one another; much of both lets other threads run.
    with ThreadPoolExecutor(1, "draw") as beside:
        # What is logged there is about this job, too.
        drawn = beside.submit(copy_context().run, _views, shape, options)
        facts = print_facts(shape.mesh, scale_mm)
        files = []
        for format in options.formats:
            step()
            files.append(Output("mesh", format, encode(shape, format)))
        kept = _kept(result, shape) if options.keep else []
        step()
        views, notes = drawn.result()
    if views:
        files.append(Output("preview", PREVIEW_FORMAT, webp_bytes(preview_of(views))))
        files.append(Output("thumbnail", PREVIEW_FORMAT, webp_bytes(thumbnail_of(views))))
    files += kept
    first = options.formats[0]
    return Outputs(
        tuple(files),
        shape,
        views,
        exported_bounds(shape.mesh, first, scale_mm=options.scale_mm),
        exported_unit(first, options.scale_mm),
        camera,
        placement,
        facts,
        remarks_on(result.metadata.parts, placement, facts, scale_mm),
        (*_color_notes(shape, camera, options), *notes),
    )


def _finished(result: ShapeResult, options: OutputOptions) -> tuple[Camera | None, Placement, FinishedShape]:
    """Colour the mesh, where there is a cut-out to take colours from, and place it."""
    mesh, camera, appearance = result.unwrap(), None, None
    if result.cutout is not None:
        camera = find_camera(mesh, np.asarray(result.cutout.getchannel("A")), result.view_aligned)
        if options.color != "none":
            appearance = color_mesh(mesh, result.cutout, camera, texture=options.color != "vertex")
    export = {
        "color": options.color,
        "scale_mm": options.scale_mm,
        "name": options.name,
        "compress": options.compress,
        "extras": dict(options.extras),
    }
    # Colours are of vertices, whose order placing leaves; the camera sees the mesh as it was found.
    mesh, placement = place_mesh(mesh, options.place, options.upright, view_aligned=result.view_aligned)
    return camera, placement, FinishedShape(mesh, appearance, export)


def _color_notes(shape: FinishedShape, camera: Camera | None, options: OutputOptions) -> tuple[str, ...]:
    """Say what of the colours that were asked for is not in the files."""
    notes = []
    if options.color in ("vertex", "texture"):
        bare = [format for format in options.formats if carried_color(format, options.color) == "none"]
        what = "colours of vertices" if options.color == "vertex" else "a texture"
        notes += [f"{format.upper()} cannot carry {what}; it has no colours." for format in bare]
    if options.color != "none" and shape.appearance is None:
        notes.append("The picture's cut-out is not at hand; the mesh has no colours.")
    if camera is not None and shape.appearance is not None and camera.score < DOUBTFUL_BELOW:
        notes.append(f"The mesh's outline agrees with the picture's by {camera.score:.0%} only; colours may be off.")
    return tuple(notes)


def _kept(result: ShapeResult, shape: FinishedShape) -> list[Output]:
    """Make what is kept beside the meshes."""
    kept = [Output("shape", SHAPE_FORMAT, shape_bytes(shape))]
    if result.cutout is not None:
        kept.insert(0, Output("cutout", "png", _png_bytes(result.cutout)))
    return kept


def _views(shape: FinishedShape, options: OutputOptions) -> tuple[tuple[Image.Image, ...], tuple[str, ...]]:
    """Draw the preview's views; return a note instead where that cannot be."""
    if not options.preview:
        return (), ()
    try:
        return draw_views(shape), ()
    except PreviewUnavailable as error:
        return (), (error.message,)


def _png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Quick rather than small: it is made while a caller waits.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
