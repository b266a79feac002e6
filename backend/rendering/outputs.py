"""Everything that is made of one shape: colours, meshes in each format, a preview and a thumbnail, and what they show.

The one place where camera, colours, place, encoding and drawing follow one another, for service and command line.
This module does not know how a shape was made, or where files go.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import trimesh
from PIL import Image

from backend.errors import PreviewUnavailable
from backend.hunyuan3d.facts import Remark, UnusedOutline
from backend.hunyuan3d.mesh.appearance import Appearance
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
from backend.rendering.previews import preview_of, thumbnail_of, views_to_draw, webp_bytes
from backend.rendering.shape_file import SHAPE_FORMAT, FinishedShape, encode, shape_bytes

if TYPE_CHECKING:
    from backend.hunyuan3d.results import ShapeResult


_UNUSED_OUTLINES: Mapping[UnusedOutline, str] = {
    "doubtful": "the cut-out is doubtful",
    "border": "the object reaches the picture's border",
    "soft": "what is cut out is soft, as glass is",
}


class OutputChoices(Protocol):
    """What a request, by HTTP or at the command line, says of each mesh; as OutputOptions has it."""

    @property
    def formats(self) -> tuple[MeshFormat, ...]: ...
    @property
    def scale_mm(self) -> float | None: ...
    @property
    def color(self) -> ColorMode: ...
    @property
    def compress(self) -> Compression: ...
    @property
    def place(self) -> Place: ...
    @property
    def upright(self) -> Upright: ...


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

    @classmethod
    def chosen(
        cls, choices: OutputChoices, *, name: str, extras: Mapping[str, object], preview: bool, keep: bool
    ) -> OutputOptions:
        """Take over what was chosen of each mesh."""
        return cls(
            formats=choices.formats,
            scale_mm=choices.scale_mm,
            color=choices.color,
            compress=choices.compress,
            place=choices.place,
            upright=choices.upright,
            name=name,
            extras=extras,
            preview=preview,
            keep=keep,
        )


@dataclass(frozen=True, eq=False)
class Output:
    """One file that was made; candidate : which of an image's meshes it is of, the best one's being 0."""

    kind: FileKind
    format: str
    data: bytes
    candidate: int = 0


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
    # A mesh without a size of its own is measured as if it had the usual one.
    scale_mm = options.scale_mm or DEFAULT_SCALE_MM
    with _thread_beside() as beside:
        # Colours are of vertices, whose order placing leaves; the camera sees the mesh as it was found.
        placed = beside(_placed, result, options, scale_mm)
        camera, appearance = _colored(result, options)
        mesh, placement, facts = placed.result()
        shape = FinishedShape(mesh, appearance, _export_settings(options))
        prepared = beside(_Drawing.of, shape, options)
        drawn = beside(lambda: prepared.result().go_on())
        files = []
        for format in options.formats:
            step()
            files.append(Output("mesh", format, encode(shape, format)))
        kept = _kept(result, shape) if options.keep else []
        step()
        drawing = prepared.result()
        drawing.go_on()
        drawn.result()
    views = drawing.views
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
        (*_outline_notes(result), *_color_notes(shape, camera, options), *drawing.notes),
    )


@contextmanager
def _thread_beside() -> Iterator[Callable[..., Future[Any]]]:
    """Give a function that has another thread run functions, one after the other; much of each lets others run.

    What is logged there is about this job, too. When the caller fails, what has not begun is left.
    """
    pool = ThreadPoolExecutor(1, "finish")
    try:
        yield lambda function, *given: pool.submit(copy_context().run, function, *given)
    finally:
        pool.shutdown(cancel_futures=True)


def _placed(
    result: ShapeResult, options: OutputOptions, scale_mm: float
) -> tuple[trimesh.Trimesh, Placement, PrintFacts]:
    """Place the mesh; return it, what was done, and what is true of it at its size."""
    mesh, placement = place_mesh(result.unwrap(), options.place, options.upright, view_aligned=result.view_aligned)
    return mesh, placement, print_facts(mesh, scale_mm)


def _colored(result: ShapeResult, options: OutputOptions) -> tuple[Camera | None, Appearance | None]:
    """Find the camera and the colours, where there is a cut-out to take them from."""
    if result.cutout is None:
        return None, None
    mesh = result.unwrap()
    camera = find_camera(mesh, np.asarray(result.cutout.getchannel("A")), result.view_aligned)
    if options.color == "none":
        return camera, None
    return camera, color_mesh(mesh, result.cutout, camera, texture=options.color != "vertex")


def _export_settings(options: OutputOptions) -> dict[str, object]:
    return {
        "color": options.color,
        "scale_mm": options.scale_mm,
        "name": options.name,
        "compress": options.compress,
        "extras": dict(options.extras),
    }


class _Drawing:
    """The preview's views while they are drawn, by whichever threads have time.

    notes : why there are none, in sentences.
    """

    def __init__(self, paints: list[Callable[[], Image.Image]], notes: tuple[str, ...] = ()) -> None:
        self.notes = notes
        self._waiting = deque(enumerate(paints))
        self._drawn: dict[int, Image.Image] = {}

    @classmethod
    def of(cls, shape: FinishedShape, options: OutputOptions) -> _Drawing:
        """Make the shape ready."""
        if not options.preview:
            return cls([])
        try:
            return cls(views_to_draw(shape))
        except PreviewUnavailable as error:
            return cls([], (error.message,))

    def go_on(self) -> None:
        """Draw views until none waits."""
        while self._waiting:
            try:
                index, paint = self._waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            self._drawn[index] = paint()

    @property
    def views(self) -> tuple[Image.Image, ...]:
        """Return all views, in order, once every thread has come to an end."""
        return tuple(self._drawn[index] for index in sorted(self._drawn))


def _outline_notes(result: ShapeResult) -> tuple[str, ...]:
    """Say why the outline was not followed, where it could have been."""
    unused = result.metadata.outline_unused
    return () if unused is None else (f"The mesh does not follow the picture's outline: {_UNUSED_OUTLINES[unused]}.",)


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


def _png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Quick rather than small: it is made while a caller waits.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
