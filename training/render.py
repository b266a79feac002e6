"""Orthographic pictures of procedural shapes: marching along the grid's z columns, paints, light, outlines.

Knows nothing of networks or storage. A picture's full width spans ±0.9/0.85 in world x and y (15 % border).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from training.shapes.field import DistanceField, interpolation, unit
from training.shapes.generator import ProceduralShape, is_held_out
from training.shapes.scene import Paint
from training.shapes.sdf import Array, evaluate_part

SIZE = 112
REACH = 0.9 / 0.85

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class FrontView:
    """What the camera sees: alpha (S,S), pixel indices (K,) of hits, their points (K,3), normals (K,3), parts (K,)."""

    alpha: Array
    pixels: NDArray[np.int64]
    points: Array
    normals: Array
    part: NDArray[np.int64]
    local: Array


@dataclass(frozen=True)
class Style:
    """How a picture is shaded."""

    light: Array
    ambient: float
    diffuse: float
    gloss: float
    flat: bool
    outline: float
    noise: float
    gamma: float
    gradient: float
    sky: float = 0.0
    rim: float = 0.0
    tinted: bool = False


def _columns(field: DistanceField, size: int) -> tuple[Array, NDArray[np.int64], NDArray[np.int64], Array]:
    """Return distances (rows,cols,nz) along z columns under the pixels that can hit, and their rows and columns."""
    pixel = ((np.arange(size) + 0.5) / size * 2 - 1) * REACH
    centre = field.centre
    spans = []
    for i, sign in ((0, 1.0), (1, -1.0)):
        world = (sign * pixel).astype(np.float32)
        inside = np.flatnonzero(np.abs(world) < 0.93)
        spans.append((inside, world[inside] / np.float32(field.scale) + np.float32(centre[i])))
    (cols, xs), (rows, ys) = spans
    n = len(field.axis)
    along_x = interpolation(xs, field.axis) @ field.values.reshape(n, -1)
    along_x = along_x.reshape(len(xs), n, n)
    values = np.matmul(interpolation(ys, field.axis), along_x)
    return values, rows, cols, pixel.astype(np.float32)


def front_view(shape: ProceduralShape, size: int = SIZE) -> FrontView:
    """Find the first surface under every pixel, seen along -Z from +Z."""
    field = shape.field
    values, rows, cols, pixel = _columns(field, size)
    lowest = values.min(2)
    width = 2 * REACH / size
    cover = np.clip(0.5 - lowest * np.float32(field.scale / width), 0, 1)
    alpha = np.zeros((size, size), np.float32)
    alpha[np.ix_(rows, cols)] = cover.T
    j, i = np.nonzero(cover.T > 0)
    line = values[i, j]
    inside = line < 0
    last = line.shape[1] - 1 - np.argmax(inside[:, ::-1], axis=1)
    hit = inside.any(1)
    k = np.where(hit, np.minimum(last, line.shape[1] - 2), np.argmin(line, axis=1))
    take = np.arange(len(k))
    below, above = line[take, k], line[take, np.minimum(k + 1, line.shape[1] - 1)]
    part_way = np.where(hit, below / np.minimum(below - above, -1e-6), 0.0)
    grid_z = field.axis[k] + part_way * (field.axis[1] - field.axis[0])
    z = (grid_z - field.centre[2]) * field.scale
    points = np.stack([pixel[cols[i]], -pixel[rows[j]], z], 1).astype(np.float32)
    normals = unit(field.lookup(points)[:, 1:])
    part, local = _owners(shape, points)
    return FrontView(alpha, rows[j] * size + cols[i], points, normals, part, local)


def _owners(shape: ProceduralShape, points: Array) -> tuple[NDArray[np.int64], Array]:
    """Find which part colours each point: the last painted region that holds it, else the nearest part."""
    grid = shape.field.to_grid(points)
    best = np.full(len(points), np.inf, np.float32)
    owner = np.zeros(len(points), np.int64)
    local_point = np.zeros((len(points), 3), np.float32)
    for number, part in enumerate(shape.scene.parts):
        d, local = evaluate_part(part, shape.placement, grid)
        if part.mode == "cut":
            d = np.abs(d) - np.float32(0.004)
        wins = (d < 0) & (best < np.inf) if part.mode == "decal" else d < best
        owner[wins], local_point[wins] = number, local[wins]
        best[wins] = -np.inf if part.mode == "decal" else d[wins]
        if part.mode == "decal":
            best[wins] = -10 + number * 1e-3
    return owner, local_point


def _paint(paint: Paint, local: Array) -> Array:
    """Return the colours (K,3) of a paint at points of its part's frame."""
    first, second = np.asarray(paint.colour, np.float32), np.asarray(paint.second, np.float32)
    x, y = local[:, 0], local[:, 1]
    if paint.pattern == "gradient":
        mix = np.clip(y * 0.5 + 0.5, 0, 1).astype(np.float32)
    elif paint.pattern == "bands":
        mix = ((y / paint.period + paint.phase) % 1.0 < 0.5).astype(np.float32)
    elif paint.pattern == "stripes":
        mix = ((x / paint.period + paint.phase) % 1.0 < 0.5).astype(np.float32)
    elif paint.pattern == "dots":
        u, v = (x / paint.period) % 1.0 - 0.5, (y / paint.period) % 1.0 - 0.5
        mix = (u * u + v * v < 0.09).astype(np.float32)
    else:
        return np.broadcast_to(first, (len(local), 3))
    return np.asarray(first + (second - first) * mix[:, None].astype(np.float32), np.float32)


