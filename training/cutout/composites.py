"""Photographs with known masks: an object before surroundings, with its shadows, reflections, frames and a camera.

A composite is a function of its seed and of the pictures of objects that there are. Knows nothing of networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.cutout.objects import ObjectPictures, Pixels, random_colour
from training.cutout.surfaces import Array, Generator, draw_surroundings

_WORDS = ("NEW", "50%", "SALE", "No. 4", "EUR 9.99", "size M", "sample", "(c) studio", "top", "100 ml")


@dataclass(frozen=True, eq=False)
class Composite:
    """A photograph and its mask; image : (side, side, 3) uint8 RGB. mask : (side, side) float32, 1 on the object."""

    image: Pixels
    mask: Array


def draw_composite(seed: int, objects: ObjectPictures, side: int) -> Composite:
    """Draw the composite of a seed."""
    rng = np.random.default_rng([seed, 4242])
    image, horizon = draw_surroundings(rng, side)
    mask = np.zeros((side, side), np.float32)
    for _ in range(1 if rng.random() < 0.92 else int(rng.integers(2, 4))):
        colour, alpha = _placed(rng, objects.draw(rng), side, horizon, mask)
        colour = _in_this_light(rng, colour, alpha, image)
        image = _shadowed(rng, image, alpha, horizon)
        if rng.random() < 0.06:
            image = _reflected(rng, image, colour, alpha)
        see_through = np.float32(rng.uniform(0.35, 0.75) if rng.random() < 0.03 else 1.0)
        image = image * (1 - alpha[..., None] * see_through) + colour * alpha[..., None] * see_through
        mask = np.maximum(mask, alpha)
    if rng.random() < 0.5:
        image = _captioned(rng, image, mask)
        image, mask = _framed(rng, image, mask)
    else:
        image, mask = _framed(rng, image, mask)
        image = _captioned(rng, image, mask)
    pixels = _photographed(rng, image)
    if rng.random() < 0.5:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    return Composite(np.ascontiguousarray(pixels), np.ascontiguousarray(mask))


def _placed(rng: Generator, picture: Pixels, side: int, horizon: float | None, taken: Array) -> tuple[Array, Array]:
    """Return an object's colours (side, side, 3) and alpha (side, side) in the photograph's frame."""
    cut = rng.random() < 0.125
    shares = (0.5, 1.5) if cut else (0.3, 0.95) if rng.random() < 0.9 else (0.1, 0.3)
    size = float(rng.uniform(*shares)) * (1.0 if not taken.any() else 0.6)
    scale = size * side / max(picture.shape[:2])
    turn = float(rng.normal(0, 6)) if rng.random() < 0.35 else 0.0
    h, w = picture.shape[:2]
    half_w, half_h = w * scale / 2, h * scale / 2
    reach = 0.35 if cut else 1.0
    room_x, room_y = max(side / 2 - half_w * reach, 0), max(side / 2 - half_h * reach, 0)
    middle = rng.random() < 0.45 and not cut and not taken.any()
    x = side / 2 + (rng.normal(0, 0.08) * room_x if middle else rng.uniform(-room_x, room_x))
    y = side / 2 + (rng.normal(0, 0.15) * room_y if middle else rng.uniform(-room_y, room_y))
    if horizon is not None and not cut and rng.random() < 0.8:
        foot = rng.uniform(horizon * side, side * 0.97)
        y = float(np.clip(foot - half_h, half_h * 0.9, side - half_h))
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), turn, scale)
    matrix[:, 2] += (x - w / 2, y - h / 2)
    how = cv2.INTER_AREA if scale < 0.7 else cv2.INTER_LINEAR
    moved = cv2.warpAffine(picture, matrix, (side, side), flags=how, borderValue=(255, 255, 255, 0))
    if rng.random() < 0.5:
        moved = moved[:, ::-1]
    moved = moved.astype(np.float32)
    return np.ascontiguousarray(moved[..., :3]), np.ascontiguousarray(moved[..., 3] / 255)


def _in_this_light(rng: Generator, colour: Array, alpha: Array, image: Array) -> Array:
    """Recolour an object: permute channels, grey, brighten, texture; some nearly as its surroundings are."""
    if rng.random() < 0.6:
        colour = colour[..., rng.permutation(3)]
    if rng.random() < 0.3:
        grey = colour.mean(-1, keepdims=True)
        colour = grey + (colour - grey) * np.float32(rng.uniform(0, 0.5))
    brightness = np.exp(rng.normal(0, 0.35))
    colour = np.asarray(255 * (np.clip(colour, 0, 255) / 255) ** brightness, np.float32)
    kind = rng.random()
    if kind < 0.14:
        # Of the surroundings' own colour: white on white, black on black.
        near = image[alpha > 0.5].mean(0) if (alpha > 0.5).any() else image.mean((0, 1))
        share = np.float32(rng.uniform(0.6, 0.93))
        colour = colour * (1 - share) + near * share
    elif kind < 0.24:
        colour = 225 + colour * np.float32(rng.uniform(0.05, 0.14))
    elif kind < 0.31:
        colour = colour * np.float32(rng.uniform(0.08, 0.3))
    elif kind < 0.43:
        cells = int(rng.integers(4, 40))
        side = len(colour)
        spots = cv2.resize(rng.random((cells, cells), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        colour = colour * (1 + (spots[..., None] - 0.5) * np.float32(rng.uniform(0.3, 1.2)))
    if rng.random() < 0.2:
        colour = colour * np.float32(1) + random_colour(rng) * np.float32(rng.uniform(0, 0.25))
    return np.asarray(np.clip(colour, 0, 255), np.float32)


def _shadowed(rng: Generator, image: Array, alpha: Array, horizon: float | None) -> Array:
    """Darken the surroundings by contact, cast and drop shadows."""
    rows = np.flatnonzero(alpha.max(1) > 0.5)
    if not len(rows):
        return image
    side = len(alpha)
    top, foot = int(rows[0]), int(rows[-1])
    height = max(foot - top, 4)
    if rng.random() < (0.5 if horizon is None else 0.75):
        image = image * (1 - _contact_shadow(rng, alpha, foot, height))
    kind = rng.random()
    if kind < 0.28:
        image = image * (1 - _cast_shadow(rng, alpha, foot))
    elif kind < 0.4:
        blur = rng.uniform(0.4, 14) * side / 320
        shift = np.array([[1, 0, rng.normal(0, 0.03) * side], [0, 1, rng.uniform(0, 0.05) * side]])
        drop = cv2.GaussianBlur(cv2.warpAffine(alpha, shift, (side, side)), (0, 0), blur)
        image = image * (1 - drop[..., None] * np.float32(rng.uniform(0.15, 0.75)))
    return image


def _contact_shadow(rng: Generator, alpha: Array, foot: int, height: int) -> Array:
    """Return the darkness (side, side, 1) of a flat ellipse under the object's foot, from hard to soft."""
    side = len(alpha)
    low = alpha[max(foot - max(height // 8, 2), 0) : foot + 1].max(0)
    columns = np.flatnonzero(low > 0.5)
    dark = np.zeros((side, side), np.float32)
    if not len(columns):
        return dark[..., None]
    middle, half = (columns[0] + columns[-1]) / 2, (columns[-1] - columns[0]) / 2 + 2
    centre = (int(middle + rng.normal(0, 0.2) * half), int(foot - rng.uniform(0, 0.02) * side))
    axes = (max(int(half * rng.uniform(0.9, 1.7)), 2), max(int(half * rng.uniform(0.06, 0.4)), 2))
    cv2.ellipse(dark, centre, axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    dark = np.asarray(cv2.GaussianBlur(dark, (0, 0), np.exp(rng.uniform(-0.5, 2.5)) * side / 320), np.float32)
    return dark[..., None] * np.float32(rng.uniform(0.2, 0.9))


def _cast_shadow(rng: Generator, alpha: Array, foot: int) -> Array:
    """Return the darkness (side, side, 1) of the object's outline, flattened and sheared about its foot."""
    side = len(alpha)
    flat, shear = rng.uniform(0.15, 0.7) * rng.choice([1, 1, -1]), rng.normal(0, 0.9)
    # A point (x, y) above the foot falls on (x + shear * (foot - y), foot - flat * (foot - y)).
    matrix = np.array([[1, -shear, shear * foot], [0, flat, foot * (1 - flat)]])
    fallen = cv2.warpAffine(alpha, matrix, (side, side))
    fallen = cv2.GaussianBlur(fallen, (0, 0), np.exp(rng.uniform(-1, 2.2)) * side / 320)
    return np.asarray(fallen, np.float32)[..., None] * np.float32(rng.uniform(0.2, 0.85))


def _reflected(rng: Generator, image: Array, colour: Array, alpha: Array) -> Array:
    """Mirror the object at its foot, fading downwards, as a glossy floor does."""
    rows = np.flatnonzero(alpha.max(1) > 0.5)
    if not len(rows):
        return image
    side, foot = len(alpha), int(rows[-1])
    matrix = np.array([[1, 0, 0], [0, -1, 2.0 * foot]])
    mirrored = cv2.warpAffine(colour, matrix, (side, side))
    shown = cv2.warpAffine(alpha, matrix, (side, side))
    below = np.arange(side, dtype=np.float32)[:, None] - foot
    fade = np.clip(1 - below / (rng.uniform(0.2, 1.2) * max(foot - rows[0], 4)), 0, 1) * (below >= 0)
    weight = (shown * fade * np.float32(rng.uniform(0.12, 0.5)))[..., None]
    return np.asarray(image * (1 - weight) + mirrored * weight, np.float32)


def _captioned(rng: Generator, image: Array, mask: Array) -> Array:
    """Write captions and put badges where the object is not, in a tenth of the pictures; none is part of the mask."""
    if rng.random() > 0.1:
        return image
    side = len(image)
    out = np.ascontiguousarray(image, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        drawn = np.zeros((side, side), np.uint8)
        x, y = (int(v) for v in rng.uniform(0.02, 0.9, 2) * side)
        if rng.random() < 0.3:
            cv2.circle(drawn, (x, y), int(rng.uniform(0.03, 0.09) * side), 255, -1, cv2.LINE_AA)
        else:
            scale, font = rng.uniform(0.3, 1.1) * side / 320, int(rng.integers(0, 5))
            word = _WORDS[int(rng.integers(len(_WORDS)))]
            cv2.putText(drawn, word, (x, y), font, scale, 255, int(rng.integers(1, 4)), cv2.LINE_AA)
        layer = np.where(mask < 0.01, drawn, 0).astype(np.float32) / np.float32(255)
        out = out * (1 - layer[..., None]) + random_colour(rng) * layer[..., None]
    return out


def _framed(rng: Generator, image: Array, mask: Array) -> tuple[Array, Array]:
    """Lay a frame line, a polaroid's or letterbox's margins, or an application's card round an eighth of them."""
    if rng.random() > 0.125:
        return image, mask
    side = len(image)
    colour = random_colour(rng) if rng.random() < 0.4 else np.full(3, rng.choice([0, 20, 255, 245]), np.float32)
    if rng.random() < 0.4:
        at, width = int(rng.uniform(0, 0.05) * side), int(rng.integers(1, max(2, side // 40)))
        out = np.ascontiguousarray(image, np.float32)
        tint = tuple(float(c) for c in colour)
        cv2.rectangle(out, (at, at), (side - 1 - at, side - 1 - at), tint, width)
        inner = np.zeros_like(mask)
        edge = at + width
        inner[edge : side - edge, edge : side - edge] = 1
        return out, mask * inner
    kind = rng.random()
    left = right = top = bottom = rng.uniform(0.02, 0.15)
    if kind < 0.3:
        left = right = rng.uniform(0.05, 0.28)
        top = bottom = 0.0
    elif kind < 0.55:
        top = bottom = rng.uniform(0.05, 0.28)
        left = right = 0.0
    elif kind < 0.75:
        bottom = rng.uniform(0.15, 0.3)
    x0, y0 = int(left * side), int(top * side)
    w, h = side - x0 - int(right * side), side - y0 - int(bottom * side)
    out = np.broadcast_to(colour, image.shape).astype(np.float32)
    inner = np.zeros_like(mask)
    out[y0 : y0 + h, x0 : x0 + w] = cv2.resize(np.ascontiguousarray(image), (w, h), interpolation=cv2.INTER_AREA)
    inner[y0 : y0 + h, x0 : x0 + w] = cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA)
    return out, inner


def _photographed(rng: Generator, image: Array) -> Pixels:
    """Take the picture: exposure, tint, blur, noise and JPEG."""
    side = len(image)
    image = image * np.float32(rng.uniform(0.75, 1.15)) * rng.uniform(0.93, 1.07, 3).astype(np.float32)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6) * side / 320)
    if rng.random() < 0.5:
        grain = rng.standard_normal((*image.shape[:2], 1), np.float32)
        image = image + grain * np.float32(rng.uniform(1, 9))
    out = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 92))]
        out = np.asarray(cv2.imdecode(cv2.imencode(".jpg", out, quality)[1], cv2.IMREAD_COLOR), np.uint8)
    return out
