"""Random outlines: stars, hearts, strokes, blobs, gears, leaves, keys, animals and the like, and lathe profiles.

Each function draws on a Pen. Knows nothing of what becomes of the outline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.shapes.silhouettes import Drawing, Pen

Points = NDArray[np.float64]


def _ring(radius: Points, turn: float = 0.0) -> Points:
    t = np.linspace(0, 2 * np.pi, len(radius), endpoint=False) + turn
    return np.stack([radius * np.cos(t), radius * np.sin(t)], 1)


def star(pen: Pen) -> None:
    """Draw a star of 4 to 8 points, one upright."""
    n = int(pen.rng.integers(4, 9))
    radius = np.tile([1.0, pen.between(0.42, 0.62)], n)
    pen.polygon(_ring(radius, np.pi / 2))


def heart(pen: Pen) -> None:
    """Draw a heart."""
    t = np.linspace(0, 2 * np.pi, 80)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    pen.polygon(np.stack([16 * np.sin(t) ** 3 * pen.between(0.9, 1.1), y + 2], 1) / 18)


def polygon(pen: Pen) -> None:
    """Draw a regular polygon, upright or turned, sometimes stretched."""
    n = int(pen.rng.integers(3, 9))
    turn = np.pi / 2 if pen.rng.random() < 0.6 else pen.between(0, np.pi)
    pen.polygon(_ring(np.ones(n), turn) * [pen.between(0.65, 1), pen.between(0.65, 1)])


def blob(pen: Pen) -> None:
    """Draw a smooth closed curve from a few Fourier terms."""
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = np.ones(96)
    for k in range(2, 6):
        radius += pen.rng.normal(0, 0.22 / k) * np.cos(k * t + pen.between(0, 7))
    pen.polygon(_ring(np.maximum(radius, 0.25) * 0.6))


def gear(pen: Pen) -> None:
    """Draw a toothed wheel, often with a hole."""
    n = int(pen.rng.integers(6, 11))
    inner = pen.between(0.68, 0.78)
    pen.polygon(_ring(np.tile([1.0, 1.0, inner, inner], n)))
    if pen.rng.random() < 0.7:
        hole = pen.between(0.2, 0.36)
        pen.oval(0, 0, hole, hole, value=0)


def arrow(pen: Pen) -> None:
    """Draw an arrow in one of eight directions."""
    shaft, head, neck = pen.between(0.13, 0.25), pen.between(0.45, 0.75), pen.between(0.0, 0.3)
    points = np.array([[-1, -shaft], [neck, -shaft], [neck, -head], [1, 0], [neck, head], [neck, shaft], [-1, shaft]])
    angle = np.pi / 4 * int(pen.rng.integers(8))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pen.polygon(points @ turn.T)


def cross(pen: Pen) -> None:
    """Draw a plus, a latin cross or an x."""
    bar, at = pen.between(0.14, 0.3), pen.between(-0.05, 0.4)
    if pen.rng.random() < 0.35:
        r = 0.75
        pen.stroke(np.array([[-r, -r], [r, r]]), 2 * bar)
        pen.stroke(np.array([[-r, r], [r, -r]]), 2 * bar)
        return
    pen.rectangle(0, 0, bar, 1)
    pen.rectangle(0, at, pen.between(0.55, 1), bar)


def moon(pen: Pen) -> None:
    """Draw a crescent, opening to a random side."""
    side = pen.rng.choice([-1.0, 1.0])
    pen.oval(0, 0, 1, 1)
    pen.oval(side * pen.between(0.38, 0.6), pen.between(0, 0.25), 0.85, 0.85, value=0)


def cloud(pen: Pen) -> None:
    """Draw puffs on a flat base."""
    n = int(pen.rng.integers(3, 6))
    xs = np.linspace(-0.65, 0.65, n)
    for x in xs:
        r = (0.28 + 0.25 * (1 - abs(x) / 0.65)) * pen.between(0.9, 1.15)
        pen.oval(x, -0.35 + r, r, r)
    pen.rectangle(0, -0.2, 0.68, 0.16)


def leaf(pen: Pen) -> None:
    """Draw a pointed leaf with a stem."""
    t = np.linspace(0, np.pi, 40)
    wide, power = pen.between(0.35, 0.6), pen.between(0.7, 1.3)
    x, y = wide * np.sin(t) ** power, -np.cos(t) * 0.8 + 0.15
    pen.polygon(np.concatenate([np.stack([x, y], 1), np.stack([-x, y], 1)[::-1]]))
    pen.stroke(np.array([[0, -0.3], [pen.between(-0.15, 0.15), -1.0]]), 0.12)


def drop(pen: Pen) -> None:
    """Draw a drop, upright or as a map pin."""
    r, sign = pen.between(0.5, 0.65), pen.rng.choice([-1.0, 1.0])
    pen.oval(0, -sign * (1 - r), r, r)
    a = r * 0.93
    pen.polygon(np.array([[-a, -sign * (0.85 - r)], [a, -sign * (0.85 - r)], [0, sign]]))


def key(pen: Pen) -> None:
    """Draw a key with a ring and teeth, lying or standing."""
    r = pen.between(0.3, 0.42)
    w = pen.between(0.12, 0.17)
    flip = pen.rng.random() < 0.5
    pen.oval(-1 + r, 0, r, r)
    pen.stroke(np.array([[-0.6, 0], [0.95, 0]]), w)
    for x in (0.9, pen.between(0.55, 0.7), pen.between(0.2, 0.35))[: int(pen.rng.integers(2, 4))]:
        pen.stroke(np.array([[x, 0], [x, -pen.between(0.22, 0.38)]]), 0.13)
    pen.oval(-1 + r, 0, r - 0.15, r - 0.15, value=0)
    if flip:
        pen.mask = np.ascontiguousarray(pen.mask.T[::-1])


def fish(pen: Pen) -> None:
    """Draw a fish from the side."""
    long, tall, side = pen.between(0.6, 0.72), pen.between(0.28, 0.45), pen.rng.choice([-1.0, 1.0])
    pen.oval(side * 0.3, 0, long, tall)
    tail = pen.between(0.35, 0.55)
    pen.polygon(np.array([[-0.15, 0], [-1, tail], [-0.78, 0], [-1, -tail]]) * [side, 1])
    pen.polygon(np.array([[0.5, tall * 0.7], [-0.1, tall * 0.8], [-0.2, tall + 0.28]]) * [side, 1])


def bottle(pen: Pen) -> None:
    """Draw a bottle's outline."""
    body, neck, shoulder = pen.between(0.3, 0.45), pen.between(0.1, 0.17), pen.between(-0.1, 0.3)
    x = np.array([body, body, neck, neck])
    y = np.array([-1, shoulder, shoulder + pen.between(0.1, 0.35), 1.0])
    pen.polygon(np.concatenate([np.stack([x, y], 1), np.stack([-x, y], 1)[::-1]]))


