"""Flat figures with exact masks, drawn on the spot: blobs, characters, wheels and grids, vessels, plants, letters.

Each is RGBA (SIDE, SIDE, 4), drawn at twice its size. Knows nothing of surroundings or networks.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.cutout.objects import Array, Generator, Pixels, random_colour

SIDE = 288
_SCALE = 2
_FULL = SIDE * _SCALE
Points = NDArray[np.int32]


class _Paper:
    """What is drawn so far: colour (N, N, 3) and mask (N, N) uint8; lengths are shares of the side."""

    def __init__(self, rng: Generator) -> None:
        self.rng = rng
        self.colour = np.zeros((_FULL, _FULL, 3), np.uint8)
        self.mask = np.zeros((_FULL, _FULL), np.uint8)
        self.outline = self.paint(dark=True) if rng.random() < 0.35 else None
        self.line = int(rng.integers(2, 9))

    def paint(self, *, dark: bool = False) -> tuple[int, ...]:
        """Draw a colour."""
        values = self.rng.uniform(0, 70, 3) if dark else random_colour(self.rng)
        return tuple(int(c) for c in values)

    def fill(self, points: Points, colour: tuple[int, ...] | None = None) -> None:
        """Fill an outline (N, 2)."""
        cv2.fillPoly(self.mask, [points], 255, cv2.LINE_AA)
        cv2.fillPoly(self.colour, [points], colour or self.paint(), cv2.LINE_AA)
        if self.outline is not None:
            self.stroke(points, self.line, self.outline, closed=True)

    def stroke(self, points: Points, width: int, colour: tuple[int, ...], *, closed: bool = False) -> None:
        """Draw a line through points (N, 2)."""
        width = max(1, int(width))
        cv2.polylines(self.colour, [points], closed, colour, width + 2, cv2.LINE_8)
        cv2.polylines(self.mask, [points], closed, 255, width, cv2.LINE_AA)

    def cut(self, points: Points) -> None:
        """Cut a hole."""
        cv2.fillPoly(self.mask, [points], 0, cv2.LINE_AA)

    def somewhere(self) -> NDArray[np.float64]:
        """Return a place (2,) that is covered, the middle where none is."""
        ys, xs = np.nonzero(self.mask > 127)
        if not len(ys):
            return np.array([_FULL / 2, _FULL / 2])
        pick = int(self.rng.integers(len(ys)))
        return np.array([xs[pick], ys[pick]], float)


def draw_figure(rng: Generator) -> Pixels:
    """Draw a figure of any kind."""
    while True:
        paper = _Paper(rng)
        kind = int(np.searchsorted(_CUMULATIVE, rng.random() * _CUMULATIVE[-1]))
        _FIGURES[kind][1](paper)
        if (paper.mask > 127).mean() > 0.004:
            break
    colour = _shade(rng, paper.colour, paper.mask)
    return np.asarray(cv2.resize(np.dstack([colour, paper.mask]), (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def ellipse(x: float, y: float, across: float, down: float, turn: float = 0.0) -> Points:
    """Return an ellipse's outline (N, 2); lengths are pixels, half the axes."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    dx, dy = across * np.cos(angle), down * np.sin(angle)
    points = np.stack([x + dx * np.cos(turn) - dy * np.sin(turn), y + dx * np.sin(turn) + dy * np.cos(turn)], 1)
    return np.round(points).astype(np.int32)


def box(x: float, y: float, across: float, down: float, turn: float = 0.0) -> Points:
    """Return a rectangle's outline (4, 2) about its middle; lengths are pixels, half the sides."""
    dx, dy = across * np.array([-1, 1, 1, -1]), down * np.array([-1, -1, 1, 1])
    points = np.stack([x + dx * np.cos(turn) - dy * np.sin(turn), y + dx * np.sin(turn) + dy * np.cos(turn)], 1)
    return np.round(points).astype(np.int32)


