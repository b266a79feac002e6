"""Pictures of a finished shape that are kept beside its mesh: four views, a small one, and one that turns.

This module does not know how views are drawn (`render.py`) or where they go.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial

from PIL import Image

from backend.rendering.render import BACK, FRONT, SIDE, THREE_QUARTER, RenderOptions, View, painters, render_views
from backend.rendering.shape_file import FinishedShape

PREVIEW_VIEWS = (FRONT, THREE_QUARTER, SIDE, BACK)
"""What a preview shows, from left to right."""

THUMBNAIL_SIZE = 256
TURNTABLE_FRAMES = 24

_TILE = THUMBNAIL_SIZE
# 2.25 samples a pixel, which is enough for smooth edges, and light from few directions, which neighbours share.
_DRAWN = RenderOptions(size=_TILE * 3 // 2, samples=1, occlusion_rays=2, light_step=2)
_FRAME = 256
_FRAME_MILLISECONDS = 1000 // 12
_TURN_ELEVATION = 16.0
_QUALITY = 84


def views_to_draw(shape: FinishedShape) -> list[Callable[[], Image.Image]]:
    """Return for each of PREVIEW_VIEWS what draws a shape from there, on any thread, beside the others.

    Raises InvalidMesh, PreviewUnavailable.
    """
    paints = painters(shape.mesh, PREVIEW_VIEWS, _DRAWN, appearance=shape.appearance)
    return [partial(_tile, paint) for paint in paints]


def _tile(paint: Callable[[], Image.Image]) -> Image.Image:
    return paint().resize((_TILE, _TILE), Image.Resampling.LANCZOS)


def draw_views(shape: FinishedShape) -> tuple[Image.Image, ...]:
    """Draw a shape from PREVIEW_VIEWS. Raises InvalidMesh, PreviewUnavailable."""
    return tuple(draw() for draw in views_to_draw(shape))


def preview_of(views: Sequence[Image.Image]) -> Image.Image:
    """Lay views of one size side by side."""
    width, height = views[0].size
    sheet = Image.new("RGB", (width * len(views), height))
    for index, view in enumerate(views):
        sheet.paste(view, (index * width, 0))
    return sheet


def views_of(preview: Image.Image) -> tuple[Image.Image, ...]:
    """Take a preview apart into its views again."""
    width, height = preview.width // len(PREVIEW_VIEWS), preview.height
    corners = range(0, width * len(PREVIEW_VIEWS), width)
    return tuple(preview.crop((left, 0, left + width, height)) for left in corners)


def thumbnail_of(views: Sequence[Image.Image]) -> Image.Image:
    """Return the view from three quarters, THUMBNAIL_SIZE pixels a side."""
    return views[PREVIEW_VIEWS.index(THREE_QUARTER)]


def webp_bytes(image: Image.Image) -> bytes:
    """Return the image as WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY, method=2)
    return buffer.getvalue()


def turntable_bytes(shape: FinishedShape) -> bytes:
    """Return an endless animation of the shape as it turns once, WebP. Raises InvalidMesh, PreviewUnavailable."""
    turn = 360.0 / TURNTABLE_FRAMES
    around = tuple(View(f"turn {k}", k * turn, _TURN_ELEVATION) for k in range(TURNTABLE_FRAMES))
    options = RenderOptions(size=_FRAME, samples=1, occlusion_rays=3, light_step=2)
    frames = render_views(shape.mesh, around, options, appearance=shape.appearance)
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=_FRAME_MILLISECONDS,
        loop=0,
        quality=_QUALITY,
        method=0,
    )
    return buffer.getvalue()
