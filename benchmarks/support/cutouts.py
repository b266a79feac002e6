"""Objects with exact masks for composites: the samples' models without their paper, emoji, and drawn difficult ones.

Each is RGBA with straight colours, cropped to what it shows. Those that tuning may look at and those kept for the
report share none. This module does not know what is put behind them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFont

from training.held_out_images import EMOJI, EMOJI_POINTS, EMOJI_SIDE, draw_glyph, emoji_font

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]

SAMPLES = Path(__file__).parents[2] / "samples"
RENDERED = {"tuning": ("mug", "chair", "rocket", "fish", "snowman"), "held out": ("car", "mushroom", "star", "teapot")}
CHOSEN_EMOJI = {
    "tuning": ("apple", "coffee", "cat", "bus", "cactus", "key", "guitar"),
    "held out": ("penguin", "octopus", "tractor", "house", "umbrella", "hammer", "crown", "teddy"),
}
_RENDER = """
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from make_samples import MODELS, SHOTS, build, photograph
for name in sys.argv[3:]:
    photograph(build(MODELS[name]()), replace(SHOTS[name], backdrop=None)).save(f"{sys.argv[2]}/{name}.png")
"""


@dataclass(frozen=True, eq=False)
class Cutout:
    """An object: rgba (h, w, 4) uint8, cropped."""

    name: str
    rgba: Pixels


def cutouts(part: str, cache: Path) -> list[Cutout]:
    """Return the objects of a part, 'tuning' or 'held out'. cache : where renders and a fetched font are kept.

    Raises FontNotFoundError.
    """
    found = [Cutout(name, cropped(image)) for name, image in _rendered(RENDERED[part], cache)]
    font = ImageFont.truetype(emoji_font(cache), EMOJI_POINTS)
    signs = {name: text for group in EMOJI.values() for name, text in group.items()}
    for name in CHOSEN_EMOJI[part]:
        glyph = np.asarray(draw_glyph(font, signs[name], EMOJI_SIDE))
        found.append(Cutout(f"emoji {name}", cropped(enlarged(glyph, 3))))
    drawn = DRAWN[part]
    return found + [Cutout(draw.__name__.replace("_", " "), cropped(draw())) for draw in drawn]


def _rendered(names: tuple[str, ...], cache: Path) -> list[tuple[str, Pixels]]:
    folder = cache / "rendered"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not (folder / f"{name}.png").is_file()]
    if missing:
        subprocess.run(  # noqa: S603
            [sys.executable, "-c", _RENDER, str(SAMPLES), str(folder), *missing], check=True, capture_output=True
        )
    return [(name, np.asarray(Image.open(folder / f"{name}.png").convert("RGBA"))) for name in names]


def enlarged(rgba: Pixels, times: int) -> Pixels:
    """Enlarge by whole times with a sharp edge: a bitmap of 136 pixels would be soft beside a photograph."""
    values = rgba.astype(np.float32) / 255
    premultiplied = np.dstack([values[..., :3] * values[..., 3:], values[..., 3]])
    large = cv2.resize(premultiplied, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    alpha = np.clip((large[..., 3] - 0.5) * times + 0.5, 0, 1)
    colour = large[..., :3] / np.maximum(large[..., 3:], 1e-3)
    return np.asarray(np.rint(np.dstack([colour.clip(0, 1), alpha]) * 255), dtype=np.uint8)


def cropped(rgba: Pixels) -> Pixels:
    """Keep the rows and columns from the first to the last that show anything."""
    rows, columns = np.flatnonzero(rgba[..., 3].any(1)), np.flatnonzero(rgba[..., 3].any(0))
    return np.ascontiguousarray(rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


class _Canvas:
    """A drawing of twice its size: x and y run from -1 to 1."""

    side = 480

    def __init__(self) -> None:
        rows, columns = np.mgrid[0 : 2 * self.side, 0 : 2 * self.side].astype(np.float32)
        self.x: Array = (columns + 0.5) / self.side - 1
        self.y: Array = (rows + 0.5) / self.side - 1
        self.cover: Array = np.zeros_like(self.x)
        self.colour: Array = np.zeros((*self.x.shape, 3), np.float32)

    def paint(self, cover: npt.ArrayLike, colour: npt.ArrayLike, opacity: float = 1.0) -> None:
        share = np.asarray(cover, np.float32)[..., None] * opacity
        self.colour = self.colour * (1 - share) + np.asarray(colour, np.float32) * share
        self.cover = np.maximum(self.cover, share[..., 0])

    def line(self, start: tuple[float, float], end: tuple[float, float], width: float) -> Array:
        cover = np.zeros(self.x.shape, np.uint8)
        points = [(round((x + 1) * self.side), round((y + 1) * self.side)) for x, y in (start, end)]
        cv2.line(cover, points[0], points[1], 1, max(1, round(width * self.side)))
        return cover.astype(np.float32)

    def finish(self) -> Pixels:
        full = np.dstack([self.colour * self.cover[..., None], self.cover])
        small = cv2.resize(full, (self.side, self.side), interpolation=cv2.INTER_AREA)
        straight = small[..., :3] / np.maximum(small[..., 3:], 1e-3)
        return np.asarray(np.rint(np.dstack([straight.clip(0, 1), small[..., 3]]) * 255), dtype=np.uint8)

    def ball(self, x: float, y: float, radius: float) -> tuple[Array, Array]:
        """Return the cover and the light, 0..1, of a ball lit from the upper left."""
        across, down = (self.x - x) / radius, (self.y - y) / radius
        up = np.sqrt(np.clip(1 - across**2 - down**2, 0, 1))
        light = np.clip(-0.5 * across - 0.6 * down + 0.62 * up, 0, 1)
        return (across**2 + down**2 < 1).astype(np.float32), light.astype(np.float32)


def white_vase() -> Pixels:
    """Draw a white vase with soft shading."""
    c = _Canvas()
    width = 0.28 + 0.17 * np.sin(2.6 * (c.y + 0.5)) + 0.1 * (c.y < -0.62)
    inside = (np.abs(c.x) < width) & (np.abs(c.y) < 0.8)
    across = np.clip(c.x / width, -1, 1)
    light = 0.72 + 0.27 * np.clip(-0.5 * across + 0.85 * np.sqrt(1 - across**2), 0, 1)
    c.paint(inside, np.repeat(light[..., None], 3, axis=2))
    return c.finish()


def wire_wheel() -> Pixels:
    """Draw a wheel of thin spokes: mostly holes."""
    c = _Canvas()
    away = np.hypot(c.x, c.y)
    c.paint((away < 0.85) & (away > 0.78), (0.25, 0.25, 0.28))
    for k in range(12):
        angle = k * np.pi / 6
        c.paint(c.line((0, 0), (0.8 * np.cos(angle), 0.8 * np.sin(angle)), 0.016), (0.6, 0.6, 0.64))
    c.paint(away < 0.12, (0.7, 0.2, 0.15))
    return c.finish()


def orange_ring() -> Pixels:
    """Draw a thick ring, seen through."""
    c = _Canvas()
    away = np.hypot(c.x, c.y)
    light = 0.55 + 0.45 * np.cos((away - 0.6) * 6) * (0.75 - 0.25 * c.y)
    c.paint((away < 0.8) & (away > 0.42), np.array([0.95, 0.5, 0.12]) * light[..., None])
    return c.finish()


def black_ball() -> Pixels:
    """Draw a glossy black ball with a window's highlight."""
    c = _Canvas()
    cover, light = c.ball(0, 0, 0.8)
    c.paint(cover, np.repeat((0.05 + 0.16 * light)[..., None], 3, axis=2))
    shine = (np.abs(c.x + 0.3) < 0.13) & (np.abs(c.y + 0.38) < 0.16)
    c.paint(cv2.GaussianBlur(shine.astype(np.float32), (0, 0), 5) * cover, (0.95, 0.97, 1.0))
    return c.finish()