def _blob(rng: Generator, centre: NDArray[np.float64], radius: float) -> Points:
    """Return a closed outline (N, 2): a polygon, an ellipse, or a star with soft points."""
    kind = rng.random()
    if kind < 0.3:
        corners = int(rng.integers(3, 7))
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = radius * rng.uniform(0.6, 1.2, corners)
    else:
        angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
        waves, depth = int(rng.integers(2, 9)), rng.uniform(0, 0.35 if kind > 0.6 else 0.0)
        reach = radius * (1 + depth * np.cos(waves * angle + rng.uniform(0, 6)))
    squash, turn = rng.uniform(0.35, 1.0), rng.uniform(0, np.pi)
    x, y = reach * np.cos(angle), squash * reach * np.sin(angle)
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1) + centre
    return np.round(points).astype(np.int32)


def _blobs(paper: _Paper) -> None:
    rng = paper.rng
    for number in range(int(rng.integers(1, 6))):
        radius = rng.uniform(0.08, 0.3) * _FULL * (1.2 if not number else 0.7)
        paper.fill(_blob(rng, paper.somewhere(), radius))
    _limbs(paper)
    if rng.random() < 0.25:
        paper.cut(_blob(rng, paper.somewhere(), rng.uniform(0.04, 0.12) * _FULL))


def _limbs(paper: _Paper) -> None:
    """Draw curves that leave the figure: a few limbs, or many hairs."""
    rng = paper.rng
    if rng.random() > 0.5:
        return
    hair = rng.random() < 0.5
    colour, root = paper.paint(), paper.somewhere()
    for _ in range(int(rng.integers(20, 90)) if hair else int(rng.integers(1, 6))):
        start = root + rng.normal(0, _FULL * 0.05, 2) if hair else paper.somewhere()
        width = int(rng.integers(1, 4)) if hair else int(rng.integers(3, 18))
        paper.stroke(_curve(rng, start, rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.3)), width, colour)


def _curve(rng: Generator, start: NDArray[np.float64], heading: float, length: float, bend: float = 1.2) -> Points:
    turn = heading + rng.normal(0, bend) * np.linspace(0, 1, 12)
    step = np.stack([np.cos(turn), np.sin(turn)], 1) * length * _FULL / 12
    return np.round(np.vstack([start, start + np.cumsum(step, 0)])).astype(np.int32)


def _character(paper: _Paper) -> None:
    """Draw a body with head, limbs, eyes, ears and hair, as a picture book has it."""
    rng, n = paper.rng, _FULL
    head, body = rng.uniform(0.1, 0.22) * n, rng.uniform(0.12, 0.24) * n
    x, neck = n / 2, n * 0.45
    skin, cloth = paper.paint(), paper.paint()
    _legs_and_arms(paper, body, skin, cloth)
    paper.fill(ellipse(x, neck + body, body * rng.uniform(0.6, 1.0), body * rng.uniform(0.8, 1.2)), cloth)
    if rng.random() < 0.4:
        paper.fill(ellipse(x, neck + body * 1.1, body * 0.5, body * 0.6))
    high, long = rng.uniform(0.9, 2.0, 2) * head
    for side in (-1, 1) if rng.random() < 0.6 else ():
        paper.fill(ellipse(x + side * head * 0.8, neck - high, head * 0.35, long * 0.45, side * 0.3), skin)
    paper.fill(ellipse(x, neck - head * 0.8, head * rng.uniform(0.8, 1.2), head), skin)
    if rng.random() < 0.5:
        _hair(paper, np.array([x, neck - head * 0.8]), head * 0.8)
    for side in (-1, 1):
        for size, colour in ((0.2, (250, 250, 250)), (0.1, (20, 20, 20))):
            paper.fill(ellipse(x + side * head * 0.38, neck - head * 0.9, head * size, head * size), colour)
    paper.fill(ellipse(x, neck - head * 0.4, head * rng.uniform(0.1, 0.4), head * 0.1))