def strokes(pen: Pen) -> None:
    """Draw letter-like figures: strokes between the points of a 3 x 3 lattice, straight or as half rings."""
    width = pen.between(0.22, 0.4)
    xs, ys = [-0.5, 0.0, 0.5], [-0.8, 0.0, 0.8]
    x, y = int(pen.rng.integers(3)), int(pen.rng.integers(3))
    for _ in range(int(pen.rng.integers(2, 6))):
        u, v = int(pen.rng.integers(3)), int(pen.rng.integers(3))
        if (u, v) == (x, y):
            u, v = (x + 1) % 3, y
        a, b = np.array([xs[x], ys[y]]), np.array([xs[u], ys[v]])
        if pen.rng.random() < 0.35:
            t = np.linspace(0, np.pi, 20)[:, None]
            middle, half = (a + b) / 2, (b - a) / 2
            side = np.array([-half[1], half[0]]) * pen.rng.choice([-0.8, 0.8])
            pen.stroke(np.clip(middle - half * np.cos(t) + side * np.sin(t), -0.9, 0.9), width)
        else:
            pen.stroke(np.stack([a, b]), width)
        x, y = u, v


def letter(pen: Pen) -> None:
    """Draw well-known stroke skeletons (bars, bows and rings, as in block capitals and digits), varied in weight."""
    w = pen.between(0.24, 0.42)
    x = pen.between(0.45, 0.65)
    t = np.linspace(0, 2 * np.pi, 40)
    ring = np.stack([x * np.cos(t), 0.8 * np.sin(t)], 1)
    half = np.linspace(-np.pi / 2, np.pi / 2, 20)
    upper = np.stack([-x + 1.8 * x * np.cos(half), 0.4 + 0.4 * np.sin(half)], 1)
    lower = upper * [1, 1] - [0, 0.8]
    left, right = np.array([[-x, -0.8], [-x, 0.8]]), np.array([[x, -0.8], [x, 0.8]])
    bars = [np.array([[-x, y], [x, y]]) for y in (-0.8, 0.0, 0.8)]
    middle = np.array([[0, -0.8], [0, 0.8]])
    figures: list[list[Points]] = [
        [np.array([[-x, -0.8], [0, 0.8], [x, -0.8]]), np.array([[-x * 0.6, -0.25], [x * 0.6, -0.25]])],
        [left, upper, lower],
        [ring[5:36]],
        [left, *bars],
        [left, *bars[1:]],
        [left, right, bars[1]],
        [middle],
        [left, bars[0]],
        [left, right, np.array([[-x, 0.8], [0, -0.2], [x, 0.8]])],
        [left, right, np.array([[-x, 0.8], [x, -0.8]])],
        [ring],
        [left, upper],
        [middle, bars[2]],
        [np.array([[-x, 0.8], [-x, -0.2], [-x * 0.5, -0.75], [x * 0.5, -0.75], [x, -0.2], [x, 0.8]])],
        [np.array([[-x, 0.8], [0, -0.8], [x, 0.8]])],
        [bars[2], np.array([[x, 0.8], [-x, -0.8]]), bars[0]],
        [np.array([[-x, 0.8], [0, 0.05], [x, 0.8]]), np.array([[0, 0.05], [0, -0.8]])],
        [upper * [1.1, 1], lower * [1.1, 1]],
        [ring * [1, 0.5] - [0, 0.4], ring * [0.85, 0.5] + [0, 0.4]],
        [np.array([[x * 0.3, -0.8], [x * 0.3, 0.8], [-x, -0.2], [x, -0.2]])],
    ]
    for line in figures[int(pen.rng.integers(len(figures)))]:
        pen.stroke(line, w)


