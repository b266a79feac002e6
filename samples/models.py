"""The sample pictures' models: parts with a signed distance function and a paint. Distances: positive outside."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Colour = tuple[float, float, float]
Corner = tuple[float, float, float]
Distance = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Part:
    """One painted solid. colour : RGB 0..1, or a function of points (n, 3) giving (n, 3)."""

    distance: Distance
    bounds: tuple[Corner, Corner]
    colour: Colour | Callable[[Floats], Floats]
    gloss: float = 0.25

    def paint(self, points: Floats) -> Floats:
        if callable(self.colour):
            return self.colour(points)
        return np.broadcast_to(np.asarray(self.colour), points.shape)


def length(p: Floats) -> Floats:
    return np.asarray(np.linalg.norm(p, axis=-1))


def ball(centre: Corner, radii: Corner | float) -> Distance:
    """Make a ball, or an ellipsoid (its distance is approximate)."""
    r = np.broadcast_to(np.asarray(radii, float), 3)
    return lambda p: (length((p - np.asarray(centre)) / r) - 1) * r.min()


def block(centre: Corner, half: Corner, bevel: float) -> Distance:
    def distance(p: Floats) -> Floats:
        q = np.abs(p - np.asarray(centre)) - (np.asarray(half) - bevel)
        return length(np.maximum(q, 0)) + np.minimum(q.max(axis=-1), 0) - bevel

    return distance


def bar(start: Corner, end: Corner, radius: float, end_radius: float | None = None) -> Distance:
    """Make a rod with round ends from start to end, its radius changing evenly."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    last = radius if end_radius is None else end_radius

    def distance(p: Floats) -> Floats:
        t = np.clip(((p - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        return length(p - a - t[..., None] * (b - a)) - (radius + t * (last - radius))

    return distance


def ring(centre: Corner, axis: int, major: float, minor: float) -> Distance:
    def distance(p: Floats) -> Floats:
        q = p - np.asarray(centre)
        flat = np.delete(q, axis, axis=-1)
        return np.hypot(length(flat) - major, q[..., axis]) - minor

    return distance


def plate(outline: Floats, across: Floats, half: float, bevel: float = 0.03) -> Floats:
    """Return the distance to a plate with rounded rims, from those to its outline and to its middle plane."""
    both = np.stack([outline, np.abs(across) - half], axis=-1) + bevel
    return np.minimum(both.max(axis=-1), 0) + length(np.maximum(both, 0)) - bevel


def lathe(profile: list[tuple[float, float]], thickness: float | None = None, soft: int = 7) -> Distance:
    """Make a turned solid about y.

    profile : (radius, height) upwards. thickness : a wall of it, open at the top. soft : how much corners are rounded.
    """
    radii, heights = (np.array(column) for column in zip(*profile, strict=True))
    fine = np.linspace(heights[0], heights[-1], 200)
    smooth = np.interp(fine, heights, radii)
    kernel = np.hanning(2 * soft + 1)
    smooth = np.convolve(np.pad(smooth, soft, mode="edge"), kernel / kernel.sum(), mode="valid")

    def distance(p: Floats) -> Floats:
        r, y = np.hypot(p[..., 0], p[..., 2]), p[..., 1]
        outside = np.maximum(r - np.interp(y, fine, smooth), np.maximum(heights[0] - y, y - heights[-1]))
        if thickness is None:
            return outside
        hollow = np.maximum(r - np.interp(y, fine, smooth) + thickness, heights[0] + thickness - y)
        return np.maximum(outside, -hollow)

    return distance


def join(*parts: Distance, blend: float = 0.0) -> Distance:
    """Return the union; with blend, rounded where parts meet. Formula: polynomial smooth minimum."""

    def distance(p: Floats) -> Floats:
        total = parts[0](p)
        for part in parts[1:]:
            other = part(p)
            bridge = np.maximum(blend - np.abs(total - other), 0) / max(blend, 1e-9)
            total = np.minimum(total, other) - bridge**2 * blend / 4
        return total

    return distance


def mirrored(part: Distance) -> Distance:
    """Return the part and its mirror image in x."""
    return lambda p: part(np.concatenate([np.abs(p[..., :1]), p[..., 1:]], axis=-1))


def around(low: Corner, high: Corner) -> tuple[Corner, Corner]:
    return low, high


CUBE = around((-1.1, -1.1, -1.1), (1.1, 1.1, 1.1))


def mushroom() -> tuple[Part, ...]:
    spots = np.array(
        [
            [0.0, 0.75, 0.75],
            [0.55, 0.65, 0.5],
            [-0.55, 0.6, 0.55],
            [0.2, 0.98, 0.2],
            [-0.3, 0.3, 0.9],
            [0.42, 0.27, 0.86],
            [-0.85, 0.35, 0.2],
            [0.87, 0.4, 0.1],
            [-0.3, 0.95, -0.2],
        ]
    )
    spots = spots / np.linalg.norm(spots, axis=1, keepdims=True)

    def dotted(p: Floats) -> Floats:
        way = (p - np.array([0, 0.05, 0])) / np.array([0.95, 0.75, 0.95])
        way = way / np.maximum(length(way)[..., None], 1e-9)
        near = np.clip(((way @ spots.T).max(axis=-1) - 0.975) / 0.006, 0, 1)[..., None]
        return np.array([0.78, 0.12, 0.10]) * (1 - near) + np.array([0.97, 0.94, 0.88]) * near

    def cap(p: Floats) -> Floats:
        dome = ball((0, 0.05, 0), (0.95, 0.78, 0.95))(p)
        under = 0.05 - p[..., 1] + 0.18 * np.clip(1 - np.hypot(p[..., 0], p[..., 2]), 0, 1)
        edge = 0.06
        both = np.stack([dome, under], axis=-1) + edge
        return np.minimum(both.max(axis=-1), 0) + length(np.maximum(both, 0)) - edge

    stem = lathe([(0.36, -0.95), (0.34, -0.85), (0.25, -0.5), (0.22, -0.1), (0.27, 0.2)])
    return (
        Part(cap, CUBE, dotted, 0.5),
        Part(stem, around((-0.4, -1, -0.4), (0.4, 0.25, 0.4)), (0.93, 0.88, 0.78), 0.1),
    )


def mug() -> tuple[Part, ...]:
    wall = lathe([(0.6, -0.75), (0.66, -0.7), (0.66, 0.72), (0.65, 0.76)], 0.075)

    def striped(p: Floats) -> Floats:
        band = ((p[..., 1] > -0.28) & (p[..., 1] < 0.02))[..., None]
        inside = (np.hypot(p[..., 0], p[..., 2]) < 0.615)[..., None]
        outer = np.where(band, np.array([0.95, 0.93, 0.88]), np.array([0.13, 0.38, 0.62]))
        return np.where(inside, np.array([0.93, 0.92, 0.89]), outer)

    def handle(p: Floats) -> Floats:
        loop = ring((0.68, 0.0, 0), 2, 0.36, 0.085)(p * np.array([1.0, 0.85, 1.0]))
        return np.maximum(loop, 0.62 - np.hypot(p[..., 0], p[..., 2]))

    return (
        Part(wall, around((-0.7, -0.8, -0.7), (0.7, 0.8, 0.7)), striped, 0.6),
        Part(handle, around((0.5, -0.6, -0.12), (1.2, 0.6, 0.12)), (0.13, 0.38, 0.62), 0.6),
    )


def chair() -> tuple[Part, ...]:
    wood, dark = (0.70, 0.44, 0.22), (0.55, 0.32, 0.15)
    seat = block((0, -0.05, 0), (0.55, 0.07, 0.52), 0.05)
    legs = join(
        *(bar((x, -0.1, z), (x * 1.08, -1.0, z * 1.08), 0.085, 0.065) for x in (-0.44, 0.44) for z in (-0.42, 0.42))
    )
    posts = join(*(bar((x, -0.05, -0.45), (x, 0.95, -0.55), 0.075) for x in (-0.44, 0.44)))
    slats = join(*(block((0, y, -0.47 - 0.09 * y), (0.42, 0.10, 0.045), 0.03) for y in (0.35, 0.72)))
    frame = around((-0.65, -1.1, -0.7), (0.65, 1.05, 0.65))
    return (Part(seat, frame, wood, 0.2), Part(join(legs, posts), frame, dark, 0.2), Part(slats, frame, wood, 0.2))


def snowman() -> tuple[Part, ...]:
    snow = join(ball((0, -0.55, 0), 0.55), ball((0, 0.12, 0), 0.39), ball((0, 0.6, 0), 0.28), blend=0.06)
    coal = join(
        *(ball((x, 0.68, 0.25), 0.035) for x in (-0.1, 0.1)),
        *(ball((0, y, z), 0.045) for y, z in ((0.25, 0.36), (0.08, 0.39))),
    )
    hat = join(block((0, 0.84, 0), (0.34, 0.03, 0.34), 0.03), lathe([(0.21, 0.84), (0.23, 1.15)]), blend=0.05)

    def round_hat(p: Floats) -> Floats:
        return np.maximum(hat(p), np.hypot(p[..., 0], p[..., 2]) - 0.34)

    nose = bar((0, 0.6, 0.26), (0, 0.58, 0.55), 0.06, 0.012)
    scarf = join(ring((0, 0.38, 0), 1, 0.27, 0.085), bar((0.16, 0.34, 0.27), (0.22, 0.02, 0.40), 0.07), blend=0.05)
    return (
        Part(snow, CUBE, (0.95, 0.96, 0.98), 0.1),
        Part(coal, around((-0.2, 0, 0.2), (0.2, 0.75, 0.5)), (0.10, 0.10, 0.12), 0.3),
        Part(round_hat, around((-0.4, 0.75, -0.4), (0.4, 1.2, 0.4)), (0.12, 0.12, 0.15), 0.2),
        Part(nose, around((-0.1, 0.5, 0.2), (0.1, 0.7, 0.6)), (0.92, 0.45, 0.10), 0.2),
        Part(scarf, around((-0.4, -0.1, -0.4), (0.4, 0.5, 0.55)), (0.78, 0.14, 0.16), 0.1),
    )


def star() -> tuple[Part, ...]:
    def puffy(p: Floats) -> Floats:
        angle = np.arctan2(p[..., 0], p[..., 1])
        sector = 2 * math.pi / 5
        folded = np.abs((angle + sector / 2) % sector - sector / 2)
        r = np.hypot(p[..., 0], p[..., 1])
        x, y = r * np.sin(folded), r * np.cos(folded)
        # The edge from a tip (0, 1) to the notch beside it.
        notch = 0.5 * np.array([math.sin(sector / 2), math.cos(sector / 2)])
        way = notch - np.array([0.0, 1.0])
        normal = np.array([-way[1], way[0]]) / np.hypot(*way)
        depth = -(x * normal[0] + (y - 1.0) * normal[1])
        swell = 0.30 * (1 - np.exp(-np.clip(depth, 0, None) / 0.16))
        return np.where(depth > 0, np.abs(p[..., 2]) - swell, np.hypot(-depth, p[..., 2])) - 0.08

    return (Part(puffy, around((-1.1, -1, -0.5), (1.1, 1.15, 0.5)), (0.98, 0.76, 0.12), 0.5),)


def fish() -> tuple[Part, ...]:
    body = ball((0.05, 0, 0), (0.85, 0.46, 0.30))

    def painted(p: Floats) -> Floats:
        white = (np.abs(p[..., 0] - 0.35 + 0.1 * p[..., 1] ** 2) < 0.09) | (np.abs(p[..., 0] + 0.2) < 0.075)
        return np.where(white[..., None], np.array([0.97, 0.95, 0.92]), np.array([0.95, 0.48, 0.10]))

    def fan(p: Floats) -> Floats:
        x, y = -p[..., 0] - 0.6, np.abs(p[..., 1])
        outline = np.maximum(np.maximum(y - 0.12 - 0.85 * x, x - 0.5 + 0.5 * (0.45 - y)), -x)
        return plate(outline - 0.03, p[..., 2], 0.09, 0.06)

    def fins(p: Floats) -> Floats:
        top = (length((p - np.array([-0.02, 0.3, 0])) * np.array([1, 1, 0]) / np.array([0.45, 0.36, 1])) - 1) * 0.36
        low = (length((p - np.array([0.0, -0.32, 0])) * np.array([1, 1, 0]) / np.array([0.26, 0.28, 1])) - 1) * 0.26
        return np.minimum(plate(top, p[..., 2], 0.06, 0.05), plate(low, p[..., 2], 0.06, 0.05))

    eyes = join(ball((0.6, 0.12, 0.21), 0.085), ball((0.6, 0.12, -0.21), 0.085))
    pupils = join(ball((0.63, 0.12, 0.27), 0.05), ball((0.63, 0.12, -0.27), 0.05))
    box = around((-1.2, -0.75, -0.4), (1.0, 0.75, 0.4))
    return (
        Part(body, box, painted, 0.5),
        Part(join(fan, fins), box, (0.93, 0.40, 0.08), 0.3),
        Part(eyes, box, (0.97, 0.97, 0.95), 0.6),
        Part(pupils, box, (0.06, 0.06, 0.08), 0.8),
    )


def rocket() -> tuple[Part, ...]:
    hull = lathe(
        [(0.20, -0.75), (0.30, -0.55), (0.36, -0.1), (0.33, 0.35), (0.22, 0.72), (0.07, 0.98), (0.0, 1.05)], soft=14
    )

    def painted(p: Floats) -> Floats:
        red = (p[..., 1] > 0.58) | ((p[..., 1] > -0.62) & (p[..., 1] < -0.5))
        return np.where(red[..., None], np.array([0.82, 0.15, 0.13]), np.array([0.93, 0.93, 0.95]))

    def fins(p: Floats) -> Floats:
        turns = []
        for angle in (0, math.pi / 2, math.pi, 3 * math.pi / 2):
            c, s = math.cos(angle + math.pi / 4), math.sin(angle + math.pi / 4)
            x, z = c * p[..., 0] + s * p[..., 2], -s * p[..., 0] + c * p[..., 2]
            flat = np.maximum(np.maximum(x + 0.75 * p[..., 1] - 0.25, -0.5 * x - p[..., 1] - 0.6), 0.1 - x)
            turns.append(plate(np.maximum(flat, x - 0.72), z, 0.06, 0.05))
        return np.min(turns, axis=0)

    window = ring((0, 0.28, 0.34), 2, 0.13, 0.035)
    pane = ball((0, 0.28, 0.30), (0.13, 0.13, 0.06))
    nozzle = lathe([(0.22, -0.9), (0.15, -0.74)])
    box = around((-0.85, -1.05, -0.85), (0.85, 1.1, 0.85))
    return (
        Part(hull, box, painted, 0.5),
        Part(fins, box, (0.82, 0.15, 0.13), 0.4),
        Part(window, box, (0.55, 0.57, 0.6), 0.6),
        Part(pane, box, (0.25, 0.55, 0.80), 0.9),
        Part(nozzle, box, (0.35, 0.36, 0.38), 0.4),
    )


def teapot() -> tuple[Part, ...]:
    body = lathe(
        [(0.38, -0.6), (0.42, -0.56), (0.66, -0.25), (0.70, 0.0), (0.58, 0.32), (0.36, 0.48), (0.34, 0.5)], soft=22
    )
    lid = join(lathe([(0.36, 0.47), (0.34, 0.52), (0.16, 0.62), (0.05, 0.64)]), ball((0, 0.70, 0), 0.085), blend=0.04)
    spout = join(
        bar((-0.5, -0.22, 0), (-0.86, 0.05, 0), 0.16, 0.10),
        bar((-0.86, 0.05, 0), (-1.06, 0.42, 0), 0.10, 0.07),
        blend=0.08,
    )

    def handle(p: Floats) -> Floats:
        loop = ring((0.66, 0.04, 0), 2, 0.36, 0.065)(p)
        return np.maximum(loop, 0.5 - p[..., 0])

    green, trim = (0.42, 0.62, 0.50), (0.90, 0.86, 0.76)
    box = around((-1.25, -0.65, -0.75), (1.15, 0.85, 0.75))
    return (Part(join(body, spout, handle, blend=0.05), box, green, 0.6), Part(lid, box, trim, 0.5))


def teddy() -> tuple[Part, ...]:
    fur, light = (0.62, 0.40, 0.22), (0.86, 0.70, 0.50)
    limbs = mirrored(
        join(
            bar((0.34, 0.12, 0.05), (0.62, -0.2, 0.2), 0.15, 0.13),
            bar((0.24, -0.62, 0.1), (0.38, -0.82, 0.42), 0.19, 0.17),
        )
    )
    ears = mirrored(ball((0.32, 0.88, -0.02), (0.16, 0.16, 0.09)))
    body = join(
        ball((0, -0.3, 0), (0.46, 0.52, 0.38)), ball((0, 0.52, 0.02), (0.44, 0.40, 0.38)), limbs, ears, blend=0.09
    )
    patches = join(
        mirrored(ball((0.32, 0.88, 0.06), (0.09, 0.09, 0.04))),
        ball((0, 0.42, 0.36), (0.19, 0.15, 0.13)),
        ball((0, -0.3, 0.26), (0.28, 0.34, 0.16)),
        mirrored(ball((0.40, -0.84, 0.57), (0.10, 0.11, 0.05))),
    )
    dark = join(ball((0, 0.48, 0.48), (0.07, 0.05, 0.04)), mirrored(ball((0.16, 0.62, 0.36), 0.045)))
    box = around((-0.9, -1.1, -0.6), (0.9, 1.1, 0.8))
    return (Part(body, box, fur, 0.05), Part(patches, box, light, 0.05), Part(dark, box, (0.08, 0.06, 0.05), 0.8))


def car() -> tuple[Part, ...]:
    shell = block((0, -0.12, 0), (1.0, 0.2, 0.45), 0.13)

    def cabin(p: Floats) -> Floats:
        lean = 1 + 0.55 * np.clip(p[..., 1] - 0.05, 0, 1)
        return (
            block((-0.08, 0.2, 0), (0.55, 0.24, 0.38), 0.1)(p * np.stack([lean, np.ones_like(lean), lean], axis=-1))
            * 0.8
        )

    def glazed(p: Floats) -> Floats:
        height = (p[..., 1] > 0.13) & (p[..., 1] < 0.36)
        pillar = np.abs(p[..., 0] + 0.06) < 0.03
        side = (np.abs(p[..., 2]) > 0.2) & (np.abs(p[..., 0] + 0.08) < 0.40) & ~pillar
        ends = (np.abs(p[..., 2]) < 0.27) & (np.abs(p[..., 0] + 0.08) > 0.38)
        return np.where((height & (side | ends))[..., None], np.array([0.16, 0.20, 0.26]), np.array([0.85, 0.20, 0.16]))

    wheels, hubs = [], []
    for x in (-0.58, 0.58):
        for z in (-0.42, 0.42):
            wheels.append(ring((x, -0.32, z), 2, 0.13, 0.095))
            hubs.append(ball((x, -0.32, z), (0.12, 0.12, 0.07)))
    lamps = join(ball((0.97, -0.08, 0.28), (0.06, 0.07, 0.09)), ball((0.97, -0.08, -0.28), (0.06, 0.07, 0.09)))
    box = around((-1.1, -0.6, -0.65), (1.1, 0.55, 0.65))
    return (
        Part(join(shell, cabin, blend=0.06), box, glazed, 0.6),
        Part(join(*wheels), box, (0.09, 0.09, 0.10), 0.15),
        Part(join(*hubs), box, (0.75, 0.76, 0.78), 0.5),
        Part(lamps, box, (0.98, 0.95, 0.80), 0.7),
    )


MODELS: dict[str, Callable[[], tuple[Part, ...]]] = {
    "mushroom": mushroom,
    "mug": mug,
    "chair": chair,
    "snowman": snowman,
    "star": star,
    "fish": fish,
    "rocket": rocket,
    "teapot": teapot,
    "teddy": teddy,
    "car": car,
}
