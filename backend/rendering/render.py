"""Pictures of a mesh without a screen or a graphics library: rays by Embree (embreex), light by numpy.

The look: matt clay, or the mesh's own colours where it has them, in a bright room; one soft key light from the upper
left, the room's light from all around with what the mesh itself keeps away (ambient occlusion), and a soft shadow on
the floor where a view looks down on it.

Does not know where a mesh comes from or where the pictures go. World frame: Y up, the front view looks along -Z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from backend.errors import InvalidParameter, PreviewUnavailable
from backend.hunyuan3d.mesh.appearance import Appearance
from backend.hunyuan3d.mesh.ops import require_usable, smooth_normals
from backend.hunyuan3d.mesh.topology import Faces, Vertices
from backend.rendering.surface_colors import GAMMA, SurfaceColors, surface_colors

Floats = NDArray[np.float32]

_PATTERN = 4
_CLAY = np.array([0.70, 0.62, 0.54], np.float32)
_KEY = np.array([1.0, 0.97, 0.92], np.float32)
_SKY = np.array([0.95, 0.98, 1.03], np.float32)
_BOUNCE = np.array([1.0, 0.96, 0.90], np.float32)
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

    size : pixels a side. samples : rays a pixel along each side, against jagged edges. occlusion_rays : rays a sample
    into the room's light. margin : share of the picture left free around the mesh. lit : False leaves a coloured
    mesh's colours as they are, without any light.
    """

    size: int = 320
    samples: int = 2
    occlusion_rays: int = 4
    margin: float = 0.15
    lit: bool = True

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 4096:
            raise InvalidParameter(f"A view's size must be from 16 to 4096 pixels, not {self.size}.")
        if not 1 <= self.samples <= 4 or not 1 <= self.occlusion_rays <= 64:
            raise InvalidParameter("A view takes 1 to 4 samples a side and 1 to 64 occlusion rays.")
        if not 0.0 <= self.margin < 0.9:
            raise InvalidParameter(f"A view's margin must be from 0 to 0.9, not {self.margin}.")


@dataclass(frozen=True, eq=False)
class _Stage:
    """A mesh ready for rays: centred, within the margin in every view.

    normals : (F, 3, 3), one per face corner. colors : None for clay.
    """

    scene: Any
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
    options = options or RenderOptions()
    stage = _set_stage(mesh, views, options, appearance)
    return [_render(stage, view, options) for view in views]


def _set_stage(
    mesh: trimesh.Trimesh, views: tuple[View, ...], options: RenderOptions, appearance: Appearance | None
) -> _Stage:
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError as missing:
        raise PreviewUnavailable from missing
    vertices, faces = require_usable(mesh)
    used = vertices[np.unique(faces)]
    vertices = vertices - (used.min(axis=0) + used.max(axis=0)) / 2
    used = used - (used.min(axis=0) + used.max(axis=0)) / 2
    reach = max(float(np.abs(used @ view.axes()[:2].T).max()) for view in views)
    vertices *= (1.0 - options.margin) / max(reach, 1e-12)
    scene = EmbreeScene()
    TriangleMesh(scene, vertices.astype(np.float32), faces.astype(np.int32))
    colors = None if appearance is None else surface_colors(appearance, faces)
    return _Stage(scene, _corner_normals(vertices, faces), float(vertices[faces][..., 1].min()), colors)


def _corner_normals(vertices: Vertices, faces: Faces) -> Floats:
    """Return the vertex's smooth normal at each face corner (F, 3, 3), or the face's own where the two differ much.

    Where they differ there is an edge, not a curve: a box's sides stay flat.
    """
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    flat = _unit(np.cross(b - a, c - a).astype(np.float32))[:, None]
    smooth = smooth_normals(vertices, faces).astype(np.float32)[faces]
    agreement = (flat * smooth).sum(axis=-1, keepdims=True)
    share = np.clip((agreement - 0.65) / 0.2, 0.0, 1.0)
    return _unit(share * smooth + (1.0 - share) * flat)


def _render(stage: _Stage, view: View, options: RenderOptions) -> Image.Image:
    side = options.size * options.samples
    axes = view.axes()
    origins = _camera_rays(side, axes)
    towards = np.broadcast_to(-axes[2], origins.shape)
    hit = stage.scene.run(origins, np.ascontiguousarray(towards), query="INTERSECT", output=1)
    struck = hit["primID"] >= 0
    image = _background(stage, axes, options)
    image[struck] = _shade(stage, axes, origins, hit, struck, options)
    return _develop(image.reshape(side, side, 3), options)


