"""Pictures of the procedural shapes of training/shapes as objects with exact masks, and how objects are fitted.

Knows nothing of surroundings or networks.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.hunyuan3d.image.regions import box_of
from training.render import render_images
from training.shapes.generator import make_shape

STYLES = 3
SIDE = 256
_RENDERED = 288
_RIM = 2
Pixels = NDArray[np.uint8]
Array = NDArray[np.float32]
Generator = np.random.Generator


def shape_pictures(seed: int) -> Pixels:
    """Return the pictures (STYLES, SIDE, SIDE, 4) of the shape of a seed, RGBA."""
    return np.stack(
        [fitted(_off_white(picture), SIDE) for picture in render_images(make_shape(seed), STYLES, _RENDERED)]
    )


def _off_white(image: Pixels) -> Pixels:
    """Take out of the edge's colours the white on which shapes are rendered."""
    share = image[..., 3:].astype(np.float32) / 255
    colour = (image[..., :3] - 255 * (1 - share)) / np.maximum(share, 1 / 255)
    return np.dstack([np.rint(colour.clip(0, 255)).astype(np.uint8), image[..., 3]])


def fitted(image: Pixels, side: int) -> Pixels:
    """Bring what an RGBA picture (H, W, 4) shows to the middle of (side, side, 4), as large as fits with a thin rim.

    Colours are carried a little beyond the mask, so that soft edges have the object's own.
    """
    shown = crop(image)
    room = side - 2 * _RIM
    scale = room / max(shown.shape[:2])
    size = (max(1, round(shown.shape[1] * scale)), max(1, round(shown.shape[0] * scale)))
    alpha = shown[..., 3:].astype(np.float32)
    premultiplied = np.dstack([shown[..., :3] * (alpha / 255), alpha])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(premultiplied, size, interpolation=how).clip(0, 255)
    out = np.zeros((side, side, 4), np.float32)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = small
    near = np.dstack([cv2.GaussianBlur(out, (0, 0), 2)])
    weight = out[..., 3:]
    own, spread = out[..., :3] / np.maximum(weight / 255, 1e-2), near[..., :3] / np.maximum(near[..., 3:] / 255, 1e-3)
    colour = np.where(weight > 40, own, spread)
    return np.asarray(np.rint(np.dstack([colour, weight]).clip(0, 255)), dtype=np.uint8)


def crop(image: Pixels) -> Pixels:
    """Cut an RGBA picture (H, W, 4) down to what its alpha shows; one that shows nothing stays."""
    shown = image[..., 3] > 0
    return np.ascontiguousarray(image[box_of(shown)]) if shown.any() else image


def random_colour(rng: Generator) -> Array:
    """Return a colour (3,) in 0..255: vivid, pale, dark or grey."""
    value = rng.uniform(0, 255, 3).astype(np.float32)
    kind = rng.random()
    if kind < 0.25:
        grey = float(rng.uniform(0, 255))
        return np.asarray(grey + (value - 127) * 0.08, np.float32).clip(0, 255)
    if kind < 0.4:
        return np.asarray(215 + value * 0.157, np.float32)
    return value
