"""Details of an image that do not reach the object's outline: eyes, buttons, dots.

Bands and hats reach it, and go round; islands do not. Knows nothing of what becomes of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Bools = NDArray[np.bool_]

_SIDE = 144
# A difference of so many of 255 is a detail.
_DETAIL = 22
# A detail's edge changes so much over two pixels of _SIDE; shading does not.
_EDGE = 30
# The band that the outline's colours are taken from, in pixels of _SIDE.
_BAND = 4


@dataclass(frozen=True, eq=False)
class Islands:
    """What does not reach the outline: its mask, and the pieces' labels and cv2 statistics."""

    mask: Bools
    labels: NDArray[np.int32]
    stats: NDArray[np.int32]
    centroids: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Details:
    """An image made small, to look for details in.

    small : (h, w, 3), the longer side 144. inside : (h, w), where the object is. bare : (h, w, 3), without islands.
    """

    small: Pixels
    inside: Bools
    bare: Pixels
    islands: Islands


def find_details(seen: Floats, known: Floats) -> Details:
    """Look for details. seen : (h, w, 3) 0 to 255, without holes; known : (h, w), 1 inside the object."""
    factor = _SIDE / max(known.shape)
    size = (max(8, round(known.shape[1] * factor)), max(8, round(known.shape[0] * factor)))
    small = cv2.resize(seen, size, interpolation=cv2.INTER_AREA).clip(0, 255).astype(np.uint8)
    inside = cv2.resize(known, size, interpolation=cv2.INTER_AREA) > 0.5
    bare = without_islands(small, inside)
    return Details(small, inside, bare, _islands(small, bare, inside))


def without_islands(image: Pixels, inside: Bools) -> Pixels:
    """Return an image (h, w, 3) in which nothing is brighter or darker than a way to the outline's band allows.

    Bright islands first, then dark ones, each channel by itself: morphological reconstruction from the band.
    """
    depth = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    band = ((depth <= _BAND) | ~inside)[..., None]
    lowered = _reconstruct(np.where(band, image, 0).astype(np.uint8), image)
    raised = _reconstruct(255 - np.where(band, lowered, 255).astype(np.uint8), 255 - lowered)
    return np.asarray(255 - raised)


def _reconstruct(marker: Pixels, ceiling: Pixels) -> Pixels:
    kernel = np.ones((3, 3), np.uint8)
    for turn in range(4 * _SIDE):
        grown = cv2.min(cv2.dilate(marker, kernel), ceiling)
        if turn % 8 == 7 and np.array_equal(grown, marker):
            break
        marker = np.asarray(grown)
    return marker


def _islands(small: Pixels, bare: Pixels, inside: Bools) -> Islands:
    """Find the islands: pieces that differ from the bare image and have an edge, as a ball's bright middle has not."""
    difference = small.astype(np.int16) - bare
    kernel = np.ones((3, 3), np.uint8)
    edge = (cv2.dilate(small, kernel) - cv2.erode(small, kernel)).max(axis=2)
    mask = np.zeros_like(inside)
    for differs in (difference.max(axis=2) > _DETAIL, difference.min(axis=2) < -_DETAIL):
        _, labels = cv2.connectedComponents((differs & inside).astype(np.uint8), connectivity=8)
        outlines = cv2.dilate(labels.astype(np.float32), kernel).astype(np.int32) - labels
        around = np.where((labels == 0) & (outlines > 0), outlines, 0)
        for label in range(1, int(labels.max()) + 1):
            line = edge[around == label]
            if line.size and np.median(line) > _EDGE:
                mask |= labels == label
    _, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return Islands(mask, np.asarray(labels, np.int32), np.asarray(stats, np.int32), np.asarray(centroids))