def capsules(pen: Pen) -> None:
    """Draw a few thick strokes that share their middle."""
    for _ in range(int(pen.rng.integers(2, 5))):
        angle = pen.between(0, 2 * np.pi)
        end = np.array([np.cos(angle), np.sin(angle)]) * pen.between(0.4, 0.8)
        pen.stroke(np.stack([np.zeros(2), end]), pen.between(0.25, 0.5))


def animal(pen: Pen) -> None:
    """Draw a four-legged animal from the side, drawn along a skeleton."""
    side = pen.rng.choice([-1.0, 1.0])
    leg, thick = pen.between(0.35, 0.6), pen.between(0.16, 0.24)
    tall = pen.between(0.2, 0.3)
    pen.oval(0, 0, 0.6, tall)
    for x in (-0.45, -0.22, 0.22, 0.45):
        pen.stroke(np.array([[x, 0], [x + pen.between(-0.06, 0.06), -leg - 0.1]]), thick)
    neck = np.array([0.45 + pen.between(0.1, 0.3), pen.between(0.25, 0.65)])
    pen.stroke(np.array([[0.42, 0.05], neck]) * [side, 1], pen.between(0.2, 0.3))
    r = pen.between(0.18, 0.28)
    pen.oval(side * (neck[0] + 0.08), neck[1], r * 1.25, r)
    for dx in (-0.1, 0.1):
        ear = np.array([[neck[0] + dx, neck[1]], [neck[0] + dx - 0.02, neck[1] + r + pen.between(0.05, 0.2)]])
        pen.stroke(ear * [side, 1], 0.13)
    pen.stroke(np.array([[-0.55, 0.1], [-0.85, pen.between(-0.1, 0.4)]]) * [side, 1], 0.13)


def head(pen: Pen) -> None:
    """Draw a round head from the front with ears, of a cat, bear or rabbit."""
    wide = pen.between(0.6, 0.8)
    pen.oval(0, -0.15, wide, pen.between(0.55, 0.7))
    kind = int(pen.rng.integers(3))
    for s in (-1.0, 1.0):
        if kind == 0:
            pen.polygon(np.array([[0.1, 0.3], [wide * 0.9, 0.0], [wide * 0.85, 0.85]]) * [s, 1])
        elif kind == 1:
            pen.oval(s * wide * 0.75, 0.4, 0.27, 0.27)
        else:
            pen.oval(s * wide * 0.45, 0.65, 0.16, 0.42, turn=-s * 12)


def bird(pen: Pen) -> None:
    """Draw a bird or duck from the side."""
    s = pen.rng.choice([-1.0, 1.0])
    pen.oval(0, -0.2, 0.6, pen.between(0.34, 0.45))
    pen.oval(s * 0.45, 0.35, 0.28, 0.28)
    pen.stroke(np.array([[0.35, 0.0], [0.45, 0.35]]) * [s, 1], 0.36)
    pen.polygon(np.array([[0.6, 0.45], [0.98, 0.3], [0.6, 0.2]]) * [s, 1])
    pen.polygon(np.array([[-0.35, -0.1], [-1, pen.between(0.05, 0.3)], [-0.45, -0.5]]) * [s, 1])


def butterfly(pen: Pen) -> None:
    """Draw two pairs of wings, or a flower of petals."""
    if pen.rng.random() < 0.5:
        for s in (-1.0, 1.0):
            pen.oval(s * 0.5, 0.35, 0.5, 0.4, turn=s * 35)
            pen.oval(s * 0.4, -0.4, 0.38, 0.32, turn=-s * 35)
        pen.stroke(np.array([[0, -0.7], [0, 0.7]]), 0.2)
        return
    n = int(pen.rng.integers(5, 9))
    for k in range(n):
        a = 2 * np.pi * k / n + np.pi / 2
        pen.oval(0.58 * np.cos(a), 0.58 * np.sin(a), 0.42, 0.26 + 0.9 / n - 0.1, turn=float(np.degrees(a)))
    pen.oval(0, 0, 0.4, 0.4)


