"""Photographs put together: an object with an exact mask in ordinary surroundings, through a better or worse camera.

A kind says where the object stands and what the picture holds beside it; KINDS names those that tuning may look at and
those kept for the report. This module does not know how an object is cut out again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.support import surroundings as s
from benchmarks.support.cutouts import Cutout

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Random = np.random.Generator
Objects = Literal["all", "largest"]

SIZES = ((480, 640), (480, 640), (640, 480), (512, 512))


@dataclass(frozen=True, eq=False)
class Composite:
    """One picture: image (H, W, 3) uint8, mask (H, W) in 0..1, and what a cutter is asked for."""

    kind: str
    object: str
    image: Pixels
    mask: Array
    objects: Objects = "all"


@dataclass(eq=False)
class Stage:
    """A picture in the making: image (h, w, 3) in 0..1; cover (h, w), colours (h, w, 3) of the object in its place."""

    random: Random
    image: Array
    cover: Array
    colour: Array
    bottom: int
    objects: Objects = "all"
    margins: tuple[int, int, int, int] = field(default=(0, 0, 0, 0))

    def light(self, factor: Array) -> None:
        """Multiply what is drawn so far by (h, w)."""
        self.image *= factor[..., None]

    def put(self) -> None:
        """Lay the object over what is drawn so far."""
        self.image = self.image * (1 - self.cover[..., None]) + self.colour * self.cover[..., None]


def _set(
    random: Random, surface: Callable[[Random, int, int], Array], cutout: Cutout, fill: tuple[float, float], low: float
) -> Stage:
    """Set an object, at a share of the picture's size, before a surface; low : how far down it may stand, 0..1."""
    h, w = SIZES[random.integers(len(SIZES))]
    rgba = cutout.rgba[:, ::-1] if random.random() < 0.5 else cutout.rgba
    scale = random.uniform(*fill) * min(h / rgba.shape[0], w / rgba.shape[1])
    values = rgba.astype(np.float32) / 255
    values = np.dstack([values[..., :3] * values[..., 3:], values[..., 3]])
    size = (max(8, round(rgba.shape[1] * scale)), max(8, round(rgba.shape[0] * scale)))
    small = cv2.resize(values, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top = round((h - size[1]) * random.uniform(0.35, low))
    left = round((w - size[0]) * random.uniform(0.25, 0.75))
    return _placed(random, surface(random, h, w), small, top, left)


def _placed(random: Random, image: Array, small: Array, top: int, left: int) -> Stage:
    """Lay premultiplied RGBA at a place, which may be partly outside."""
    h, w = image.shape[:2]
    full = np.zeros((h, w, 4), np.float32)
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(h, top + small.shape[0]), min(w, left + small.shape[1])
    full[y0:y1, x0:x1] = small[y0 - top : y1 - top, x0 - left : x1 - left]
    colour = full[..., :3] / np.maximum(full[..., 3:], 1e-3)
    return Stage(random, image, full[..., 3], colour.clip(0, 1), y1)


def _blob(stage: Stage, strength: float, softness: float) -> None:
    """Lay a shadow on the ground under the object: an ellipse about its foot; softness in pixels."""
    columns = np.flatnonzero(stage.cover.max(0) > 0.5)
    middle, half = int((columns[0] + columns[-1]) / 2), (columns[-1] - columns[0]) / 2
    shade = np.zeros(stage.cover.shape, np.float32)
    shift = stage.random.uniform(-0.25, 0.25) * half
    centre = (int(middle + shift), int(stage.bottom - 0.02 * half))
    axes = (int(half * stage.random.uniform(0.8, 1.2)), max(3, int(half * stage.random.uniform(0.12, 0.25))))
    cv2.ellipse(shade, centre, axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    stage.light(1 - strength * _soft(shade, softness))


def _cast(stage: Stage, strength: float, softness: float) -> None:
    """Lay the object's own outline on the ground, slanted and flattened."""
    slant, flat = stage.random.choice([-1, 1]) * stage.random.uniform(0.5, 1.1), stage.random.uniform(0.25, 0.45)
    y0 = stage.bottom - 1
    matrix = np.array([[1, -slant, slant * y0], [0, flat, y0 * (1 - flat)]], np.float32)
    shade = cv2.warpAffine(stage.cover, matrix, stage.cover.shape[::-1])
    stage.light(1 - strength * _soft(shade, softness))


def _drop(stage: Stage, strength: float, softness: float) -> None:
    """Lay the outline behind the object, moved a little, as a page does it."""
    step = stage.random.uniform(0.01, 0.03) * stage.cover.shape[0]
    moved = cv2.warpAffine(stage.cover, np.array([[1, 0, step], [0, 1, step]], np.float32), stage.cover.shape[::-1])
    stage.light(1 - strength * _soft(moved, softness))


def _soft(shade: npt.NDArray[np.generic], sigma: float) -> Array:
    return np.asarray(cv2.GaussianBlur(shade, (0, 0), sigma) if sigma else shade, dtype=np.float32)


def _mirror(stage: Stage, strength: float, reach: float) -> None:
    """Lay the object's mirror image under it, fading downwards; reach : where it is gone, as a share of its height."""
    h = stage.cover.shape[0]
    rows = 2 * stage.bottom - 1 - np.arange(h)
    there = (rows >= 0) & (rows < h) & (np.arange(h) >= stage.bottom)
    source = rows.clip(0, h - 1)
    top = int(np.flatnonzero(stage.cover.max(1) > 0.5)[0])
    fade = np.clip(1 - (np.arange(h) - stage.bottom) / max(1, reach * (stage.bottom - top)), 0, 1) * there * strength
    share = (stage.cover[source] * fade[:, None])[..., None]
    stage.image = stage.image * (1 - share) + stage.colour[source] * share


def _horizon(stage: Stage, table: s.Surface, at: float, blur: float, tilt: float = 0.0) -> None:
    """Lay a table under a horizon at a share of the height."""
    h, w = stage.cover.shape
    below = table(stage.random, h, w)
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    line = at * h + tilt * (x - w / 2)
    share = np.clip((y - line) / max(blur, 0.5) + 0.5, 0, 1)[..., None]
    stage.image = stage.image * (1 - share) + below * share


def _write(stage: Stage, text: str, at: tuple[float, float], size: float, colour: tuple[float, float, float]) -> None:
    h, w = stage.cover.shape
    scale = size * min(h, w) / 22
    place = (round(at[0] * w), round(at[1] * h))
    ink = np.zeros((h, w), np.uint8)
    cv2.putText(ink, text, place, cv2.FONT_HERSHEY_DUPLEX, scale, 255, max(1, round(scale * 1.6)), cv2.LINE_AA)
    share = (ink / 255)[..., None].astype(np.float32)
    stage.image = stage.image * (1 - share) + np.asarray(colour, np.float32) * share


def _badge(stage: Stage, corner: tuple[float, float]) -> None:
    h, w = stage.cover.shape
    centre, radius = (round(corner[0] * w), round(corner[1] * h)), round(0.075 * min(h, w))
    cv2.circle(stage.image, centre, radius, (0.86, 0.08, 0.15), -1, cv2.LINE_AA)
    _write(stage, "-30%", (corner[0] - 0.05, corner[1] + 0.012), 0.024, (1.0, 1.0, 1.0))


def _framed(stage: Stage, margins: tuple[int, int, int, int], colour: float, line: int = 0) -> None:
    """Lay the whole picture into margins (top, right, bottom, left); line : pixels of a dark line about it."""
    top, right, bottom, left = margins
    stage.image = np.pad(stage.image, ((top, bottom), (left, right), (0, 0)), constant_values=colour)
    stage.cover = np.pad(stage.cover, ((top, bottom), (left, right)))
    if line:
        for edge in (np.s_[:line], np.s_[-line:], np.s_[:, :line], np.s_[:, -line:]):
            stage.image[edge] = 0.05
            stage.cover[edge] = 0


Kind = Callable[[Random, Cutout], Stage]


def _on(surface: s.Surface, *, shadow: bool = False, fill: tuple[float, float] = (0.45, 0.8)) -> Kind:
    """Make a kind: the object before one surface, with a soft shadow where asked."""

    def draw(random: Random, cutout: Cutout) -> Stage:
        stage = _set(random, surface, cutout, fill, 0.6)
        if shadow:
            _blob(stage, random.uniform(0.2, 0.5), 0.025 * min(stage.cover.shape))
        stage.put()
        return stage

    return draw


def _shaded(
    surface: s.Surface, shadow: Callable[[Stage, float, float], None], strength: float, softness: float
) -> Kind:
    def draw(random: Random, cutout: Cutout) -> Stage:
        stage = _set(random, surface, cutout, (0.45, 0.7), 0.55)
        shadow(stage, strength * random.uniform(0.85, 1.15), softness * min(stage.cover.shape))
        stage.put()
        return stage

    return draw


def _table(
    wall: s.Surface, table: s.Surface, horizon: tuple[float, float], blur: float = 1.0, *, shadow: float = 0.5
) -> Kind:
    """Make a kind: the object on a table before a wall; horizon : from and to, as shares of the height."""

    def draw(random: Random, cutout: Cutout) -> Stage:
        stage = _set(random, wall, cutout, (0.4, 0.65), 0.6)
        _horizon(stage, table, random.uniform(*horizon), blur, random.uniform(-0.03, 0.03))
        _blob(stage, shadow * random.uniform(0.6, 1.0), random.uniform(0.008, 0.03) * min(stage.cover.shape))
        stage.put()
        return stage

    return draw


def _mirrored(wall: s.Surface, floor: s.Surface | None) -> Kind:
    def draw(random: Random, cutout: Cutout) -> Stage:
        stage = _set(random, wall, cutout, (0.4, 0.6), 0.4)
        if floor is not None:
            _horizon(stage, floor, random.uniform(0.5, 0.65), 3.0)
        _mirror(stage, random.uniform(0.25, 0.4), random.uniform(0.6, 1.0))
        stage.put()
        return stage

    return draw


def _bordered(inner: Kind, shares: tuple[float, float, float, float], colour: float, line: int = 0) -> Kind:
    def draw(random: Random, cutout: Cutout) -> Stage:
        stage = inner(random, cutout)
        side = min(stage.cover.shape)
        wider = random.uniform(0.8, 1.3)
        top, right, bottom, left = (round(share * side * wider) for share in shares)
        _framed(stage, (top, right, bottom, left), colour, line)
        return stage

    return draw


def _caption(random: Random, cutout: Cutout) -> Stage:
    stage = _set(random, s.plain((0.99, 0.99, 0.99)), cutout, (0.4, 0.6), 0.45)
    stage.put()
    _write(stage, str(random.choice(["TEAPOT 0.8 l", "only 19.90", "NEW IN"])), (0.2, 0.95), 0.035, (0.15, 0.15, 0.15))
    _badge(stage, (0.88, 0.1))
    stage.objects = "largest"
    return stage


def _app_card(random: Random, cutout: Cutout) -> Stage:
    stage = _set(random, s.gradient, cutout, (0.55, 0.75), 0.55)
    stage.put()
    side = min(stage.cover.shape)
    margins = (round(0.12 * side), round(0.06 * side), round(0.22 * side), round(0.06 * side))
    _framed(stage, margins, 0.96)
    h = stage.cover.shape[0]
    _write(stage, "Details", (0.07, 1 - 0.1 * side / h), 0.035, (0.1, 0.1, 0.1))
    stage.objects = "largest"
    return stage


def _cut_by(sides: Sequence[str]) -> Kind:
    """Make a kind: the object reaches over one or more of the picture's sides."""

    def draw(random: Random, cutout: Cutout) -> Stage:
        surface = s.grey if random.random() < 0.5 else s.any_colour
        stage = _set(random, surface, cutout, (0.75, 0.95), 0.5)
        h, w = stage.cover.shape
        zoom = 1.5 if len(sides) > 1 else 1.0
        move_y = 0.3 * h if "bottom" in sides else 0.0
        move_x = 0.35 * w if sides == ("right",) else 0.0
        matrix = np.array([[zoom, 0, move_x + (1 - zoom) * w / 2], [0, zoom, move_y + (1 - zoom) * h / 2]], np.float32)
        premultiplied = np.dstack([stage.colour * stage.cover[..., None], stage.cover])
        moved = cv2.warpAffine(premultiplied, matrix, (w, h), flags=cv2.INTER_LINEAR)
        stage.cover = moved[..., 3]
        stage.colour = (moved[..., :3] / np.maximum(moved[..., 3:], 1e-3)).clip(0, 1)
        stage.put()
        return stage

    return draw


def _beside_small(random: Random, cutout: Cutout) -> Stage:
    """Draw a small second object beside, of a twentieth of the size."""
    stage = _set(random, s.plain((0.97, 0.97, 0.97)), cutout, (0.5, 0.65), 0.5)
    stage.put()
    h, w = stage.cover.shape
    columns = np.flatnonzero(stage.cover.max(0) > 0)
    x = columns[0] // 2 if columns[0] > w - columns[-1] else (columns[-1] + w) // 2
    radius = round(0.05 * min(h, w))
    if columns[0] > 2 * radius or w - columns[-1] > 2 * radius:
        cv2.circle(stage.image, (int(x), round(0.7 * h)), radius, (0.2, 0.5, 0.3), -1, cv2.LINE_AA)
    stage.objects = "largest"
    return stage


def _photograph(names: Sequence[str]) -> Kind:
    def draw(random: Random, cutout: Cutout) -> Stage:
        return _on(s.photograph(str(random.choice(list(names)))), shadow=True)(random, cutout)

    return draw


_WALL, _OAK = s.plain((0.8, 0.78, 0.74)), s.plain((0.54, 0.38, 0.24))

KINDS: dict[Literal["tuning", "held out"], dict[str, Kind]] = {
    "tuning": {
        "plain white": _on(s.plain((1, 1, 1))),
        "plain colour": _on(s.any_colour, shadow=True),
        "gradient": _on(s.gradient),
        "soft shadow": _shaded(s.plain((0.93, 0.93, 0.93)), _blob, 0.5, 0.025),
        "hard contact shadow": _shaded(s.plain((0.93, 0.93, 0.92)), _blob, 0.65, 0.003),
        "reflection": _mirrored(s.plain((0.98, 0.98, 0.98)), None),
        "table before wall, brown": _table(_WALL, _OAK, (0.45, 0.7)),
        "table before wall, any colours": _table(s.any_colour, s.any_colour, (0.5, 0.85)),
        "wood": _on(s.wood, shadow=True),
        "tiles": _on(s.tiles, shadow=True),
        "grass": _on(s.grass),
        "bokeh": _on(s.bokeh),
        "photograph, first": _photograph(("coffee.png", "brick.png", "chelsea.png", "flower.jpg")),
        "frame line": _bordered(_on(s.plain((0.99, 0.99, 0.99))), (0, 0, 0, 0), 0.0, 3),
        "pillarbox": _bordered(_on(s.gradient, shadow=True), (0, 0.25, 0, 0.25), 0.0),
        "caption and badge": _caption,
        "cut by one border": _cut_by(("bottom",)),
        "tiny": _on(s.grey, fill=(0.12, 0.2)),
    },
    "held out": {
        "plain black": _on(s.plain((0.02, 0.02, 0.02))),
        "grey": _on(s.grey, shadow=True),
        "studio spot": _on(s.spot, shadow=True),
        "drop shadow": _shaded(s.plain((0.97, 0.97, 0.97)), _drop, 0.45, 0.012),
        "hard cast shadow": _shaded(s.plain((0.88, 0.88, 0.86)), _cast, 0.5, 0.003),
        "glossy floor": _mirrored(s.plain((0.9, 0.9, 0.92)), s.plain((0.72, 0.74, 0.78))),
        "table before wall, dark": _table(s.plain((0.35, 0.38, 0.42)), s.plain((0.16, 0.12, 0.1)), (0.4, 0.8)),
        "table before wall, faint": _table(s.plain((0.86, 0.86, 0.86)), s.plain((0.76, 0.75, 0.74)), (0.45, 0.88), 2.0),
        "table before wall, bright": _table(s.plain((0.55, 0.68, 0.72)), s.plain((0.88, 0.84, 0.78)), (0.45, 0.75)),
        "wooden table before wall": _table(s.spot, s.wood, (0.5, 0.7), shadow=0.4),
        "marble": _on(s.marble, shadow=True),
        "checkerboard": _on(s.checkerboard),
        "cloth": _on(s.cloth, shadow=True),
        "foliage": _on(s.foliage),
        "photograph, second": _photograph(("grass.png", "gravel.png", "motorcycle_left.png", "china.jpg")),
        "polaroid": _bordered(_on(s.gradient, shadow=True), (0.06, 0.06, 0.2, 0.06), 0.97),
        "app card": _app_card,
        "cut by the right border": _cut_by(("right",)),
        "cut by three borders": _cut_by(("bottom", "left", "right")),
        "small second object": _beside_small,
    },
}


def compose(kind: str, part: Literal["tuning", "held out"], cutout: Cutout, seed: int) -> Composite:
    """Draw one composite. seed : the same gives the same picture."""
    random = np.random.default_rng([seed, *kind.encode()])
    stage = KINDS[part][kind](random, cutout)
    image, mask = _shoot(stage)
    return Composite(kind, cutout.name, image, mask, stage.objects)


def _shoot(stage: Stage) -> tuple[Pixels, Array]:
    """Take the picture: vignette, blur, noise and JPEG loss, each as often as not."""
    random, mask = stage.random, stage.cover
    image: Array = stage.image * 255
    h, w = mask.shape
    if random.random() < 0.3:
        y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j].astype(np.float32)
        image = image * (1 - random.uniform(0.05, 0.25) * (x**2 + y**2) / 2)[..., None]
    if random.random() < 0.4:
        sigma = random.uniform(0.4, 1.3)
        image, mask = cv2.GaussianBlur(image, (0, 0), sigma), cv2.GaussianBlur(mask, (0, 0), sigma)
    noisy = image + random.normal(0, random.uniform(0, 5) if random.random() < 0.5 else 0.5, image.shape)
    pixels = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    if random.random() < 0.5:
        coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(random.uniform(55, 95))])[1]
        pixels = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1]
    return np.ascontiguousarray(pixels), np.asarray(mask, dtype=np.float32)