def _camera_rays(side: int, axes: Floats) -> Floats:
    """Return where the rays start (side*side, 3), rows from the top, on a plane well in front of the mesh."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) * (2.0 / side) - 1.0
    x, y = np.meshgrid(steps, -steps)
    return np.asarray(x.reshape(-1, 1) * axes[0] + y.reshape(-1, 1) * axes[1] + 4.0 * axes[2], dtype=np.float32)


def _shade(
    stage: _Stage, axes: Floats, origins: Floats, hit: dict[str, Any], struck: NDArray[np.bool_], options: RenderOptions
) -> Floats:
    """Return the light that reaches the camera from each struck point, linear RGB (n, 3)."""
    own = _own_color(stage, hit, struck)
    if not options.lit and stage.colors is not None:
        return own
    flat, normal = _normals(stage, hit, struck, axes[2])
    point = origins[struck] - axes[2] * hit["tfar"][struck, None]
    start = point + 2e-3 * flat
    order = _pattern_index(options.size * options.samples)[struck]
    key = _unit(-0.55 * axes[0] + 0.75 * axes[1] + 0.65 * axes[2])
    lit = _visible_key(stage, start, key, order)
    room = _room_light(stage, start, normal, order, options.occlusion_rays)
    smoothed = _smooth(np.concatenate([lit[:, None], room], axis=1), struck)
    facing = np.clip(normal @ key, 0.0, 1.0)
    fill = np.clip(normal @ _unit(0.8 * axes[0] + 0.1 * axes[1] + 0.6 * axes[2]), 0.0, 1.0)
    half = np.clip(normal @ _unit(key + axes[2]), 0.0, 1.0)
    light = 0.85 * (facing * smoothed[:, 0])[:, None] * _KEY + 0.68 * smoothed[:, 1:] ** 1.25 + 0.06 * fill[:, None]
    if stage.colors is not None:
        return np.asarray(own * (1.0 - _RELIT + _RELIT * light), dtype=np.float32)
    gloss = 0.06 * (half**24 * smoothed[:, 0])[:, None]
    return np.asarray(own * light + gloss, dtype=np.float32)


def _own_color(stage: _Stage, hit: dict[str, Any], struck: NDArray[np.bool_]) -> Floats:
    """Return the base colour, linear RGB, of each struck point (n, 3), or one (1, 3) for all."""
    if stage.colors is None:
        return _CLAY[None]
    return stage.colors.at(hit["primID"][struck], hit["u"][struck, None], hit["v"][struck, None])


def _normals(stage: _Stage, hit: dict[str, Any], struck: NDArray[np.bool_], towards: Floats) -> tuple[Floats, Floats]:
    """Return the struck face's own normal and the one to shade with, both turned to the camera, (n, 3) each."""
    corners = stage.normals[hit["primID"][struck]]
    u, v = hit["u"][struck, None], hit["v"][struck, None]
    smooth = _unit((1 - u - v) * corners[:, 0] + u * corners[:, 1] + v * corners[:, 2])
    flat = _unit(hit["Ng"][struck])
    # The inside wall of an open mesh is lit as what it is: the side that is seen.
    flat *= np.where(flat @ towards < 0, -1, 1)[:, None]
    smooth *= np.where(np.einsum("ij,ij->i", smooth, flat) < 0, -1, 1)[:, None]
    return flat, smooth


def _pattern_index(side: int) -> NDArray[np.int64]:
    """Give the samples (side*side,) numbers such that every block of 4x4 holds each of 16 once."""
    row, column = np.divmod(np.arange(side * side), side)
    return np.asarray((row % _PATTERN) * _PATTERN + column % _PATTERN, dtype=np.int64)


def _visible_key(stage: _Stage, start: Floats, key: Floats, order: NDArray[np.int64]) -> Floats:
    """Return the share (n,) that each point sees of the key light, a disc on the sky; a block's rays all differ."""
    disc = _spiral(_PATTERN * _PATTERN)
    right = _unit(np.cross(key, np.array([0.0, 1.0, 0.01], np.float32)))
    rays = _unit(key + 0.16 * (disc[:, :1] * right + disc[:, 1:] * np.cross(right, key)))
    return _open_sky(stage, start, rays[order])


def _room_light(stage: _Stage, start: Floats, normal: Floats, order: NDArray[np.int64], rays: int) -> Floats:
    """Return the light (n, 3) from all around: cosine-weighted rays, brighter from above, and off the floor."""
    disc = _spiral(_PATTERN * _PATTERN * rays).reshape(rays, -1, 2)
    height = np.sqrt(np.maximum(0.0, 1.0 - (disc**2).sum(axis=-1)))
    across, along = _tangents(normal)
    total = np.zeros_like(normal)
    for index in range(rays):
        x, y = disc[index, order, :1], disc[index, order, 1:]
        direction = x * across + y * along + height[index, order, None] * normal
        above = direction[:, 1:2] * 0.5 + 0.5
        seen = _open_sky(stage, start, direction)[:, None]
        total += seen * (above * _SKY + (1 - above) * 0.55 * _BOUNCE) + (1 - seen) * 0.10 * _CLAY
    return np.asarray(total / rays, dtype=np.float32)


