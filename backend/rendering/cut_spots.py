"""Spots that an object's outline cuts in its image, of an object with several such spots.

A toadstool's dots at the edge go on behind it, but not all along the flank, where they would be drawn out. Spots
are known by the whole ones beside them: without those, what meets the outline may as well be a band, a shadow, or the
sole of a shoe, and stays. Knows nothing of meshes or cameras.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.rendering.islands import Details

Bools = NDArray[np.bool_]

# How many spots there must be beside, how large at least, as a share of the object, how many of them round, and how
# round: their area as a share of their length squared. How much alike their colours must be, and the cut ones', of 255.
_PIECES, _LEAST, _ROUND_PIECES, _ROUND, _ALIKE, _SAME = 3, 0.006, 2, 0.4, 60, 45
# How much larger and longer than the largest and longest of them a cut one may be.
_LARGER, _LONGER = 1.2, 1.4
# How dark a shade may be.
_SHADE = 0.45


def cut_spots(details: Details) -> Bools:
    """Return where (h, w), of the small image, the outline cuts spots like its islands."""
    small, inside, islands = details.small, details.inside, details.islands
    found = np.zeros_like(inside)
    area, length = islands.stats[:, cv2.CC_STAT_AREA], _lengths(islands.stats)
    spots = np.flatnonzero(area[1:] >= _LEAST * inside.sum()) + 1
    if len(spots) < _PIECES:
        return found
    colors = np.array([np.median(small[islands.labels == label], axis=0) for label in spots])
    color = np.median(colors, axis=0)
    spots = spots[np.abs(colors - color).max(axis=1) < _ALIKE]
    whole = spots[area[spots] >= _ROUND * length[spots] ** 2]
    if len(spots) < _PIECES or len(whole) < _ROUND_PIECES:
        return found
    # The same colour in shade is still the same.
    light = np.clip((small @ color) / max(float(color @ color), 1.0), _SHADE, 1.1)
    same = (np.abs(small - light[..., None] * color).max(axis=2) < _SAME) & inside & ~islands.mask
    outside = cv2.dilate((~inside).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    _, labels, stats, _ = cv2.connectedComponentsWithStats(same.astype(np.uint8), connectivity=8)
    large, long = _LARGER * area[whole].max(), _LONGER * length[whole].max()
    fits = (stats[:, cv2.CC_STAT_AREA] <= large) & (_lengths(stats) <= long)
    for label in np.unique(labels[outside & same]):
        if fits[label]:
            found |= labels == label
    # Their soft edges belong to them.
    return np.asarray(cv2.dilate(found.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)


def _lengths(stats: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the longer sides of pieces, of their cv2 statistics."""
    return np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
