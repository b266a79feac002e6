"""The layers of a mesh's colours as one texture: near and far side by side, the smaller ones in a column."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.hunyuan3d.mesh.appearance import Texture
from backend.rendering.color_fill import Floats, fill_image
from backend.rendering.color_layers import Layer, Seen


def paint_texture(seen: Seen, images: tuple[Floats, Floats, Floats], colors: Floats) -> Texture:
    """Return the texture of a mesh.

    images : near (n, n, 3), flank (n // 2, n // 2, 3) and far (n, n, 3), 0 to 255. colors : (V, 3), the vertices', of
    which the hidden layers are made.
    """
    near, flank, far = images
    n, quarter = len(near), max(1, len(near) // 4)
    parts = {
        Layer.NEAR: (near, 0, 0),
        Layer.FAR: (far, n, 0),
        Layer.FLANK: (flank, 2 * n, 0),
        Layer.HIDDEN_NEAR: (_hidden(seen, colors, Layer.HIDDEN_NEAR, quarter), 2 * n, len(flank)),
        Layer.HIDDEN_FAR: (_hidden(seen, colors, Layer.HIDDEN_FAR, quarter), 2 * n + quarter, len(flank)),
    }
    width = 2 * n + max(len(flank), 2 * quarter)
    atlas = np.zeros((n, width, 3), np.uint8)
    places = np.zeros((len(Layer), 3), np.float32)
    for layer, (image, x, y) in parts.items():
        atlas[y : y + len(image), x : x + image.shape[1]] = np.rint(image).clip(0, 255).astype(np.uint8)
        places[layer] = (x, y, len(image))
    places[Layer.MIRRORED] = places[Layer.NEAR]
    return _laid(seen, Image.fromarray(atlas), places)


def _laid(seen: Seen, image: Image.Image, places: Floats) -> Texture:
    """Split vertices by layer. places : for each layer, the upper left corner and the side of its square, pixels."""
    count = len(seen.vertices)
    key = seen.face_layer.astype(np.int64)[:, None] * count + seen.faces
    used = np.zeros(len(Layer) * count, np.bool_)
    used[key] = True
    kept = np.flatnonzero(used)
    number = np.zeros(len(used), np.int64)
    number[kept] = np.arange(len(kept))
    layer, vertex = np.divmod(kept, count)
    pixels = seen.pixels[vertex]
    if seen.mirrored is not None:
        pixels = np.where((layer == Layer.MIRRORED)[:, None], seen.mirrored[vertex], pixels)
    share = (pixels / len(seen.facing_front)).clip(0.0, 1.0)
    place = places[layer]
    uv = (place[:, :2] + share * place[:, 2:]) / np.array(image.size, np.float32)
    return Texture(image, vertex, number[key], uv.astype(np.float32))


def splat(seen: Seen, colors: Floats, chosen: NDArray[np.bool_], side: int) -> Floats:
    """Return an image (side, side, 3) of the chosen vertices' colours (V, 3): their means, continued between them."""
    if not chosen.any():
        return np.full((side, side, 3), 128, np.float32)
    column, row = np.floor(seen.pixels[chosen] * (side / len(seen.facing_front))).astype(np.int64).clip(0, side - 1).T
    pixel = row * side + column
    count = np.bincount(pixel, minlength=side * side)
    total = np.stack([np.bincount(pixel, colors[chosen, k], side * side) for k in range(3)], axis=1)
    mean = (total / np.maximum(count, 1)[:, None]).reshape(side, side, 3).astype(np.float32)
    filled = fill_image(mean, (count > 0).astype(np.float32).reshape(side, side))
    return np.asarray(cv2.GaussianBlur(filled, (0, 0), 0.8), np.float32)


def _hidden(seen: Seen, colors: Floats, layer: Layer, side: int) -> Floats:
    chosen = np.zeros(len(seen.vertices), np.bool_)
    chosen[seen.faces[seen.face_layer == layer]] = True
    return splat(seen, colors, chosen, side)