def wine_glass() -> Pixels:
    """Draw a glass that the surroundings show through, with red wine in it."""
    c = _Canvas()
    bowl = ((c.x / 0.42) ** 2 + ((c.y + 0.35) / 0.5) ** 2 < 1) & (c.y > -0.75)
    c.paint(bowl, (0.85, 0.9, 0.92), 0.35)
    c.paint(bowl & (c.y > -0.3), (0.45, 0.04, 0.09), 0.95)
    rim = bowl & ((c.x / 0.39) ** 2 + ((c.y + 0.35) / 0.47) ** 2 > 1)
    c.paint(rim, (0.75, 0.8, 0.82), 0.8)
    c.paint((np.abs(c.x) < 0.03) & (c.y > 0.1) & (c.y < 0.75), (0.75, 0.8, 0.84), 0.85)
    c.paint((c.x / 0.32) ** 2 + ((c.y - 0.78) / 0.06) ** 2 < 1, (0.78, 0.83, 0.86), 0.85)
    return c.finish()


def colander() -> Pixels:
    """Draw a steel bowl with rows of holes."""
    c = _Canvas()
    bowl = ((c.x / 0.8) ** 2 + ((c.y + 0.3) / 0.85) ** 2 < 1) & (c.y > -0.3)
    light = 0.45 + 0.35 * np.cos(2.2 * (c.x + 0.25))
    holes = np.hypot((c.x + 0.08) % 0.16 - 0.08, (c.y + 0.08) % 0.16 - 0.08) < 0.035
    c.paint(bowl & ~holes, light[..., None] * np.array([0.98, 1.0, 1.04]))
    c.paint((np.abs(c.x) < 0.86) & (np.abs(c.y + 0.32) < 0.04), (0.8, 0.82, 0.85))
    return c.finish()


def dry_plant() -> Pixels:
    """Draw a pot with thin bare twigs."""
    c = _Canvas()
    random = np.random.default_rng(4)
    for _ in range(11):
        lean = random.uniform(-0.7, 0.7)
        middle = (0.5 * lean, 0.0 + random.uniform(-0.1, 0.2))
        c.paint(c.line((0, 0.35), middle, 0.024), (0.33, 0.24, 0.14))
        c.paint(c.line(middle, (lean, random.uniform(-0.85, -0.3)), 0.016), (0.4, 0.3, 0.17))
    pot = (np.abs(c.x) < 0.34 - 0.12 * (c.y - 0.35)) & (c.y > 0.35) & (c.y < 0.85)
    light = 0.6 + 0.4 * np.cos(2.5 * (c.x + 0.12))
    c.paint(pot, np.array([0.72, 0.36, 0.24]) * light[..., None])
    return c.finish()


DRAWN: dict[str, tuple[Callable[[], Pixels], ...]] = {
    "tuning": (white_vase, wire_wheel, orange_ring),
    "held out": (black_ball, wine_glass, colander, dry_plant),
}
