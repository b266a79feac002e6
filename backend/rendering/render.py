"""Pictures of a mesh without a screen or a graphics library: rays by Embree (embreex), light by numpy.

The look: matt clay, or the mesh's own colours where it has them, in a bright room; one soft key light from the upper
left, the room's light from all around with what the mesh itself keeps away (ambient occlusion), and a soft shadow on
the floor where a view looks down on it.

Does not know where a mesh comes from or where the pictures go. World frame: Y up, the front view looks along -Z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from backend.errors import InvalidParameter, PreviewUnavailable
from backend.hunyuan3d.mesh.appearance import Appearance
from backend.hunyuan3d.mesh.ops import require_usable
from backend.hunyuan3d.mesh.rays import RayScene
from backend.rendering.light import Places, floor_shadow, light_at, unit
from backend.rendering.shading_normals import corner_normals
from backend.rendering.surface_colors import GAMMA, SurfaceColors, surface_colors

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

# Cells wide are the squares whose points share their light, without and with steps; with them the cells are wider.
_SQUARE, _SQUARE_OF_STEPS = 4, 3
_CLAY = np.array([0.70, 0.62, 0.54], np.float32)
# What the key light, and a weak one from the other side, give to a surface that faces them.
_LAMPS = np.array([[0.85, 0.8245, 0.782], [0.06, 0.06, 0.06]], np.float32)
_TOP = np.array([0.965, 0.968, 0.972], np.float32)
_BOTTOM = np.array([0.87, 0.875, 0.885], np.float32)
# Colours from a photograph hold their light already: it is laid on a second time by half.
_RELIT = 0.5


@dataclass(frozen=True)
class View:
    """Where the camera stands: azimuth from +Z towards +X, elevation above the floor, degrees."""

    name: str
    azimuth: float
    elevation: float

    def axes(self) -> Floats:
        """Return as rows (3, 3) the image's right, its up, and the direction to the camera, in world coordinates."""
        a, e = math.radians(self.azimuth), math.radians(self.elevation)
        right = (math.cos(a), 0.0, -math.sin(a))
        up = (-math.sin(a) * math.sin(e), math.cos(e), -math.cos(a) * math.sin(e))
        back = (math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e))
        return np.array([right, up, back], np.float32)


FRONT = View("front", 0.0, 0.0)
THREE_QUARTER = View("three-quarter", 35.0, 22.0)
SIDE = View("side", 90.0, 0.0)
BACK = View("back", 180.0, 0.0)
STANDARD_VIEWS = (FRONT, THREE_QUARTER, SIDE)


@dataclass(frozen=True)
class RenderOptions:
    """How views are drawn.

    size : pixels a side. samples : rays a pixel along each side, against jagged edges. occlusion_rays : rays into the
    room's light from each sample that looks for it. light_step : 1 lets all samples look for light, k one in each
    block of k x k, for all of it. margin : share of the picture left free around the mesh. lit : False leaves a
    coloured mesh's colours as they are, without any light.
    """

    size: int = 320
    samples: int = 2
    occlusion_rays: int = 4
    light_step: int = 1
    margin: float = 0.15
    lit: bool = True

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 4096:
            raise InvalidParameter(f"A view's size must be from 16 to 4096 pixels, not {self.size}.")
        if not 1 <= self.samples <= 4 or not 1 <= self.occlusion_rays <= 64:
            raise InvalidParameter("A view takes 1 to 4 samples a side and 1 to 64 occlusion rays.")
        if not 1 <= self.light_step <= 4:
            raise InvalidParameter(f"One sample in 1 to 4 along each side looks for light, not {self.light_step}.")
        if not 0.0 <= self.margin < 0.9:
            raise InvalidParameter(f"A view's margin must be from 0 to 0.9, not {self.margin}.")


@dataclass(frozen=True, eq=False)
class _Stage:
    """A mesh ready for rays: centred, within the margin in every view.

    normals : (F, 3, 3), one per face corner. colors : None for clay.
    """

    scene: RayScene
    normals: Floats
    floor: float
    colors: SurfaceColors | None


def render_views(
    mesh: trimesh.Trimesh,
    views: tuple[View, ...] = STANDARD_VIEWS,
    options: RenderOptions | None = None,
    *,
    appearance: Appearance | None = None,
) -> list[Image.Image]:
    """Render one square RGB image per view, orthographic, all at the same scale, the mesh's bounds in the middle.

    appearance : the mesh's colours, its texture where it has one; clay when None. The mesh may have been moved and
    scaled since it got them, but its vertices and faces must be the same in the same order.
    Raises InvalidMesh (empty, not finite), PreviewUnavailable (embreex missing).
    """
    return [paint() for paint in painters(mesh, views, options, appearance=appearance)]


