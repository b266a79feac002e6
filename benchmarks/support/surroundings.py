"""Surfaces behind and under an object, made of noise and lines: wood, tiles, cloth, leaves, light spots, photographs.

Every function gives (h, w, 3) float32 in 0..1 sRGB. This module does not know what is put before them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Random = np.random.Generator
Surface = Callable[[Random, int, int], Array]

PHOTOGRAPHS = {
    "skimage.data": ("coffee.png", "chelsea.png", "brick.png", "grass.png", "gravel.png", "motorcycle_left.png"),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}


def plain(colour: tuple[float, float, float]) -> Surface:
    """Make a surface of one colour."""
    return lambda _random, h, w: np.tile(np.asarray(colour, np.float32), (h, w, 1))


def any_colour(random: Random, h: int, w: int) -> Array:
    """Draw one colour, neither very dark nor nearly white."""
    return np.tile(random.uniform(0.25, 0.85, 3).astype(np.float32), (h, w, 1))


def grey(random: Random, h: int, w: int) -> Array:
    """Draw a grey of any lightness."""
    return np.full((h, w, 3), random.uniform(0.15, 0.93), np.float32)


def gradient(random: Random, h: int, w: int) -> Array:
    """Draw one colour that turns into another along any direction."""
    first, second = random.uniform(0.3, 0.95, 3), random.uniform(0.3, 0.95, 3)
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    along = x * np.cos(angle) + y * np.sin(angle)
    share = (along - along.min()) / np.ptp(along)
    return _float(first * (1 - share[..., None]) + 0.5 * (first + second) * share[..., None])


def spot(random: Random, h: int, w: int) -> Array:
    """Draw a studio backdrop: light in the middle, darker to the corners."""
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    away = np.hypot(x - random.uniform(-0.3, 0.3), y - random.uniform(-0.3, 0.3))
    colour = random.uniform(0.55, 0.95) * np.array([1, 1, 1]) * random.uniform(0.93, 1, 3)
    return _float(colour * (1 - random.uniform(0.2, 0.45) * np.clip(away, 0, 1.5)[..., None] / 1.5))


def wood(random: Random, h: int, w: int) -> Array:
    """Draw boards with a grain that runs along them."""
    base = np.array([0.55, 0.37, 0.22]) * random.uniform(0.6, 1.4)
    grain = _noise(random, h, w, (2.0, 60.0)) * 0.12 + _noise(random, h, w, (0.6, 25.0)) * 0.05
    rings = 0.04 * np.sin(40 * (_noise(random, h, w, (18.0, 120.0)) + np.linspace(0, 1, h)[:, None]))
    tone = grain + rings
    board = max(30, round(h * random.uniform(0.14, 0.3)))
    for top in range(0, h, board):
        tone[top : top + board] += random.uniform(-0.07, 0.07)
        tone[top : top + 2] -= 0.2
    return _float(base * (1 + 1.3 * tone[..., None]))


def tiles(random: Random, h: int, w: int) -> Array:
    """Draw square tiles with joints and a slightly different tone each."""
    side = round(min(h, w) * random.uniform(0.1, 0.22))
    joint = max(2, side // 18)
    colour = random.uniform(0.45, 0.9, 3) * 0.4 + random.uniform(0.45, 0.9) * 0.6
    rows, columns = np.mgrid[0:h, 0:w]
    each = random.uniform(-0.08, 0.08, (h // side + 2, w // side + 2))[rows // side, columns // side]
    gap = (rows % side < joint) | (columns % side < joint)
    return _float(np.where(gap[..., None], colour * 0.65, colour * (1 + each[..., None])))


def checkerboard(random: Random, h: int, w: int) -> Array:
    """Draw a board of two tones, as transparency is shown, or bolder."""
    side = max(8, round(min(h, w) * random.uniform(0.03, 0.12)))
    light, dark = random.uniform(0.75, 1.0), random.uniform(0.45, 0.75)
    rows, columns = np.mgrid[0:h, 0:w] // side
    return np.repeat(np.where((rows + columns) % 2 == 0, light, dark).astype(np.float32)[..., None], 3, axis=2)


def cloth(random: Random, h: int, w: int) -> Array:
    """Draw a woven cloth with soft folds."""
    colour = random.uniform(0.3, 0.8, 3)
    y, x = np.mgrid[0:h, 0:w]
    step = random.uniform(3, 6)
    weave = 0.05 * np.sin(2 * np.pi * x / step) * np.sin(2 * np.pi * y / step)
    folds = 0.35 * _noise(random, h, w, (70.0, 25.0)) + 0.1 * _noise(random, h, w, (25.0, 10.0))
    return _float(colour * (1 + weave + folds)[..., None])


def marble(random: Random, h: int, w: int) -> Array:
    """Draw pale stone with veins."""
    veins = np.abs(np.sin(6 * (_noise(random, h, w, (60.0, 60.0)) * 2 + np.linspace(0, 2, w))))
    tone = random.uniform(0.7, 0.9) - 0.25 * np.exp(-12 * veins) + 0.05 * _noise(random, h, w, (12.0, 12.0))
    return _float(tone[..., None] * random.uniform(0.94, 1.0, 3))


def grass(random: Random, h: int, w: int) -> Array:
    """Draw blades of grass: noise drawn out upwards, in greens."""
    field = 0.6 * _noise(random, h, w, (6.0, 1.0)) + 0.4 * _noise(random, h, w, (30.0, 30.0))
    base = np.array([0.32, 0.48, 0.16]) * random.uniform(0.8, 1.2)
    return _float(base * (1 + 0.8 * field)[..., None] + 0.04 * _noise(random, h, w, (4.0, 1.0))[..., None])


def foliage(random: Random, h: int, w: int) -> Array:
    """Draw leaves lying over one another."""
    image = np.tile(np.array([0.12, 0.2, 0.08], np.float32), (h, w, 1))
    for _ in range(260):
        colour = np.array([0.25, 0.42, 0.15]) * random.uniform(0.5, 1.5) + random.uniform(-0.06, 0.06, 3)
        centre = (int(random.uniform(0, w)), int(random.uniform(0, h)))
        axes = (int(min(h, w) * random.uniform(0.04, 0.09)), int(min(h, w) * random.uniform(0.015, 0.035)))
        cv2.ellipse(image, centre, axes, random.uniform(0, 180), 0, 360, colour.clip(0, 1).tolist(), -1, cv2.LINE_AA)
    return _float(image * (1 + 0.15 * _noise(random, h, w, (3.0, 3.0))[..., None]))


def bokeh(random: Random, h: int, w: int) -> Array:
    """Draw lights far out of focus before a dark room."""
    image = np.tile(random.uniform(0.05, 0.35, 3).astype(np.float32), (h, w, 1))
    for _ in range(45):
        disc = np.zeros((h, w), np.float32)
        centre = (int(random.uniform(0, w)), int(random.uniform(0, h)))
        cv2.circle(disc, centre, int(min(h, w) * random.uniform(0.03, 0.09)), 1.0, -1, cv2.LINE_AA)
        image += disc[..., None] * random.uniform(0.0, 0.5, 3).astype(np.float32)
    return _float(cv2.GaussianBlur(image, (0, 0), random.uniform(1.5, 6)))


def photograph(name: str) -> Surface:
    """Make a surface of a part of a photograph that one of the packages in PHOTOGRAPHS brings."""

    def draw(random: Random, h: int, w: int) -> Array:
        image = _load(name)
        scale = max(h / image.shape[0], w / image.shape[1]) * random.uniform(1.0, 1.4)
        size = (round(image.shape[1] * scale) + 1, round(image.shape[0] * scale) + 1)
        large = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        top, left = random.integers(0, large.shape[0] - h + 1), random.integers(0, large.shape[1] - w + 1)
        return _float(large[top : top + h, left : left + w])

    return draw


@lru_cache(maxsize=8)
def _load(name: str) -> Array:
    for package, names in PHOTOGRAPHS.items():
        if name in names:
            # The package alone: looking for what is in it would import it.
            found = importlib.util.find_spec(package.partition(".")[0])
            if found is None or not found.submodule_search_locations:
                raise FileNotFoundError(f"{package}, which holds {name}, is not installed")
            folder = Path(found.submodule_search_locations[0]).joinpath(*package.split(".")[1:])
            pixels = cv2.imread(str(folder / name), cv2.IMREAD_COLOR_RGB)
            if pixels is None:
                raise FileNotFoundError(name)
            return _float(pixels / 255)
    raise KeyError(name)


def _noise(random: Random, h: int, w: int, grain: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Return smooth noise of mean 0 and deviation 0.5; grain : its sigmas down and across, in pixels."""
    field = cv2.GaussianBlur(random.normal(0, 1, (h, w)), (0, 0), sigmaX=grain[1], sigmaY=grain[0])
    return np.asarray((field - field.mean()) / (2 * field.std()))


def _float(values: npt.ArrayLike) -> Array:
    return np.clip(np.asarray(values, dtype=np.float32), 0, 1)
