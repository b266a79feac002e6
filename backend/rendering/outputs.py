"""Everything that is made of one shape: its meshes in each format, a preview and a thumbnail, and what they show.

The one place where colours, place, encoding and drawing follow one another, for the service and for the command line.
This module does not know how a shape was made, or where files go.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from PIL import Image

from backend.errors import PreviewUnavailable, ServiceError
from backend.hunyuan3d.mesh.export import export_mesh, exported_bounds, exported_unit
from backend.hunyuan3d.mesh.ops import Point
from backend.limits import PREVIEW_FORMAT, FileKind, MeshFormat
from backend.rendering.previews import draw_views, preview_of, thumbnail_of, webp_bytes
from backend.rendering.shape_file import SHAPE_FORMAT, FinishedShape, shape_bytes

if TYPE_CHECKING:
    from backend.hunyuan3d.results import ShapeResult


@dataclass(frozen=True)
class OutputOptions:
    """What is wanted of a shape.

    formats : of the mesh, at least one; scale_mm : longest side in millimetres
    preview : whether a preview and a thumbnail are; keep_shape : whether what other formats can be encoded from is
    """

    formats: tuple[MeshFormat, ...]
    scale_mm: float | None = None
    preview: bool = True
    keep_shape: bool = True


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
    bounds, unit : of the first mesh's file. notes : what was left out, and why, in sentences
    """

    files: tuple[Output, ...]
    shape: FinishedShape
    views: tuple[Image.Image, ...]
    bounds: tuple[Point, Point]
    unit: Literal["model", "mm"]
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class _Steps:
    """Counts what is done, and says so."""

    total: int
    report: Callable[[int, int], None]
    done: int = field(default=0)

    def __call__(self) -> None:
        self.report(self.done, self.total)
        self.done += 1


def make_outputs(
    result: ShapeResult, options: OutputOptions, on_step: Callable[[int, int], None] = lambda _done, _total: None
) -> Outputs:
    """Make all that is wanted of a shape with a mesh.

    on_step : called with how many steps are done, of how many; what it raises ends the work and comes out
    A preview that cannot be drawn is a note; everything else that fails is raised. Raises ExportError and its like.
    """
    step = _Steps(2 + len(options.formats), on_step)
    step()
    shape = FinishedShape(result.unwrap(), None, {"scale_mm": options.scale_mm})
    files = []
    for format in options.formats:
        step()
        files.append(Output("mesh", format, encode(shape, format)))
    step()
    views, notes = _views(shape, options)
    if views:
        files.append(Output("preview", PREVIEW_FORMAT, webp_bytes(preview_of(views))))
        files.append(Output("thumbnail", PREVIEW_FORMAT, webp_bytes(thumbnail_of(views))))
    if result.cutout is not None:
        files.append(Output("cutout", "png", _png_bytes(result.cutout)))
    if options.keep_shape:
        files.append(Output("shape", SHAPE_FORMAT, shape_bytes(shape)))
    first = options.formats[0]
    return Outputs(
        tuple(files),
        shape,
        views,
        exported_bounds(shape.mesh, first, scale_mm=options.scale_mm),
        exported_unit(first, options.scale_mm),
        notes,
    )


def encode(shape: FinishedShape, format: str) -> bytes:
    """Return a finished shape as a mesh file. Raises what export_mesh raises."""
    return export_mesh(shape.mesh, format, **shape.export)


def _views(shape: FinishedShape, options: OutputOptions) -> tuple[tuple[Image.Image, ...], tuple[str, ...]]:
    """Draw the preview's views; return a note instead where that cannot be."""
    if not options.preview:
        return (), ()
    try:
        return draw_views(shape), ()
    except (PreviewUnavailable, MemoryError) as error:
        return (), (_sentence(error),)


def _sentence(error: Exception) -> str:
    return error.message if isinstance(error, ServiceError) else "There was no memory to draw a preview."


def _png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