def painters(
    mesh: trimesh.Trimesh,
    views: tuple[View, ...] = STANDARD_VIEWS,
    options: RenderOptions | None = None,
    *,
    appearance: Appearance | None = None,
) -> list[Callable[[], Image.Image]]:
    """Make a mesh ready as render_views does; return for each view what renders it, on any thread, beside the others.

    Raises InvalidMesh, PreviewUnavailable.
    """
    options = options or RenderOptions()
    stage = _set_stage(mesh, views, options, appearance)
    return [partial(_render, stage, view, options) for view in views]


def _set_stage(
    mesh: trimesh.Trimesh, views: tuple[View, ...], options: RenderOptions, appearance: Appearance | None
) -> _Stage:
    vertices, faces = require_usable(mesh)
    used = np.zeros(len(vertices), np.bool_)
    used[faces] = True
    low, high = (edge(vertices[used], axis=0) for edge in (np.min, np.max))
    vertices = vertices - (low + high) / 2
    reach = max(float(np.abs(vertices[used] @ view.axes()[:2].T).max()) for view in views)
    vertices *= (1.0 - options.margin) / max(reach, 1e-12)
    short = vertices.astype(np.float32)
    try:
        scene = RayScene(short, faces)
    except ImportError as missing:
        raise PreviewUnavailable from missing
    colors = None if appearance is None else surface_colors(appearance, faces)
    return _Stage(scene, corner_normals(short, faces), float(short[used, 1].min()), colors)


def _render(stage: _Stage, view: View, options: RenderOptions) -> Image.Image:
    shot = _shoot(stage, view.axes(), options)
    image = _background(stage, shot.axes, options)
    image[shot.sample] = _develop(_shade(stage, shot, options), options)
    return _image(image, options)


@dataclass(frozen=True, eq=False)
class _Shot:
    """What the camera's rays strike.

    axes : of the view. origins : (side*side, 3), where the rays start. hit : what Embree says of all of them.
    sample : (n,), which ones strike the mesh.
    """

    axes: Floats
    origins: Floats
    hit: dict[str, Any]
    sample: Indices

    def of(self, name: str) -> NDArray[Any]:
        """Return one thing that Embree says of the rays that strike the mesh."""
        return np.take(self.hit[name], self.sample, axis=0)


def _shoot(stage: _Stage, axes: Floats, options: RenderOptions) -> _Shot:
    origins = _camera_rays(options.size * options.samples, axes)
    towards = np.empty_like(origins)
    towards[:] = -axes[2]
    hit = stage.scene.hits(origins, towards)
    return _Shot(axes, origins, hit, np.flatnonzero(hit["primID"] >= 0))


def _camera_rays(side: int, axes: Floats) -> Floats:
    """Return where the rays start (side*side, 3), rows from the top, on a plane well in front of the mesh."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) * (2.0 / side) - 1.0
    across, down = np.tile(steps, side), np.repeat(-steps, side)
    # A product of matrices is quicker than sums over many short rows.
    return np.stack([across, down, np.full(side * side, 4.0, np.float32)], axis=1) @ axes


def _shade(stage: _Stage, shot: _Shot, options: RenderOptions) -> Floats:
    """Return the light that reaches the camera from each struck point, linear RGB (n, 3)."""
    face, u, v = shot.of("primID"), shot.of("u"), shot.of("v")
    own = _CLAY[None] if stage.colors is None else stage.colors.at(face, u[:, None], v[:, None])
    if not options.lit and stage.colors is not None:
        return own
    normal = _normals(stage, shot, face, np.stack([1.0 - u - v, u, v], axis=1))
    right, up, back = shot.axes
    key = unit(-0.55 * right + 0.75 * up + 0.65 * back)
    fill = unit(0.8 * right + 0.1 * up + 0.6 * back)
    found = _found_light(stage, shot, normal, key, options)
    facing, filled, half = np.maximum(normal @ np.stack([key, fill, unit(key + back)], axis=1), 0.0).T
    light = found[:, 1:] + np.stack([facing * found[:, 0], filled], axis=1) @ _LAMPS
    if stage.colors is not None:
        return np.asarray(own * (1.0 - _RELIT + _RELIT * light), dtype=np.float32)
    gloss = 0.06 * half**24 * found[:, 0]
    return np.asarray(own * light + gloss[:, None], dtype=np.float32)


def _normals(stage: _Stage, shot: _Shot, face: NDArray[np.integer], weights: Floats) -> Floats:
    """Return the normal to shade with at points (n,) of faces, given their corners' weights (n, 3)."""
    normal = unit(np.einsum("nk,nki->ni", weights, np.take(stage.normals, face, axis=0)))
    # The inside wall of an open mesh is lit as what it is: the side that is seen.
    normal[np.take(shot.hit["Ng"] @ shot.axes[2], shot.sample) < 0] *= -1
    return normal


