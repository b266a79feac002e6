"""Flat outlines drawn at random and the solids made from them: revolved, extruded, inflated.

Outlines are drawn here with polygons and strokes, never with a font. Knows nothing of cameras or colours.
Canvas frame: x right, y up, both within ±REACH.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from training.shapes.sdf import Array, Solid

CANVAS = 320
REACH = 1.15
PIXEL = 2 * REACH / CANVAS
OPENING = 0.045
TABLE = 128
HEIGHTS = 96

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Silhouette:
    """Signed distance table (TABLE,TABLE) float32 [y,x], positive inside; its area and half sides."""

    distance: Array
    area: float
    half: tuple[float, float]


class Pen:
    """Draws filled figures in canvas units on a mask."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.mask: Mask = np.zeros((CANVAS, CANVAS), np.uint8)

    def between(self, low: float, high: float) -> float:
        """Return a uniform random number."""
        return float(self.rng.uniform(low, high))

    def polygon(self, points: NDArray[np.float64], value: int = 255) -> None:
        """Fill a polygon (K,2)."""
        pixels = np.round((points * [1, -1] / PIXEL + CANVAS / 2 - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(self.mask, [pixels], value, shift=4)

    def oval(self, x: float, y: float, a: float, b: float, turn: float = 0.0, value: int = 255) -> None:
        """Fill an ellipse with half axes a, b turned by degrees."""
        t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        u, v = a * np.cos(t), b * np.sin(t)
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        self.polygon(np.stack([x + c * u - s * v, y + s * u + c * v], 1), value)

    def stroke(self, points: NDArray[np.float64], width: float) -> None:
        """Draw a line through the points with round ends."""
        half = width / 2
        pixels = np.round((points * [1, -1] / PIXEL + CANVAS / 2 - 0.5) * 16).astype(np.int32)
        for x, y in pixels:
            cv2.circle(self.mask, (int(x), int(y)), round(half / PIXEL * 16), 255, -1, shift=4)
        for a, b in pairwise(points):
            along = (b - a) / max(float(np.hypot(*(b - a))), 1e-6) * half
            side = np.array([-along[1], along[0]])
            self.polygon(np.stack([a - side, b - side, b + side, a + side]))

    def rectangle(self, x: float, y: float, a: float, b: float, value: int = 255) -> None:
        """Fill an axis-aligned rectangle with half sides a, b."""
        self.polygon(np.array([[x - a, y - b], [x + a, y - b], [x + a, y + b], [x - a, y + b]]), value)


def close(mask: Mask) -> Silhouette:
    """Clean a mask (no part thinner than the smallest thickness, one piece) and measure it, centred and scaled."""
    radius = round(OPENING / PIXEL)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    if count < 2:
        raise ValueError("the outline vanished when its thin parts were removed")
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    x, y, width, height, area = (int(v) for v in stats[best])
    inside = (labels == best).astype(np.uint8)
    signed = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    signed -= cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    signed = cv2.GaussianBlur(signed - np.sign(signed) * 0.5, (0, 0), 2.0)
    zoom = 2.0 / (max(width, height) * PIXEL)
    step = (2 * REACH / TABLE) / (PIXEL * zoom)
    start = np.array([x + (width - 1) / 2, y + (height - 1) / 2]) - step * (TABLE - 1) / 2
    table = cv2.warpAffine(
        signed,
        np.array([[step, 0, start[0]], [0, step, start[1]]]),
        (TABLE, TABLE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=-60.0,
    )
    scale = PIXEL * zoom
    flipped = np.ascontiguousarray(table[::-1] * np.float32(scale))
    return Silhouette(flipped, area * scale * scale, (width * scale / 2, height * scale / 2))


def _read(table: Array, x: Array, y: Array) -> Array:
    """Return bilinear values of a table at canvas points; the border value beyond it."""
    n = table.shape[0]
    gain, shift = np.float32(n / (2 * REACH)), np.float32((n - 1) / 2)
    shape = np.broadcast(x, y).shape
    rows = (int(np.prod(shape[:-1])), shape[-1]) if len(shape) > 1 else (1, shape[0])
    # cv2.remap takes at most 32767 rows or columns, so long point lists are folded.
    if rows[0] == 1:
        count = rows[1]
        padded = -count % 512
        u = np.pad(x * gain + shift, (0, padded)).reshape(-1, 512)
        v = np.pad(y * gain + shift, (0, padded)).reshape(-1, 512)
        out = cv2.remap(table, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(out.reshape(-1)[:count], np.float32)
    u, v = (x * gain + shift).reshape(rows), (y * gain + shift).reshape(rows)
    out = cv2.remap(table, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out.reshape(shape), np.float32)


def revolve(outline: Silhouette, size: float = 1.0) -> Solid:
    """Turn the right half of a left-right symmetric outline about the y axis."""

    def distance(x: Array, y: Array, z: Array) -> Array:
        reach = np.sqrt(x * x + z * z) * np.float32(1 / size)
        return _read(outline.distance, reach, y * np.float32(1 / size)) * np.float32(-size)

    a, b = (h * size for h in outline.half)
    return Solid(distance, (a, b, a))


def extrude(outline: Silhouette, thickness: float, rounding: float, size: float = 1.0) -> Solid:
    """Give an outline a constant thickness along z, with rounded rims."""

    def distance(x: Array, y: Array, z: Array) -> Array:
        side = _read(outline.distance, x * np.float32(1 / size), y * np.float32(1 / size)) * np.float32(-size)
        side += np.float32(rounding)
        cap = np.abs(z) - (thickness / 2 - rounding)
        u, v = np.maximum(side, 0.0), np.maximum(cap, 0.0)
        out: Array = np.sqrt(u * u + v * v) + np.minimum(np.maximum(side, cap), 0.0) - rounding
        return out

    return Solid(distance, (outline.half[0] * size, outline.half[1] * size, thickness / 2))


def extrusion_thickness(outline: Silhouette) -> float:
    """Return the thickness, a function of the outline: 0.35 of its area's root, so that a front view determines it."""
    return max(0.35 * float(np.sqrt(outline.area)), 0.14)


def inflate(outline: Silhouette, depth: float = 1.0, size: float = 1.0) -> Solid:
    """Return the union of all balls centred in the outline's plane that touch its border from within, stretched in z.

    The squared height is max over centres c of d(c)² − |p − c|², which separates into one maximum a dimension.
    """
    d = cv2.resize(outline.distance, (HEIGHTS, HEIGHTS), interpolation=cv2.INTER_AREA)
    axis = ((np.arange(HEIGHTS) + 0.5) / HEIGHTS * 2 - 1).astype(np.float32) * np.float32(REACH)
    parabola = -((axis[:, None] - axis[None, :]) ** 2)
    power = np.where(d > 0, d * d, -(d * d) - 4 * np.float32(REACH) ** 2 * (d < -0.05))
    rows = np.stack([(line[None, :] + parabola).max(1) for line in power])
    heights = np.stack([(line[None, :] + parabola).max(1) for line in np.ascontiguousarray(rows.T)], axis=1)
    heights = np.ascontiguousarray(heights, dtype=np.float32)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21))
    radius = cv2.GaussianBlur(np.maximum(cv2.dilate(d, disc), 0.05), (0, 0), 3.0)
    tallest = float(np.sqrt(max(heights.max(), 1e-4))) * depth

    def distance(x: Array, y: Array, z: Array) -> Array:
        u, v, w = (c * np.float32(1 / s) for c, s in ((x, size), (y, size), (z, size * depth)))
        r = _read(radius, u, v)
        excess = w * w - _read(heights, u, v)
        ball = excess / (np.sqrt(np.maximum(excess + r * r, 0.0)) + r)
        # Beyond the outline the squared height is nearly flat; the outline's own distance is the better bound there.
        return np.maximum(ball, -_read(outline.distance, u, v)) * np.float32(size)

    return Solid(distance, (outline.half[0] * size, outline.half[1] * size, tallest * size))


Drawing = Callable[[Pen], None]


def draw(rng: np.random.Generator, drawing: Drawing) -> Silhouette:
    """Draw one outline and close it."""
    pen = Pen(rng)
    drawing(pen)
    return close(pen.mask)
