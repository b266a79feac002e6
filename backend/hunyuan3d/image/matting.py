"""The soft edge of a cut-out: how much of each pixel near the outline is object, and the object's own colour there.

A pixel of the edge is a mixture a·F + (1 − a)·B. The backdrop's colour B and the object's colour F are carried over
from both sides of the outline, and a is the pixel's place between them. This module does not know how the outline was
found.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from backend.hunyuan3d.image.backdrop import Array, Found, Pixels, by_channel, spread, sum_channels
from backend.hunyuan3d.image.regions import Mask

_INNER, _OUTER, _FILL = 5.0, 1.5, 4.0
_ROW = 4096


@dataclass(frozen=True)
class _Edge:
    """Maps at working size (h, w): the band where the edge may lie, the fallback alpha, colours F and B in 0..255."""

    inside: Array
    outside: Array
    alpha: Array
    front: Array
    back: Array


def cut_with_soft_edge(rgb: Pixels, small: Pixels, found: Found) -> tuple[Pixels, Pixels]:
    """Return alpha and colours of the cut-out at the picture's own size.

    rgb : (H, W, 3) uint8; small : the same at working size (h, w, 3); found : masks (h, w). Returns alpha (H, W)
    uint8, 0 and 255 away from the edge, and colours (H, W, 3) uint8 in which the edge shows no backdrop.
    """
    edge = _measure(small, found)
    if small.shape[0] > rgb.shape[0]:
        alpha, colour = _mix(small.reshape(-1, 3), edge, slice(None))
        size = (rgb.shape[1], rgb.shape[0])
        shape = small.shape[:2]
        smaller = cv2.resize(alpha.reshape(shape), size, interpolation=cv2.INTER_AREA)
        tinted = cv2.resize(colour.reshape(*shape, 3), size, interpolation=cv2.INTER_AREA)
        return _quantise(smaller), np.where(smaller[..., None] > 0.99, rgb, np.rint(tinted)).astype(np.uint8)
    return _raise_to_size(rgb, edge)


def _measure(small: Pixels, found: Found) -> _Edge:
    image = small.astype(np.float32)
    inside, outside = _reach(found.foreground), _reach(~found.foreground)
    known = found.backdrop & (outside > _OUTER)
    back = cv2.GaussianBlur(spread(image, known if known.any() else ~found.foreground), (0, 0), 2)
    distinct = sum_channels((image - back) ** 2)
    # Thin parts have no core: there, the pixels that differ most from the backdrop stand for the object.
    weight = np.where(found.foreground, distinct**2 + 1e-3, 0).astype(np.float32)
    front, _ = _average(cv2.GaussianBlur(image, (0, 0), 0.8), weight, 2.5)
    core, confidence = _average(image, (inside > _INNER).astype(np.float32), 3.0)
    clear = sum_channels((core - back) ** 2) > 0.6 * sum_channels((front - back) ** 2)
    seen = (confidence > 0.05) & clear
    front[seen] = core[seen]
    return _Edge(inside, outside, np.clip(inside - 2, 0, 1), front, back)


def _reach(mask: Mask) -> Array:
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 8, 8, 8, 8, cv2.BORDER_REPLICATE)
    distance: Array = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[8:-8, 8:-8]
    return np.ascontiguousarray(distance)


def _average(values: Array, weight: Array, sigma: float) -> tuple[Array, Array]:
    total = cv2.GaussianBlur(weight, (0, 0), sigma)
    mean: Array = cv2.GaussianBlur(values * by_channel(weight), (0, 0), sigma) / by_channel(np.maximum(total, 1e-6))
    return mean, total


def _mix(pixels: npt.NDArray[np.generic], edge: _Edge, where: slice) -> tuple[Array, Array]:
    """Solve for alpha (n,) and colours (n, 3) of pixels (n, 3), beside the edge's maps flattened to the same n."""
    image = pixels.astype(np.float32)
    inside, outside = edge.inside.reshape(-1)[where], edge.outside.reshape(-1)[where]
    front, back = edge.front.reshape(-1, 3)[where], edge.back.reshape(-1, 3)[where]
    span = front - back
    contrast = sum_channels(span**2)
    share = np.clip(sum_channels((image - back) * span) / np.maximum(contrast, 1), 0, 1)
    # Where object and backdrop look alike their mixture says nothing, and the outline's own place decides.
    trust = np.clip((np.sqrt(contrast) - 12) / 20, 0, 1)
    share = share * trust + edge.alpha.reshape(-1)[where] * (1 - trust)
    alpha = np.where(inside > _INNER, 1, np.where(outside > _OUTER, 0, share))
    alpha = np.where(alpha < 0.04, 0, np.where(alpha > 0.96, 1, alpha))
    colour = np.where((alpha > 0)[:, None], image + (1 - alpha)[:, None] * span, front)
    return alpha.astype(np.float32), np.clip(colour, 0, 255).astype(np.float32)


def _raise_to_size(rgb: Pixels, edge: _Edge) -> tuple[Pixels, Pixels]:
    """Solve the mixture at full size, but only in the narrow band around the outline."""
    size = (rgb.shape[1], rgb.shape[0])
    scale = rgb.shape[0] / edge.inside.shape[0]
    depth = cv2.resize(edge.inside - edge.outside, size, interpolation=cv2.INTER_LINEAR)
    alpha = np.where(depth > 0, 255, 0).astype(np.uint8)
    colour = rgb.copy()
    rows, columns = np.nonzero((depth <= _INNER + 1) & (depth >= -_FILL))
    if rows.size == 0:
        return alpha, colour
    shown = cv2.blur(rgb, (3, 3)) if scale > 3 else rgb
    band = _sample(edge, (rows + 0.5) / scale - 0.5, (columns + 0.5) * edge.inside.shape[1] / size[0] - 0.5)
    mixed, tint = _mix(shown[rows, columns], band, slice(rows.size))
    alpha[rows, columns] = _quantise(mixed)
    tinted = np.where((mixed < 1)[:, None], np.rint(tint), rgb[rows, columns])
    colour[rows, columns] = tinted.astype(np.uint8)
    return alpha, colour


def _sample(edge: _Edge, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> _Edge:
    """Sample the edge's maps at n points, bilinear; padded to whole rows, because OpenCV limits the length of one."""
    padding = -y.size % _ROW
    across = np.pad(x, (0, padding)).reshape(-1, _ROW).astype(np.float32)
    down = np.pad(y, (0, padding)).reshape(-1, _ROW).astype(np.float32)
    maps = (edge.inside, edge.outside, edge.alpha, edge.front, edge.back)
    return _Edge(*(cv2.remap(m, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for m in maps))


def _quantise(alpha: Array) -> Pixels:
    return np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)