def _open_sky(stage: _Stage, start: Floats, direction: Floats) -> Floats:
    """Return 1 where a ray leaves the mesh behind, 0 where it is stopped, (n,)."""
    if not len(start):
        return np.zeros(0, np.float32)
    rays = np.ascontiguousarray(np.broadcast_to(direction, start.shape), np.float32)
    stopped = stage.scene.run(np.ascontiguousarray(start, np.float32), rays, query="OCCLUDED")
    return np.asarray(stopped < 0, dtype=np.float32)


def _background(stage: _Stage, axes: Floats, options: RenderOptions) -> Floats:
    """Paint (n, 3) a bright wall that darkens downwards and, in views from above, the mesh's soft shadow."""
    side = options.size * options.samples
    fade = np.linspace(0.0, 1.0, side, dtype=np.float32)[:, None, None] ** 1.5
    wall = np.broadcast_to(_TOP**2.2 * (1 - fade) + _BOTTOM**2.2 * fade, (side, side, 3))
    if axes[2, 1] < 0.1:
        return wall.reshape(-1, 3).copy()
    # The shadow has no sharp edges: a sixteenth of the samples show it.
    coarse = _floor_shadow(stage, axes, max(side // _PATTERN, 8))
    shadow = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(wall * (1.0 - shadow[..., None]), dtype=np.float32).reshape(-1, 3)


def _floor_shadow(stage: _Stage, axes: Floats, side: int) -> Floats:
    """Return the share (side, side) of its light that each floor point loses to the mesh, fading out far from it."""
    origins = _camera_rays(side, axes)
    distance = (origins[:, 1] - stage.floor) / axes[2, 1]
    floor = origins - distance[:, None] * axes[2]
    far = np.linalg.norm(floor[:, [0, 2]], axis=1)
    weight = np.clip((1.8 - far) / 0.9, 0.0, 1.0)
    near = weight > 0
    up = np.broadcast_to(np.array([0.0, 1.0, 0.0], np.float32), (int(near.sum()), 3))
    light = np.ones(len(floor), np.float32)
    start = floor[near] + np.array([0.0, 1e-3, 0.0], np.float32)
    room = _room_light(stage, start, up, _pattern_index(side)[near], 6)[:, 1]
    light[near] = room / max(float(room.max(initial=1e-6)), 1e-6)
    soft = _smooth(light[:, None], np.ones(len(floor), np.bool_))[:, 0]
    return np.asarray(0.85 * (1.0 - soft) * weight, dtype=np.float32).reshape(side, side)


def _smooth(values: Floats, where: NDArray[np.bool_]) -> Floats:
    """Average values (n, k) of the samples in `where` over blocks of the ray pattern, within `where` only."""
    side = math.isqrt(len(where))
    grid = np.zeros((len(where), values.shape[1] + 1), np.float32)
    grid[where, :-1] = values
    grid[where, -1] = 1.0
    window = (_PATTERN, _PATTERN)
    blurred = cv2.blur(grid.reshape(side, side, -1), window, borderType=cv2.BORDER_REPLICATE)
    blurred = np.asarray(blurred, np.float32).reshape(len(where), -1)[where]
    return np.asarray(blurred[:, :-1] / np.maximum(blurred[:, -1:], 1e-6), dtype=np.float32)


def _develop(light: Floats, options: RenderOptions) -> Image.Image:
    """Turn linear light into an 8-bit sRGB-like image; samples are averaged after the highlights' roll-off."""
    rolled = np.where(light > 0.7, 0.7 + 0.3 * np.tanh((light - 0.7) / 0.3), light) if options.lit else light
    shown = np.maximum(rolled, 0.0) ** (1 / GAMMA)
    pixels = shown.reshape(options.size, options.samples, options.size, options.samples, 3).mean(axis=(1, 3))
    return Image.fromarray((pixels * 255 + 0.5).clip(0, 255).astype(np.uint8))


def _spiral(count: int) -> Floats:
    """Spread points evenly over the unit disc (count, 2), shuffled so that neighbours in the list lie far apart."""
    index = np.arange(count)
    radius = np.sqrt((index + 0.5) / count)
    angle = index * (math.pi * (3 - math.sqrt(5)))
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
    return points[np.random.default_rng(7).permutation(count)]


def _tangents(normal: Floats) -> tuple[Floats, Floats]:
    """Return two unit vectors across each normal (n, 3). Source: Duff et al., Building an orthonormal basis, 2017."""
    x, y, z = normal.T
    sign = np.where(z >= 0, 1.0, -1.0).astype(np.float32)
    a = -1.0 / (sign + z)
    b = x * y * a
    across = np.stack([1.0 + sign * x * x * a, sign * b, -sign * x], axis=1)
    along = np.stack([b, sign + y * y * a, -y], axis=1)
    return across, along


def _unit(vectors: NDArray[np.floating[Any]]) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), dtype=np.float32)