def _legs_and_arms(paper: _Paper, body: float, skin: tuple[int, ...], cloth: tuple[int, ...]) -> None:
    rng, n = paper.rng, _FULL
    x, neck, width = n / 2, n * 0.45, int(rng.uniform(0.02, 0.08) * n)
    for side in (-1, 1):
        foot = np.array([x + side * body * rng.uniform(0.2, 0.8), neck + body * rng.uniform(1.9, 2.8)])
        hip = np.array([x + side * body * 0.4, neck + body * 1.4])
        paper.stroke(_rounded([hip, foot]), width, cloth if rng.random() < 0.5 else skin)
        paper.fill(ellipse(foot[0] + side * width * 0.4, foot[1], width * rng.uniform(0.6, 1.3), width * 0.6))
        arm = _curve(rng, np.array([x + body * 0.6, neck + body * 0.6]), rng.uniform(-1.2, 1.3), 0.25, 0.8)
        arm[:, 0] = arm[:, 0] if side > 0 else n - arm[:, 0]
        paper.stroke(arm, int(width * 0.8), skin)


def _hair(paper: _Paper, middle: NDArray[np.float64], reach: float) -> None:
    rng, colour = paper.rng, paper.paint()
    for _ in range(int(rng.integers(30, 120))):
        angle = rng.uniform(-np.pi, 0)
        root = middle + reach * np.array([np.cos(angle), np.sin(angle)])
        line = _curve(rng, root, angle + rng.normal(0, 0.4), rng.uniform(0.03, 0.12), 0.8)
        paper.stroke(line, int(rng.integers(1, 4)), colour)


def _wheel(paper: _Paper) -> None:
    """Draw a rim with spokes or none, or two with a frame; what is between is not object."""
    rng, n = paper.rng, _FULL
    if rng.random() < 0.7:
        _rim(paper, n / 2, n / 2, 0.46 * n)
        return
    for x in (0.27, 0.74):
        _rim(paper, x * n, 0.62 * n, 0.22 * n)
    for _ in range(int(rng.integers(3, 6))):
        a, b = rng.uniform(0.25, 0.75, 2), rng.uniform(0.2, 0.62, 2)
        points = np.array([(0.27, 0.62), a, b, (0.74, 0.62)]) * n
        paper.stroke(_rounded(points), int(rng.integers(4, 18)), paper.paint())


def _rim(paper: _Paper, x: float, y: float, radius: float) -> None:
    rng = paper.rng
    rim = radius * (rng.uniform(0.03, 0.08) if rng.random() < 0.3 else rng.uniform(0.05, 0.5))
    squash = rng.uniform(0.5, 1.0) if rng.random() < 0.4 else 1.0
    paper.fill(ellipse(x, y, radius * squash, radius))
    paper.cut(ellipse(x, y, (radius - rim) * squash, radius - rim))
    spokes, colour = int(rng.choice([0, 0, 3, 4, 5, 6, 8, 12, 18, 24, 32])), paper.paint()
    thick = rng.uniform(0.003, 0.012) if spokes > 6 or rng.random() < 0.3 else rng.uniform(0.008, 0.05)
    width, first = int(thick * _FULL), rng.uniform(0, 1)
    for k in range(spokes):
        turn = first + 2 * np.pi * k / spokes
        end = (x + (radius - rim / 2) * squash * np.cos(turn), y + (radius - rim / 2) * np.sin(turn))
        paper.stroke(_rounded([(x, y), end]), width, colour)
    if spokes:
        paper.fill(ellipse(x, y, radius * 0.15 * squash, radius * 0.15))


def _lattice(paper: _Paper) -> None:
    """Draw bars: a chair, a ladder, a fence, a rack, a cage; all in one piece."""
    rng, n = paper.rng, _FULL
    colour, width = paper.paint(), int(np.exp(rng.uniform(np.log(0.005), np.log(0.05))) * n)
    left, right = rng.uniform(0.08, 0.3) * n, rng.uniform(0.7, 0.92) * n
    top, bottom = 0.06 * n, 0.94 * n
    lean = rng.normal(0, 0.06) * n
    for x in np.linspace(left, right, int(rng.integers(2, 8))):
        paper.stroke(_rounded([(x + lean, top), (x - lean, bottom)]), width, colour)
    for y in np.linspace(top + 0.05 * n, bottom - rng.uniform(0.05, 0.4) * n, int(rng.integers(2, 8))):
        shift = lean * (y - n / 2) / (bottom - top) * 2
        paper.stroke(_rounded([(left - shift, y), (right - shift, y)]), width, colour)
    if rng.random() < 0.6:
        across, down = (right - left) / 2 * rng.uniform(0.8, 1.2), rng.uniform(0.02, 0.1) * n
        paper.fill(box(n / 2, rng.uniform(0.45, 0.65) * n, across, down))


