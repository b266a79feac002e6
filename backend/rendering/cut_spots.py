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

# How many whole spots there must be, how large at least, as a share of the object, how much alike their colours and the
# cut ones' are, of 255, and how much larger than the largest of them a cut one may be.
_PIECES, _LEAST, _ALIKE, _LARGER = 3, 0.006, 60, 1.2
# How dark a shade may be.
_SHADE = 0.45


def cut_spots(details: Details) -> Bools:
    """Return where (h, w), of the small image, the outline cuts spots like its islands."""
    small, inside, islands = details.small, details.inside, details.islands
    found = np.zeros_like(inside)
    area = islands.stats[:, cv2.CC_STAT_AREA]
    whole = np.flatnonzero(area[1:] >= _LEAST * inside.sum()) + 1
    if len(whole) < _PIECES:
        return found
    colors = np.array([np.median(small[islands.labels == label], axis=0) for label in whole])
    color = np.median(colors, axis=0)
    whole = whole[np.abs(colors - color).max(axis=1) < _ALIKE]
    if len(whole) < _PIECES:
        return found
    # The same colour in shade is still the same.
    light = np.clip((small @ color) / max(float(color @ color), 1.0), _SHADE, 1.1)
    same = (np.abs(small - light[..., None] * color).max(axis=2) < _ALIKE) & inside & ~islands.mask
    outside = cv2.dilate((~inside).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    _, labels, stats, _ = cv2.connectedComponentsWithStats(same.astype(np.uint8), connectivity=8)
    for label in np.unique(labels[outside & same]):
        if stats[label, cv2.CC_STAT_AREA] <= _LARGER * area[whole].max():
            found |= labels == label
    # Their soft edges belong to them.
    return np.asarray(cv2.dilate(found.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