def bolt(pen: Pen) -> None:
    """Draw a lightning bolt or a banner-like speech bubble."""
    if pen.rng.random() < 0.5:
        zig = np.array([[0.15, 1], [-0.6, -0.1], [-0.05, -0.1], [-0.25, -1], [0.6, 0.25], [0.05, 0.25], [0.5, 1]])
        pen.polygon(zig)
        return
    pen.oval(0, 0.2, 0.95, pen.between(0.55, 0.7))
    s = pen.rng.choice([-1.0, 1.0])
    pen.polygon(np.array([[0.1, -0.2], [0.6, -0.2], [0.65, -0.9]]) * [s, 1])


DRAWINGS: tuple[Drawing, ...] = (
    star,
    heart,
    polygon,
    blob,
    gear,
    arrow,
    cross,
    moon,
    cloud,
    leaf,
    drop,
    key,
    fish,
    bottle,
    strokes,
    letter,
    letter,
    capsules,
    animal,
    head,
    bird,
    butterfly,
    bolt,
    blob,
)

_PROFILES: tuple[tuple[tuple[float, float], ...], ...] = (
    ((0.35, -1), (0.55, -0.4), (0.5, 0.1), (0.22, 0.55), (0.3, 0.9), (0.33, 1)),
    ((0.5, -1), (0.45, -0.9), (0.12, -0.75), (0.12, -0.1), (0.5, 0.2), (0.58, 0.6), (0.5, 1)),
    ((0.4, -1), (0.42, 0.1), (0.4, 0.3), (0.15, 0.5), (0.14, 1)),
    ((0.5, -1), (0.5, -0.8), (0.25, -0.6), (0.18, 0.2), (0.32, 0.3), (0.2, 0.4), (0.33, 0.65), (0.25, 0.9), (0.05, 1)),
    ((0.3, -0.5), (0.7, -0.2), (0.95, 0.3), (1.0, 0.5)),
    ((0.3, -0.9), (0.75, -0.5), (0.85, 0.1), (0.6, 0.55), (0.15, 0.6)),
    ((0.35, -0.9), (0.7, -0.5), (0.65, -0.1), (0.35, 0.4), (0.28, 0.7), (0.1, 0.85)),
    ((0.8, -0.8), (0.75, -0.65), (0.5, -0.2), (0.42, 0.4), (0.2, 0.7), (0.08, 0.9)),
    ((0.25, -1), (0.6, -0.6), (0.7, -0.1), (0.5, 0.6), (0.2, 0.95)),
    ((0.08, -1), (0.5, -0.2), (0.75, 0.2), (0.3, 0.4), (0.12, 0.5), (0.1, 1)),
    ((0.45, -1), (0.5, -0.3), (0.55, 0.4), (0.6, 1)),
    ((0.25, -1), (0.45, -0.6), (0.25, -0.2), (0.45, 0.2), (0.25, 0.6), (0.3, 1)),
    ((0.6, -1), (0.6, -0.75), (0.2, -0.65), (0.15, 0.3), (0.5, 0.4), (0.35, 1)),
    ((0.2, -1), (0.2, -0.1), (0.75, 0.0), (0.7, 0.35), (0.4, 0.7), (0.1, 0.85)),
)


def profile(pen: Pen) -> None:
    """Draw a left-right symmetric outline for turning: a known kind of vessel or pawn varied, or a random one."""
    if pen.rng.random() < 0.8:
        points = np.asarray(_PROFILES[int(pen.rng.integers(len(_PROFILES)))])
        points = points * [pen.between(0.85, 1.15), 1.0]
        points[:, 0] *= pen.rng.uniform(0.88, 1.12, len(points))
    else:
        n = int(pen.rng.integers(3, 7))
        points = np.stack([pen.rng.uniform(0.15, 0.7, n), np.linspace(-1, 1, n)], 1)
    t = np.linspace(0, len(points) - 1, 60)
    x = np.interp(t, np.arange(len(points)), points[:, 0])
    y = np.interp(t, np.arange(len(points)), points[:, 1])
    if pen.rng.random() < 0.75:
        kernel = np.hanning(13)[1:-1] / np.hanning(13).sum()
        x = np.convolve(np.pad(x, 5, mode="edge"), kernel, "valid")
    x = np.clip(x, 0.07, 1.05)
    pen.polygon(np.concatenate([np.stack([x, y], 1), np.stack([-x, y], 1)[::-1]]))