def _cage(paper: _Paper) -> None:
    """Draw wires that bulge or are straight, with rings about them, on a foot or none: cages, baskets, lampshades."""
    rng, n = paper.rng, _FULL
    colour, width = paper.paint(), int(np.exp(rng.uniform(np.log(0.004), np.log(0.018))) * n)
    y = np.linspace(0.06, 0.9, 40)
    narrow, wide, round_ = rng.uniform(0.0, 0.9), rng.uniform(0.2, 0.44), rng.uniform(0.3, 2.0)
    half = wide * (narrow + (1 - narrow) * np.sin(np.linspace(0, rng.uniform(0.5, 0.95), 40) * np.pi) ** round_)
    for share in np.linspace(-1, 1, int(rng.integers(4, 14))):
        paper.stroke(_rounded(np.stack([0.5 + half * share, y], 1) * n), width, colour)
    flat = rng.uniform(0.0, 0.25)
    for row in np.unique([*rng.integers(0, 40, int(rng.integers(1, 6))), 39]):
        ring = ellipse(0.5 * n, y[row] * n, half[row] * n, max(half[row] * flat * n, 1))
        paper.stroke(ring, width, colour, closed=True)
    if rng.random() < 0.5:
        paper.fill(box(0.5 * n, 0.92 * n, half[-1] * n * rng.uniform(0.9, 1.1), rng.uniform(0.01, 0.04) * n))


def _sieve(paper: _Paper) -> None:
    """Draw a plate or a bowl with rows of holes."""
    rng, n = paper.rng, _FULL
    if rng.random() < 0.6:
        outline = ellipse(n / 2, n / 2, rng.uniform(0.3, 0.46) * n, rng.uniform(0.2, 0.46) * n)
        outline = outline[outline[:, 1] > n * 0.42] if rng.random() < 0.5 else outline
    else:
        outline = box(n / 2, n / 2, 0.4 * n, rng.uniform(0.15, 0.42) * n)
    paper.fill(outline)
    step = rng.uniform(0.06, 0.2) * n
    hole = step * rng.uniform(0.15, 0.36)
    inner = cv2.erode(paper.mask, np.ones((int(hole) * 2 + 7,) * 2, np.uint8))
    for row, y in enumerate(np.arange(step / 2, n, step)):
        for x in np.arange(step / 2 + (row % 2) * step / 2, n, step):
            if inner[int(y), min(int(x), n - 1)]:
                paper.cut(ellipse(x, y, hole, hole * rng.uniform(0.9, 1.1)))


