"""Surfaces that contain no object: stone, wood, cloth, grass, foliage and light, drawn at random.

Every picture is float32 (side, side, 3) in 0..255. Knows nothing of objects or masks.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from training.cutout.objects import random_colour

Array = NDArray[np.float32]
Generator = np.random.Generator


def noise(rng: Generator, side: int, cells: int, channels: int = 1) -> Array:
    """Return smooth noise (side, side, channels), 0..1, of so many cells a side."""
    small = rng.random((cells + 1, cells + 1, channels), np.float32)
    big = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(big, np.float32).reshape(side, side, channels)


def fractal(rng: Generator, side: int, first: int = 3, octaves: int = 4, fall: float = 0.55) -> Array:
    """Return noise of several scales (side, side, 1) around 0, about ±0.5."""
    total = np.zeros((side, side, 1), np.float32)
    weight = 1.0
    for octave in range(octaves):
        total += np.float32(weight) * (noise(rng, side, min(first * 2**octave, side - 1)) - np.float32(0.5))
        weight *= fall
    return total


def _plain(rng: Generator, side: int) -> Array:
    return np.broadcast_to(random_colour(rng), (side, side, 3)).astype(np.float32)


def _gradient(rng: Generator, side: int) -> Array:
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    along = (
        x * np.cos(turn) + y * np.sin(turn)
        if rng.random() < 0.6
        else np.hypot(x - rng.normal(0, 0.4), y - rng.normal(0, 0.4))
    )
    first = random_colour(rng)
    second = random_colour(rng) if rng.random() < 0.4 else first * np.float32(rng.uniform(0.5, 1.5))
    mix = np.clip(along * 0.5 + 0.5, 0, 1).astype(np.float32)[..., None]
    return np.asarray(first * (1 - mix) + second * mix, np.float32)


def _stone(rng: Generator, side: int) -> Array:
    strength = rng.uniform(10, 110)
    return np.asarray(
        random_colour(rng) + fractal(rng, side, int(rng.integers(2, 12)), 5, rng.uniform(0.5, 0.95)) * strength,
        np.float32,
    )


def _wood(rng: Generator, side: int) -> Array:
    y, x = np.mgrid[:side, :side].astype(np.float32)
    turn = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.15)
    along = x * np.cos(turn) + y * np.sin(turn)
    wave = along / rng.uniform(4, 26) + fractal(rng, side, 2, 3)[..., 0] * rng.uniform(1, 7)
    grain = np.sin(wave * 2 * np.pi)[..., None]
    colour = random_colour(rng) if rng.random() < 0.4 else np.array([150, 100, 60], np.float32) * rng.uniform(0.5, 1.4)
    out = colour + grain * rng.uniform(5, 30) + fractal(rng, side, 6, 4) * 20
    if rng.random() < 0.5:
        across = -x * np.sin(turn) + y * np.cos(turn)
        out = out * (1 - 0.5 * (across % rng.uniform(25, 90) < rng.uniform(1, 3)))[..., None]
    return np.asarray(out, np.float32)


def _tiles(rng: Generator, side: int) -> Array:
    y, x = np.mgrid[:side, :side].astype(np.float32)
    turn = rng.uniform(0, np.pi) if rng.random() < 0.3 else 0.0
    u, v = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    size = rng.uniform(10, 70)
    tall = size * rng.uniform(0.4, 1.0)
    first = random_colour(rng)
    second = random_colour(rng) if rng.random() < 0.6 else first * np.float32(rng.uniform(0.7, 1.2))
    row = np.floor(v / tall)
    shift = 0.5 * row if rng.random() < 0.4 else 0.0
    check = ((np.floor(u / size + shift) + row) % 2)[..., None]
    out = first * (1 - check) + second * check
    if rng.random() < 0.5:
        joint = ((u / size + shift) % 1 < 0.06) | ((v / tall) % 1 < 0.08)
        out = np.where(joint[..., None], random_colour(rng), out)
    return np.asarray(out + fractal(rng, side, 4, 4) * rng.uniform(0, 40), np.float32)


def _cloth(rng: Generator, side: int) -> Array:
    y, x = np.mgrid[:side, :side].astype(np.float32)
    turn, period = rng.uniform(0, np.pi), rng.uniform(2.5, 18)
    bend = fractal(rng, side, 2, 2)[..., 0] * rng.uniform(0, 60)
    weave = np.sin((x * np.cos(turn) + y * np.sin(turn) + bend) / period * 2 * np.pi)
    if rng.random() < 0.4:
        weave = weave * np.sin((y * np.cos(turn) - x * np.sin(turn)) / period * 2 * np.pi)
    folds = fractal(rng, side, 2, 2) * rng.uniform(0, 90)
    return np.asarray(random_colour(rng) + weave[..., None] * rng.uniform(4, 40) + folds, np.float32)


def _grass(rng: Generator, side: int) -> Array:
    hue = np.array([70, 120, 45], np.float32) if rng.random() < 0.6 else random_colour(rng)
    fine = rng.normal(0, 1, (side, side, 1)).astype(np.float32)
    blades = np.asarray(cv2.GaussianBlur(fine, (1, 2 * int(rng.integers(2, 9)) + 1), 0), np.float32)[..., None]
    return np.asarray(
        hue * (1 + blades * rng.uniform(0.5, 1.6) + fractal(rng, side, 4, 4) * rng.uniform(0.2, 0.9)), np.float32
    )


def _bokeh(rng: Generator, side: int) -> Array:
    cells = int(rng.integers(2, 9))
    small = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32) * np.float32(rng.uniform(0.4, 1.0))
    out = np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)
    if rng.random() < 0.5:
        return _lights(rng, out * np.float32(rng.uniform(0.05, 0.7)))
    for _ in range(int(rng.integers(0, 14))):
        disc = np.zeros((side, side), np.float32)
        centre = tuple(int(c) for c in rng.integers(0, side, 2))
        cv2.circle(disc, centre, int(rng.uniform(0.02, 0.12) * side), 1.0, -1, cv2.LINE_AA)
        out += disc[..., None] * (random_colour(rng) - 60) * np.float32(rng.uniform(0.1, 0.5))
    return np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(1, 10)), np.float32)


def _lights(rng: Generator, out: Array) -> Array:
    """Lay many lamps out of focus over a room: discs with an edge, of about one size, seen through one another."""
    side, reach = len(out), rng.uniform(0.02, 0.08)
    for _ in range(int(rng.integers(15, 60))):
        disc = np.zeros((side, side), np.float32)
        centre = tuple(int(c) for c in rng.integers(0, side, 2))
        cv2.circle(disc, centre, max(int(reach * rng.uniform(0.5, 1.5) * side), 1), 1.0, -1, cv2.LINE_AA)
        share = disc[..., None] * np.float32(rng.uniform(0.1, 0.8))
        out = out * (1 - share) + random_colour(rng) * share
    return np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 3)), np.float32)


def _clutter(rng: Generator, side: int) -> Array:
    """Shelves, windows and boxes out of focus: straight things that are not the object."""
    out = _gradient(rng, side).copy()
    for _ in range(int(rng.integers(3, 18))):
        x, y = (int(v) for v in rng.integers(-side // 4, side, 2))
        w, h = (int(v) for v in rng.uniform(0.05, 0.7, 2) * side)
        colour = tuple(float(c) for c in random_colour(rng))
        cv2.rectangle(out, (x, y), (x + w, y + h), colour, -1)
    return np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(1.5, 9)), np.float32)


def _leaves(rng: Generator, side: int) -> Array:
    """Foliage, gravel or rubble: small shapes that lie over one another, of many sizes, in colours of one family."""
    first, spread = random_colour(rng), rng.uniform(10, 60)
    if rng.random() < 0.4:
        first = np.array([65, 105, 45], np.float32) * np.float32(rng.uniform(0.5, 1.6))
    out = np.ascontiguousarray(np.broadcast_to(first * np.float32(0.6), (side, side, 3)), np.float32)
    count = int(rng.integers(250, 600))
    sizes = side * np.float32(rng.uniform(0.018, 0.045)) * rng.uniform(0.5, 1.4, count)
    places = rng.integers(0, side, (count, 2))
    shades = first * rng.uniform(0.6, 1.3, (count, 1)) + rng.normal(0, spread, (count, 3))
    turns, squashes = rng.uniform(0, 180, count), rng.uniform(0.3, 1.0, count)
    for size, place, shade, turn, squash in zip(sizes, places, shades, turns, squashes, strict=True):
        axes = (max(int(size), 1), max(int(size * squash), 1))
        cv2.ellipse(out, (int(place[0]), int(place[1])), axes, float(turn), 0, 360, tuple(map(float, shade)), -1)
    if rng.random() < 0.5:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), np.exp(rng.uniform(-0.7, 1.5)) * side / 320), np.float32)
    return np.asarray(out + fractal(rng, side, 4, 3) * rng.uniform(0, 60), np.float32)


def _dead_leaves(rng: Generator, side: int) -> Array:
    """Things of every size that hide one another, each with a slope of light of its own, in few colours."""
    out = np.ascontiguousarray(np.broadcast_to(random_colour(rng), (side, side, 3)), np.float32)
    least, palette = rng.uniform(0.01, 0.05), np.stack([random_colour(rng) for _ in range(int(rng.integers(3, 12)))])
    grain = fractal(rng, side, 24, 3)[..., 0] * rng.uniform(0, 1.5)
    for _ in range(int(rng.integers(60, 350))):
        size = min(least * rng.random() ** -0.5, 0.35) * side
        points = _leaf(rng, size) + rng.uniform(-0.1, 1.1, 2) * side
        left, top = np.maximum(np.floor(points.min(0)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 1, side)
        if right <= left or bottom <= top:
            continue
        inside = np.zeros((bottom - top, right - left), np.float32)
        cv2.fillPoly(inside, [np.round(points - (left, top)).astype(np.int32)], 1.0, cv2.LINE_8)
        light = 1 + grain[top:bottom, left:right]
        light = light * np.linspace(1, rng.uniform(0.6, 1.3), right - left, dtype=np.float32)[None]
        patch = out[top:bottom, left:right]
        colour = palette[int(rng.integers(len(palette)))] * np.float32(rng.uniform(0.7, 1.25))
        patch += inside[..., None] * (colour * light[..., None] - patch)
    if rng.random() < 0.5:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.5, 5)), np.float32)
    return out


def _leaf(rng: Generator, size: float) -> NDArray[np.float64]:
    """Return an outline (N, 2) about the origin: an ellipse or a polygon, turned."""
    corners = 24 if rng.random() < 0.5 else int(rng.integers(3, 7))
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    turn = rng.uniform(0, np.pi)
    dx, dy = size * np.cos(angle), size * rng.uniform(0.3, 1) * np.sin(angle)
    return np.stack([dx * np.cos(turn) - dy * np.sin(turn), dx * np.sin(turn) + dy * np.cos(turn)], 1)


def _veins(rng: Generator, side: int) -> Array:
    """Polished stone: thin dark or light veins that wind through clouds."""
    wave = fractal(rng, side, int(rng.integers(2, 5)), 5, 0.6) * rng.uniform(4, 14)
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j].astype(np.float32)
    wave = wave + (x * rng.normal(0, 3) + y * rng.normal(0, 3))[..., None]
    veins = np.exp(-np.abs(np.sin(wave)) * rng.uniform(4, 25))
    tone = rng.uniform(150, 245) if rng.random() < 0.6 else rng.uniform(20, 120)
    colour = tone * rng.uniform(0.92, 1.0, 3)
    clouds = fractal(rng, side, 4, 4) * rng.uniform(5, 50)
    return np.asarray(colour + clouds + veins * rng.choice([-1, 1]) * rng.uniform(20, 100), np.float32)


def _boards(rng: Generator, side: int) -> Array:
    """Planks beside one another, of one wood but each of its own tone, with joints and a grain along them."""
    base = np.array([150, 105, 65], np.float32) * np.float32(rng.uniform(0.4, 1.5))
    base = base if rng.random() < 0.7 else random_colour(rng)
    tone = np.zeros((side, side), np.float32)
    top, wide, strength = 0, rng.uniform(0.06, 0.3) * side, rng.uniform(0.03, 0.3)
    while top < side:
        end = min(side, top + max(8, int(wide * rng.uniform(0.9, 1.1))))
        rows = end - top
        field = rng.normal(0, 1, (max(rows // 2, 2), 6)).astype(np.float32)
        grain = cv2.resize(field, (side, rows), interpolation=cv2.INTER_CUBIC)
        fine = cv2.resize(rng.normal(0, 1, (rows, 24)).astype(np.float32), (side, rows), interpolation=cv2.INTER_LINEAR)
        tone[top:end] = grain * strength * 0.6 + fine * strength * 0.5 + rng.normal(0, 0.08)
        tone[top : top + int(rng.integers(1, 3))] -= rng.uniform(0.1, 0.5)
        top = end
    out = base * (1 + tone[..., None])
    return np.ascontiguousarray(out.transpose(1, 0, 2) if rng.random() < 0.5 else out, np.float32)


_SURFACES: tuple[tuple[float, Callable[[Generator, int], Array]], ...] = (
    (0.01, _plain),
    (0.03, _gradient),
    (0.12, _stone),
    (0.1, _wood),
    (0.1, _boards),
    (0.1, _tiles),
    (0.12, _cloth),
    (0.07, _grass),
    (0.09, _bokeh),
    (0.08, _clutter),
    (0.09, _leaves),
    (0.09, _dead_leaves),
    (0.06, _veins),
)
_CUMULATIVE = np.cumsum([share for share, _ in _SURFACES])


def draw_surface(rng: Generator, side: int) -> Array:
    """Return one surface, (side, side, 3) in about 0..255."""
    which = int(np.searchsorted(_CUMULATIVE, rng.random() * _CUMULATIVE[-1]))
    return _SURFACES[which][1](rng, side)
