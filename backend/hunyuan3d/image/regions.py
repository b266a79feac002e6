"""Regions of a mask: which touch the border and how much of it they cover, which are more than specks, where they lie.

This module does not know what is marked.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice]
"""Rows and columns of an image."""


def of_kept(labels: npt.NDArray[np.int32], kept: npt.NDArray[np.bool_]) -> Mask:
    """Mark the pixels of labels (h, w) whose region is kept; kept : a flag for each label. Nothing of label 0 is."""
    flags = kept.copy()
    flags[0] = False
    marked: Mask = flags.take(labels)
    return marked


def border_share(mask: Mask) -> float:
    """Return the share of the image's border that a mask covers."""
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())


def box_of(mask: Mask) -> Box:
    """Return the rows and columns of what a mask (h, w) marks, which is something."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def widened(box: Box, margin: int) -> Box:
    """Return a box with a margin in pixels. It never begins outside the image; where it ends outside, slicing cuts."""
    rows, columns = (slice(max(0, side.start - margin), side.stop + margin) for side in box)
    return rows, columns


def grown(mask: Mask, by: int) -> Mask:
    """Return a mask (h, w) with all that is within so many pixels of what it marks, across, down and aslant."""
    side = 2 * by + 1
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0)


def from_border(mask: Mask) -> Mask:
    """Return the regions of a mask (h, w), of pixels side by side, that touch its border."""
    h, w = mask.shape
    # One flood from a margin reaches all of them.
    flooded = np.ones((h + 2, w + 2), np.uint8)
    flooded[1:-1, 1:-1] = mask
    cv2.floodFill(flooded, None, (0, 0), 2, flags=4)
    reached: Mask = flooded[1:-1, 1:-1] == 2
    return reached


def significant(mask: Mask, weight: npt.NDArray[np.float32] | None = None, least_share: float = 0.02) -> Mask:
    """Drop specks: regions under 0.04 % of the picture, or of little weight beside the weightiest.

    weight : (h, w) of each pixel, 1 when None.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    weights = areas.astype(np.float64)
    if weight is not None:
        weights = np.bincount(labels.ravel(), weights=weight.ravel(), minlength=count)
    weights[0] = 0
    return of_kept(labels, (areas >= 4e-4 * mask.size) & (weights >= least_share * weights.max()))