def _vessel(paper: _Paper) -> None:
    """Draw a turned thing: a vase, bottle, glass, lamp or chess piece, round by its light, perhaps with a handle."""
    rng, n = paper.rng, _FULL
    y = np.linspace(0.05, 0.95, 90) * n
    knots = rng.uniform(0.05, 0.4, int(rng.integers(3, 8)))
    half = np.interp(np.linspace(0, len(knots) - 1, 90), np.arange(len(knots)), knots) * n
    if rng.random() < 0.7:
        half = cv2.GaussianBlur(half.astype(np.float32)[None], (0, 0), rng.uniform(2, 9))[0].astype(np.float64)
    if rng.random() < 0.35:
        side, reach, at = rng.choice([-1, 1]), rng.uniform(0.1, 0.25) * n, int(rng.integers(20, 70))
        handle = ellipse(n / 2 + side * half[at], y[at], reach, reach * rng.uniform(0.7, 1.6))
        paper.stroke(handle, int(rng.uniform(0.02, 0.06) * n), paper.paint(), closed=True)
    right, left = np.stack([n / 2 + half, y], 1), np.stack([n / 2 - half, y], 1)
    paper.fill(_rounded(np.vstack([right, left[::-1]])))
    for _ in range(int(rng.integers(0, 4))):
        a, b = np.sort(rng.integers(0, 90, 2))
        band = np.vstack([right[a : b + 1], left[a : b + 1][::-1]])
        cv2.fillPoly(paper.colour, [_rounded(band)], paper.paint(), cv2.LINE_AA)
    rows = np.interp(np.arange(n), y, half)[:, None]
    across = ((np.arange(n)[None] - n / 2) / np.maximum(rows, 1)).clip(-1, 1)
    facing = (np.sqrt(1 - across**2) * 0.7 + rng.choice([-1, 1]) * 0.5 * across).clip(0, 1)
    light = rng.uniform(0.35, 0.8) + 0.6 * facing
    paper.colour = (paper.colour * light[..., None]).clip(0, 255).astype(np.uint8)


def _plant(paper: _Paper) -> None:
    """Draw twigs that branch, with leaves or none, in a pot or none."""
    rng, n = paper.rng, _FULL
    wood, leaf = paper.paint(), paper.paint()
    ends = [(np.array([n / 2, 0.72 * n]), -np.pi / 2 + rng.normal(0, 0.2), rng.uniform(0.03, 0.07) * n)]
    leaves, thin = rng.random() < 0.6, rng.uniform(0.45, 0.75)
    for _ in range(int(rng.integers(2, 5))):
        grown = []
        for start, heading, width in ends:
            for _ in range(int(rng.integers(2, 4))):
                turned = heading + rng.normal(0, 0.5)
                line = _curve(rng, start, turned, rng.uniform(0.1, 0.22), 0.4)
                paper.stroke(line, max(int(width), 2), wood)
                grown.append((line[-1].astype(np.float64), turned, width * thin))
                if leaves:
                    at = line[int(rng.integers(4, 12))]
                    long, wide = rng.uniform(0.02, 0.07) * n, rng.uniform(0.01, 0.03) * n
                    paper.fill(ellipse(at[0], at[1], long, wide, rng.uniform(0, 3)), leaf)
        ends = [grown[k] for k in rng.permutation(len(grown))[:9]]
    if rng.random() < 0.7:
        wide, low = rng.uniform(0.08, 0.22) * n, rng.uniform(0.5, 0.95)
        pot = np.array([(-wide, 0.7 * n), (wide, 0.7 * n), (wide * low, 0.95 * n), (-wide * low, 0.95 * n)])
        paper.fill(_rounded(pot + np.array([n / 2, 0])))


def _machine(paper: _Paper) -> None:
    """Draw boxes on wheels or legs, with windows and rods: vehicles, houses, tools, furniture."""
    rng, n = paper.rng, _FULL
    for number in range(int(rng.integers(2, 7))):
        at = paper.somewhere() if number else np.array([n / 2, 0.55 * n])
        turn = rng.normal(0, 0.3) if rng.random() < 0.2 else 0.0
        across, down = rng.uniform(0.06, 0.3, 2) * n * (0.6 if number else 1.0)
        paper.fill(box(at[0], at[1], across, down, turn))
        if rng.random() < 0.5:
            cv2.fillPoly(paper.colour, [box(at[0], at[1], across * 0.6, down * 0.5, turn)], paper.paint(), cv2.LINE_AA)
    rows, columns = np.flatnonzero((paper.mask > 127).any(1)), np.flatnonzero((paper.mask > 127).any(0))
    foot, left, right = rows[-1], columns[0], columns[-1]
    radius = rng.uniform(0.03, 0.13) * n
    for x in np.linspace(left + radius, right - radius, int(rng.integers(2, 5))):
        if rng.random() < 0.6:
            paper.fill(ellipse(x, foot, radius, radius))
        else:
            paper.fill(box(x, foot, radius * 0.25, radius * 1.5))
    _limbs(paper)


