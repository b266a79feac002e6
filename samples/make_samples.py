"""Draws the sample pictures: small solid models, ray traced in a bright room, saved as PNG beside this file.

Run `python samples/make_samples.py` from the repository's root to draw them again. Models are signed distance
functions in part coordinates (y up, the camera looks along -z); nothing here is used by the product.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from models import MODELS, Part
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import marching_cubes

Floats = NDArray[np.float64]

SIZE, SAMPLES, CELLS, LIGHT_RAYS = 512, 3, 90, 10
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Shot:
    """How a model is photographed.

    backdrop : RGB 0..1 of the paper behind it, or None to cut the object out
    lift : how far it floats above the paper
    """

    yaw: float
    pitch: float
    backdrop: tuple[float, float, float] | None
    fill: float = 0.66
    light: tuple[float, float, float] = (-0.5, 0.8, 0.6)
    lift: float = 0.0


SHOTS = {
    "mushroom": Shot(12, 8, (0.965, 0.962, 0.955)),
    "mug": Shot(-14, 16, (0.94, 0.945, 0.955), light=(-0.6, 0.9, 0.5)),
    "chair": Shot(28, 16, None, 0.8),
    "snowman": Shot(-8, 6, (0.50, 0.66, 0.80)),
    "star": Shot(10, 4, None, 0.74),
    "fish": Shot(-12, 8, (0.86, 0.93, 0.90), 0.72, lift=0.6),
    "rocket": Shot(14, 6, (0.90, 0.90, 0.93), 0.78),
    "teapot": Shot(-10, 14, (0.975, 0.97, 0.96), 0.7),
    "teddy": Shot(14, 8, None, 0.8),
    "car": Shot(-28, 14, (0.97, 0.97, 0.975), 0.76),
}


@dataclass(frozen=True, eq=False)
class Scene:
    """What rays meet: one scene of all parts, and per face the part it came from. floor : lowest point."""

    rays: EmbreeScene
    normals: Floats
    owner: NDArray[np.int64]
    parts: tuple[Part, ...]
    middle: Floats
    reach: float
    floor: float
    noise: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))


def surface(part: Part) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Return a part's vertices, faces and vertex normals, from its distance function."""
    low, high = (np.asarray(corner, float) for corner in part.bounds)
    step = (high - low).max() / CELLS
    counts = np.ceil((high - low) / step).astype(int) + 5
    axes = [low[k] - 2 * step + step * np.arange(counts[k]) for k in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    vertices, faces, _, _ = marching_cubes(part.distance(grid), 0.0)
    points = vertices * step + low - 2 * step
    slope = [part.distance(points + shift) - part.distance(points - shift) for shift in np.eye(3) * step * 0.5]
    return points, faces.astype(np.int64), unit(np.stack(slope, axis=-1))


def build(parts: tuple[Part, ...]) -> Scene:
    pieces = [surface(part) for part in parts]
    offsets = np.cumsum([0] + [len(points) for points, _, _ in pieces])
    vertices = np.concatenate([points for points, _, _ in pieces])
    faces = np.concatenate([corners + start for (_, corners, _), start in zip(pieces, offsets, strict=False)])
    owner = np.concatenate([np.full(len(corners), k) for k, (_, corners, _) in enumerate(pieces)])
    rays = EmbreeScene()
    TriangleMesh(rays, vertices.astype(np.float32), faces.astype(np.int32))
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    normals = np.concatenate([slope for _, _, slope in pieces])[faces]
    reach = float(np.abs(vertices - (low + high) / 2).max())
    return Scene(rays, normals, owner, parts, (low + high) / 2, reach, float(low[1]))


def photograph(scene: Scene, shot: Shot) -> Image.Image:
    """Render one picture, RGBA when the object is cut out, else RGB."""
    side = SIZE * SAMPLES
    axes = camera_axes(shot)
    origin, rays = camera_rays(scene, shot, axes, side)
    hit = scene.rays.run(*f32(origin, rays), query="INTERSECT", output=1)
    struck = hit["primID"] >= 0
    colour = backdrop(scene, shot, axes, side)
    colour[struck] = shade(scene, shot, axes, origin[struck], rays[struck], {k: hit[k][struck] for k in hit})
    cover = block_mean(struck.astype(float).reshape(side, side, 1))
    shown = tone(colour).reshape(side, side, 3)
    if shot.backdrop is not None:
        return Image.fromarray(to_bytes(block_mean(shown)))
    solid = block_mean(shown * struck.reshape(side, side, 1)) / np.maximum(cover, 1e-6)
    return Image.fromarray(to_bytes(np.concatenate([solid, cover], axis=-1)))


def camera_axes(shot: Shot) -> Floats:
    a, e = math.radians(shot.yaw), math.radians(shot.pitch)
    back = np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
    right = unit(np.cross([0.0, 1.0, 0.0], back))
    return np.stack([right, np.cross(back, right), back])


def camera_rays(scene: Scene, shot: Shot, axes: Floats, side: int) -> tuple[Floats, Floats]:
    """Make a long lens, nine times the object's reach away."""
    steps = (np.arange(side) + 0.5) * (2.0 / side) - 1.0
    x, y = np.meshgrid(steps, -steps)
    eye = scene.middle + 9.0 * scene.reach * axes[2]
    spread = scene.reach / shot.fill
    target = x.reshape(-1, 1) * spread * axes[0] + y.reshape(-1, 1) * spread * axes[1] + scene.middle
    return np.broadcast_to(eye, target.shape).copy(), unit(target - eye)


def shade(
    scene: Scene, shot: Shot, axes: Floats, origin: Floats, rays: Floats, hit: dict[str, NDArray[np.float32]]
) -> Floats:
    """Return each struck point's linear RGB: its part's paint under a soft key light, the room and a little gloss."""
    point = origin + rays * hit["tfar"][:, None]
    face = hit["primID"]
    u, v = hit["u"][:, None], hit["v"][:, None]
    corners = scene.normals[face]
    normal = unit((1 - u - v) * corners[:, 0] + u * corners[:, 1] + v * corners[:, 2])
    normal *= np.where((normal * rays).sum(axis=1) > 0, -1, 1)[:, None]
    paint, gloss = np.zeros_like(point), np.zeros(len(point))
    for index, part in enumerate(scene.parts):
        own = scene.owner[face] == index
        paint[own] = part.paint(point[own])
        gloss[own] = part.gloss
    start = point + 1e-3 * scene.reach * normal
    key = unit(np.asarray(shot.light) @ axes)
    sun, room = light_at(scene, start, normal, key)
    half = unit(key - rays)
    shine = gloss * np.clip((normal * half).sum(axis=1), 0, 1) ** 40 * sun
    rim = gloss * 0.25 * (1 - np.clip(-(normal * rays).sum(axis=1), 0, 1)) ** 4
    facing = np.clip(normal @ key, 0, 1) * sun
    return paint**2.2 * (0.95 * facing[:, None] + room) + (shine + rim)[:, None]


def light_at(scene: Scene, start: Floats, normal: Floats, key: Floats) -> tuple[Floats, Floats]:
    """Return the share (n,) of the key light that is seen, and the light (n, 3) from the room and off the floor."""
    sun = np.zeros(len(start))
    room = np.zeros_like(start)
    for _ in range(LIGHT_RAYS):
        wobble = unit(key + 0.12 * scene.noise.standard_normal(start.shape))
        sun += is_open(scene, start, wobble)
        way = unit(normal + unit(scene.noise.standard_normal(start.shape)))
        above = np.clip(way[:, 1:2] * 0.5 + 0.6, 0, 1)
        tint = above * np.array([0.96, 0.98, 1.02]) + (1 - above) * np.array([0.62, 0.60, 0.57])
        room += is_open(scene, start, way)[:, None] * tint * 0.62 + 0.04
    return sun / LIGHT_RAYS, room / LIGHT_RAYS


def backdrop(scene: Scene, shot: Shot, axes: Floats, side: int) -> Floats:
    """Paint paper that bends up behind the object, with its soft shadow; linear RGB (side*side, 3)."""
    if shot.backdrop is None:
        return np.zeros((side * side, 3))
    height = np.repeat(np.linspace(1.0, 0.0, side), side)[:, None]
    paper = np.asarray(shot.backdrop) ** 2.2 * (0.97 + 0.05 * height)
    loss = Image.fromarray(floor_shadow(scene, shot, axes).astype(np.float32))
    smooth = np.asarray(loss.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
    return np.asarray(paper * (1 - smooth.reshape(-1, 1)))


def floor_shadow(scene: Scene, shot: Shot, axes: Floats, side: int = 256) -> Floats:
    """Return the share of its light that the floor loses to the object, coarse and without grain: files stay small."""
    origin, rays = camera_rays(scene, shot, axes, side)
    floor = scene.floor - shot.lift
    depth = (floor - origin[:, 1]) / np.minimum(rays[:, 1], -1e-3)
    ground = origin + rays * depth[:, None]
    away = np.linalg.norm((ground - scene.middle)[:, [0, 2]], axis=1) / scene.reach
    near = away < 2.6
    start = ground[near] + np.array([0, 1e-3 * scene.reach, 0])
    up = np.broadcast_to([0.0, 1.0, 0.0], start.shape)
    sun, room = light_at(scene, start, up, unit(np.asarray(shot.light) @ axes))
    light = 0.4 * sun + 0.6 * room[:, 1] / max(float(room[:, 1].max(initial=1e-6)), 1e-6)
    loss = np.zeros(len(rays))
    loss[near] = (1 - light) * np.clip((2.6 - away[near]) / 1.6, 0, 1) * 0.8
    return blur(loss.reshape(side, side))


def is_open(scene: Scene, start: Floats, way: Floats) -> Floats:
    if not len(start):
        return np.zeros(0)
    return np.asarray(scene.rays.run(*f32(start, way), query="OCCLUDED") < 0, dtype=float)


def f32(*arrays: Floats) -> list[NDArray[np.float32]]:
    return [np.ascontiguousarray(array, dtype=np.float32) for array in arrays]


def blur(grid: Floats, reach: int = 1) -> Floats:
    """Blur three times with a box: soft shadows need no grain, and the files stay small."""
    for axis in (0, 1) * 3:
        padded = np.concatenate([np.repeat(grid.take([0], axis), reach, axis), grid], axis)
        padded = np.concatenate([padded, np.repeat(grid.take([-1], axis), reach + 1, axis)], axis)
        total = np.cumsum(padded, axis=axis)
        wide = 2 * reach + 1
        count = grid.shape[axis]
        upper = total.take(range(wide, wide + count), axis)
        grid = (upper - total.take(range(count), axis)) / wide
    return grid


def tone(light: Floats) -> Floats:
    rolled = np.where(light > 0.75, 0.75 + 0.25 * np.tanh((light - 0.75) / 0.25), np.maximum(light, 0))
    return rolled ** (1 / 2.2)


def block_mean(image: Floats) -> Floats:
    return image.reshape(SIZE, SAMPLES, SIZE, SAMPLES, -1).mean(axis=(1, 3))


def to_bytes(image: Floats) -> NDArray[np.uint8]:
    return (image * 255 + 0.5).clip(0, 255).astype(np.uint8)


def unit(vectors: Floats) -> Floats:
    vectors = np.asarray(vectors, dtype=float)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def main(chosen: list[str]) -> None:
    """Draw the pictures named, or all of them."""
    for name in chosen or SHOTS:
        photograph(build(MODELS[name]()), SHOTS[name]).save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
