"""Colours spread from where they are known to where they are not: over an image, and over a surface.

Knows nothing of cameras, cut-outs or meshes.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float32]

_NEIGHBOURS = 6
_MOST_SOURCES = 4000


def fill_image(image: Floats, known: Floats) -> Floats:
    """Return an image (h, w, c) in which what is not known is a smooth continuation of what is.

    known : (h, w), 0 to 1; where it is 1 the image stays as it is. Coarser and coarser means of what is known reach
    ever farther (push and pull). An image of which nothing is known comes back as it is.
    """
    known = np.clip(known, 0.0, 1.0).astype(np.float32)
    if not known.any():
        return image
    levels = [(image * known[..., None], known)]
    while max(levels[-1][1].shape) > 2:
        total, weight = levels[-1]
        size = max(1, (weight.shape[1] + 1) // 2), max(1, (weight.shape[0] + 1) // 2)
        levels.append((_resized(total, size), _resized(weight, size)))
    total, weight = levels[-1]
    filled = np.asarray(total / np.maximum(weight, 1e-6)[..., None], np.float32)
    for total, weight in reversed(levels[1:-1]):
        # A coarse pixel of which a quarter is known says as much of its place as one that is known wholly.
        sure = np.minimum(weight * 4.0, 1.0)[..., None]
        own = total / np.maximum(weight, 1e-6)[..., None]
        filled = _resized(filled, (weight.shape[1], weight.shape[0]), cv2.INTER_LINEAR)
        filled += sure * (own - filled)
    filled = _resized(filled, (known.shape[1], known.shape[0]), cv2.INTER_LINEAR)
    filled += known[..., None] * (image - filled)
    return np.asarray(filled, dtype=np.float32)


def carry_outwards(image: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return an image (h, w, c) in which every pixel that is not known has the colour of the nearest one that is.

    known : (h, w). An image of which nothing is known comes back as it is.
    """
    if not known.any():
        return image
    unknown = (~known).astype(np.uint8)
    _, label = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    source = np.zeros(int(label.max()) + 1, np.int64)
    source[label[known]] = np.flatnonzero(known)
    return np.asarray(image.reshape(-1, image.shape[2])[source[label]], np.float32)


def fill_points(features: Floats, colors: Floats, wanted: Floats) -> Floats:
    """Return colours (n, 3) at `wanted` features (n, d): means of the nearest known ones, the nearer the more.

    features : (m, d), m at least 1; colors : (m, 3). Of many, every k-th counts.
    """
    step = -(-len(features) // _MOST_SOURCES)
    sources, own = features[::step], colors[::step]
    count = min(_NEIGHBOURS, len(sources))
    distance, index = cKDTree(sources).query(wanted, k=count)
    distance, index = distance.reshape(-1, count), index.reshape(-1, count)
    weight = 1.0 / (distance + 0.25 * distance[:, :1] + 1e-6)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray((own[index] * weight[..., None]).sum(axis=1), dtype=np.float32)


def soften(image: Floats, sigma: float) -> Floats:
    """Return an image (h, w, c) blurred by a Gaussian of `sigma` pixels; wide ones on a smaller image."""
    if sigma < 0.3:
        return image
    height, width = image.shape[:2]
    shrink = max(1, int(sigma / 2.5))
    if shrink == 1:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)
    small = _resized(image, (max(1, width // shrink), max(1, height // shrink)))
    blurred = cv2.GaussianBlur(small, (0, 0), sigma / shrink, borderType=cv2.BORDER_REPLICATE)
    return _resized(np.asarray(blurred, np.float32), (width, height), cv2.INTER_LINEAR)


def _resized(image: NDArray[Any], size: tuple[int, int], how: int = cv2.INTER_AREA) -> Floats:
    out = np.asarray(cv2.resize(image, size, interpolation=how), np.float32)
    return out.reshape(size[1], size[0], *image.shape[2:])