def _letters(paper: _Paper) -> None:
    """Draw a few thick letters or digits, as a sign has them."""
    rng, n = paper.rng, _FULL
    text = "".join(chr(int(rng.choice([*range(48, 58), *range(65, 91)]))) for _ in range(int(rng.integers(1, 4))))
    font, scale = int(rng.integers(0, 5)), rng.uniform(9, 15) / len(text) ** 0.8
    thick = int(rng.uniform(14, 60) / len(text) ** 0.5)
    (w, h), _ = cv2.getTextSize(text, font, scale, thick)
    at = ((n - w) // 2, (n + h) // 2)
    cv2.putText(paper.mask, text, at, font, scale, 255, thick, cv2.LINE_AA)
    paper.colour[:] = paper.paint()
    if rng.random() < 0.5:
        cv2.putText(paper.colour, text, at, font, scale, paper.paint(), max(thick // 2, 1), cv2.LINE_AA)


def _furry(paper: _Paper) -> None:
    """Draw a blob with hair all round."""
    rng, n = paper.rng, _FULL
    paper.outline = None
    points = _blob(rng, np.array([n / 2, n / 2]), rng.uniform(0.2, 0.34) * n)
    first = np.array(paper.paint())
    paper.fill(points, tuple(int(c) for c in first))
    middle, length = points.mean(0), rng.uniform(0.02, 0.12)
    for _ in range(int(rng.integers(150, 500))):
        out = (points[int(rng.integers(len(points)))] - middle) * rng.uniform(0.75, 1.0)
        shade = tuple(int(c) for c in np.clip(first * rng.uniform(0.6, 1.3), 0, 255))
        heading = float(np.arctan2(out[1], out[0])) + rng.normal(0, 0.4)
        paper.stroke(_curve(rng, middle + out, heading, length, 0.6), int(rng.integers(1, 4)), shade)


def _rounded(points: ArrayLike) -> Points:
    return np.round(np.asarray(points)).astype(np.int32)


_FIGURES: tuple[tuple[float, Callable[[_Paper], None]], ...] = (
    (0.22, _blobs),
    (0.16, _character),
    (0.13, _wheel),
    (0.12, _lattice),
    (0.05, _cage),
    (0.05, _sieve),
    (0.13, _vessel),
    (0.08, _plant),
    (0.1, _machine),
    (0.04, _letters),
    (0.05, _furry),
)
_CUMULATIVE = np.cumsum([share for share, _ in _FIGURES])


def _shade(rng: Generator, colour: Pixels, mask: Pixels) -> Pixels:
    """Light a flat figure as if it were round, stripe it, or leave it flat."""
    kind = rng.random()
    out: Array = colour.astype(np.float32)
    side = len(mask)
    if kind < 0.45:
        small = cv2.resize(mask, (side // 4, side // 4), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        height = np.sqrt(cv2.GaussianBlur(small, (0, 0), rng.uniform(0.03, 0.1) * side / 4))
        light = rng.normal(0, 1, 2)
        slope = cv2.Sobel(height, -1, 1, 0) * light[0] + cv2.Sobel(height, -1, 0, 1) * light[1]
        shade = 1 + np.clip(slope * rng.uniform(1.5, 4), -0.55, 0.45)
        out *= cv2.resize(shade, (side, side), interpolation=cv2.INTER_LINEAR)[..., None]
    elif kind < 0.62:
        y, x = np.mgrid[:side, :side].astype(np.float32)
        turn, period = rng.uniform(0, np.pi), rng.uniform(12, 60)
        wave = np.sin((x * np.cos(turn) + y * np.sin(turn)) / period * 2 * np.pi) > rng.uniform(-0.5, 0.7)
        mix = rng.uniform(0.3, 1.0)
        out = np.where(wave[..., None], out * (1 - mix) + random_colour(rng) * mix, out)
    return np.asarray(out.clip(0, 255), np.uint8)