def _found_light(stage: _Stage, shot: _Shot, normal: Floats, key: Floats, options: RenderOptions) -> Floats:
    """Return for each struck point (n, 4) the share of the key light that it sees, and the room's light, RGB."""
    side, step = options.size * options.samples, options.light_step
    chosen, cell = _one_of_each_block(shot.sample, side, step)
    start = _above_surface(shot, np.take(shot.sample, chosen))
    square = _SQUARE if step == 1 else _SQUARE_OF_STEPS
    places = Places(-(-side // step), square, cell, start, np.take(normal, chosen, axis=0))
    grid = light_at(stage.scene, places, key, options.occlusion_rays)
    grid[..., 1:] = 0.68 * grid[..., 1:] ** 1.25
    if step > 1:
        whole = places.side * step
        grid = np.asarray(cv2.resize(grid, (whole, whole), interpolation=cv2.INTER_LINEAR), np.float32)[:side, :side]
    return np.take(grid.reshape(-1, 4), shot.sample, axis=0)


def _above_surface(shot: _Shot, sample: Indices) -> Floats:
    """Return where rays to the light start (m, 3): just above the faces that samples strike, on the side seen."""
    above = unit(np.take(shot.hit["Ng"], sample, axis=0))
    above[above @ shot.axes[2] < 0] *= -1
    point = np.take(shot.origins, sample, axis=0) - np.take(shot.hit["tfar"], sample)[:, None] * shot.axes[2]
    return np.asarray(point + 2e-3 * above, dtype=np.float32)


def _one_of_each_block(sample: Indices, side: int, step: int) -> tuple[Indices, Indices]:
    """Choose a sample in each block of step x step that has any: where they are in the list, and their blocks."""
    if step == 1:
        return np.arange(len(sample)), sample
    row, column = np.divmod(sample, side)
    blocks = -(-side // step)
    last = np.full(blocks * blocks, -1, np.int64)
    last[row // step * blocks + column // step] = np.arange(len(sample))
    cell = np.flatnonzero(last >= 0)
    return last[cell], cell


def _background(stage: _Stage, axes: Floats, options: RenderOptions) -> Floats:
    """Paint (n, 3) a bright wall that darkens downwards and, in views from above, the mesh's soft shadow; 0 to 1."""
    side = options.size * options.samples
    fade = np.linspace(0.0, 1.0, side, dtype=np.float32)[:, None, None] ** 1.5
    wall = _TOP**GAMMA * (1 - fade) + _BOTTOM**GAMMA * fade
    if axes[2, 1] < 0.1:
        return np.broadcast_to(_develop(wall, options), (side, side, 3)).reshape(-1, 3).copy()
    right, up, back = axes
    # Where a ray through the image's height y meets the floor: `flat` per y from the point below the middle.
    flat = up - up[1] / back[1] * back
    corner = stage.floor / back[1] * back - right + flat
    shadow = floor_shadow(stage.scene, corner, 2.0 * right, -2.0 * flat, stage.floor)
    shadow = cv2.resize(shadow, (side, side), interpolation=cv2.INTER_CUBIC)
    return _develop(wall * (1.0 - shadow[..., None]), options).reshape(-1, 3)


def _develop(light: Floats, options: RenderOptions) -> Floats:
    """Turn linear light (overwritten) into what is shown of it, 0 to 1, sRGB-like; highlights roll off."""
    if options.lit:
        bright = light > 0.7
        light[bright] = 0.7 + 0.3 * np.tanh((light[bright] - 0.7) / 0.3)
    return np.asarray(np.maximum(light, 0.0) ** np.float32(1 / GAMMA), dtype=np.float32)


def _image(shown: Floats, options: RenderOptions) -> Image.Image:
    """Average the samples (n, 3) of each pixel."""
    if options.samples > 1:
        size, samples = options.size, options.samples
        shown = shown.reshape(size, samples, size, samples, 3).mean(axis=(1, 3))
    pixels = (shown * 255 + 0.5).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels.reshape(options.size, options.size, 3))