def draw_style(rng: np.random.Generator, flat_allowed: bool = True) -> Style:
    """Draw a random style: 15 % unlit, 15 % outlined, light mostly from the upper front."""
    light = np.array([rng.normal(0, 0.5), rng.uniform(0.1, 1.1), rng.uniform(0.5, 1.2)], np.float32)
    flat = bool(rng.random() < 0.15) and flat_allowed
    return Style(
        light=light / np.linalg.norm(light),
        ambient=float(rng.uniform(0.3, 0.6)),
        diffuse=float(rng.uniform(0.45, 0.8)),
        gloss=float(rng.uniform(0.1, 0.5)) if rng.random() < 0.3 else 0.0,
        flat=flat,
        outline=float(rng.uniform(0.8, 1.9)) if rng.random() < (0.5 if flat else 0.1) else 0.0,
        noise=float(rng.uniform(0.01, 0.03)) if rng.random() < 0.15 else 0.0,
        gamma=float(rng.uniform(0.8, 1.25)),
        gradient=float(rng.uniform(0.1, 0.3)) if rng.random() < 0.25 else 0.0,
    )


def enriched(style: Style, rng: np.random.Generator) -> Style:
    """Return the style, in half of the cases made more like emoji or renderings.

    sky : light that comes from above wherever one looks; rim : darkening towards the silhouette; tinted : outlines in
    a darker shade of what they enclose rather than in black.
    """
    kind = rng.random()
    if kind < 0.5:
        return style
    sky, rim = float(rng.uniform(0.1, 0.45)), float(rng.uniform(0.15, 0.6))
    if kind < 0.75:
        return replace(style, sky=sky, rim=rim * 0.5, gloss=max(style.gloss, float(rng.uniform(0.0, 0.4))))
    return replace(
        style, flat=False, ambient=0.85, diffuse=float(rng.uniform(0.05, 0.25)), rim=rim, tinted=True,
        outline=float(rng.uniform(0.8, 2.0)) if rng.random() < 0.6 else 0.0,
    )  # fmt: skip


def shade(shape: ProceduralShape, view: FrontView, style: Style, rng: np.random.Generator) -> Pixels:
    """Render one RGBA picture (S,S,4) uint8: colour composited on white, alpha the silhouette."""
    size = view.alpha.shape[0]
    base = np.empty((len(view.pixels), 3), np.float32)
    shuffle = rng.permutation(3) if rng.random() < 0.25 else np.arange(3)
    numbers = np.array([p.paint for p in shape.scene.parts])[view.part]
    for number in np.unique(numbers):
        mine = numbers == number
        base[mine] = _paint(shape.scene.paints[int(number)], view.local[mine])
    base = base[:, shuffle]
    normals = view.normals
    if style.flat:
        lit = np.where(normals[:, 2] < 0.5, 0.75, 1.0) if shape.scene.flat_sides else np.ones(len(base))
        colour = base * lit[:, None].astype(np.float32)
    else:
        lit = style.ambient + style.diffuse * np.maximum(normals @ style.light, 0)
        colour = base * lit[:, None]
        if style.gloss:
            halfway = style.light + np.array([0, 0, 1], np.float32)
            halfway /= np.linalg.norm(halfway)
            colour = colour + style.gloss * (np.maximum(normals @ halfway, 0) ** 24)[:, None]
    if style.sky or style.rim:
        lit = (1 + style.sky * normals[:, 1]) * (1 - style.rim * (1 - np.abs(normals[:, 2])) ** 2)
        colour = colour * lit[:, None].astype(np.float32)
    colour = colour * (1 + style.gradient * view.points[:, 1:2])
    colour = np.clip(colour, 0, 1) ** np.float32(style.gamma)
    if style.noise:
        colour = np.clip(colour + rng.normal(0, style.noise, colour.shape), 0, 1)
    image = np.ones((size * size, 3), np.float32)
    image[view.pixels] = colour
    image = image.reshape(size, size, 3)
    if style.outline:
        strength = 0.55 if style.tinted else 1.0
        image = image * (1 - strength * _lines(view, style.outline))[..., None]
    alpha = view.alpha[..., None]
    rgb = image * alpha + (1 - alpha)
    return np.round(np.concatenate([rgb, alpha], 2) * 255).astype(np.uint8)


def _lines(view: FrontView, width: float) -> Array:
    """Return the darkness (S,S) of outlines: the silhouette's rim, jumps in depth and borders between parts."""
    size = view.alpha.shape[0]
    depth = np.full(size * size, -1.0, np.float32)
    depth[view.pixels] = view.points[:, 2]
    depth = depth.reshape(size, size)
    part = np.full(size * size, -1.0, np.float32)
    part[view.pixels] = view.part
    part = part.reshape(size, size)
    edge = np.zeros((size, size), np.float32)
    for axis in (0, 1):
        jump = (np.abs(np.diff(depth, axis=axis)) > 0.12) | (np.diff(part, axis=axis) != 0)
        edge[tuple(slice(1, None) if a == axis else slice(None) for a in range(2))] += jump
    thick = cv2.GaussianBlur((edge > 0).astype(np.float32), (0, 0), 0.55 * width)
    return np.asarray(np.clip(thick * 1.8, 0, 0.9), np.float32)


def render_images(shape: ProceduralShape, count: int = 2, size: int = SIZE) -> Pixels:
    """Render `count` pictures (P,S,S,4) of one shape in different styles, a function of its seed."""
    view = front_view(shape, size)
    out = []
    for number in range(count):
        rng = np.random.default_rng([shape.seed, 1000 + number])
        style = draw_style(rng)
        out.append(shade(shape, view, style if is_held_out(shape.seed) else enriched(style, rng), rng))
    return np.stack(out)
