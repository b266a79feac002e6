"""What belongs to an object and is none of it: hard shadows, mirror images, and a shadow baked into an alpha channel.

This module does not know how the object was found.
"""

from __future__ import annotations

import cv2
import numpy as np

from backend.hunyuan3d.image.backdrop import Array, Found, Pixels, spread, stray_hue, sum_channels
from backend.hunyuan3d.image.order_statistics import channel_medians, median, quantile
from backend.hunyuan3d.image.regions import Mask, grown, of_kept

_DARKEST, _LIGHTEST = 0.3, 0.96
_LEAST_LEFT = 0.3
_LEAST_SHADOW = 0.015
_MIRROR_SIDE = 128


def without_shadow(lab: Array, found: Found) -> Found:
    """Take a hard shadow off an object that was found before a smooth backdrop.

    lab : (h, w, 3), noise smoothed. A shadow is the backdrop's colour, only darker, evenly so, and hangs on the object
    at one side alone: the rest of its rim is backdrop. What would leave too little of the object is part of it.
    """
    shown = found.foreground
    known = found.backdrop & ~grown(shown, 2)
    if known.mean() < 0.05:
        return found
    backdrop = spread(lab, known)
    darker = ((lab[..., 0] + 16) / np.maximum(backdrop[..., 0] + 16, 1)).astype(np.float32)
    stray = stray_hue(lab, backdrop, darker)
    alike = shown & (stray < 4.0) & (darker > _DARKEST) & (darker < _LIGHTEST)
    opened = cv2.morphologyEx(alike.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    shadow = np.zeros(shown.shape, np.bool_)
    for k in range(1, count):
        region = labels == k
        if stats[k, cv2.CC_STAT_AREA] >= _LEAST_SHADOW * shown.sum() and _is_shadow(region, shown, darker, stray):
            shadow |= region
    if not shadow.any():
        return found
    # Its rim, where it fades or mixes with the backdrop, goes with it; the object's own edge stays.
    rest = cv2.morphologyEx((shown & ~shadow).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(rest, connectivity=8)
    if count < 2:
        return found
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = of_kept(labels, areas >= 0.02 * areas[1:].max())
    near_kept = grown(kept, 2)
    near_shadow = grown(shadow, 3)
    foreground = shown & ~shadow & (near_kept | ~near_shadow)
    if foreground.sum() < _LEAST_LEFT * shown.sum():
        return found
    return Found(foreground, found.backdrop | (shadow & ~foreground), found.enclosed)


def _is_shadow(region: Mask, shown: Mask, darker: Array, stray: Array) -> bool:
    """Say whether a region of the backdrop's hue is evenly dark, low, open to the backdrop, and ends at the object.

    Where it turns into the object without a step it is the object's own shade.
    """
    near = grown(region, 3)
    rim = near & ~grown(region, 2)
    outside = float((~shown)[rim].mean()) if rim.any() else 0.0
    core = cv2.erode(region.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if core.sum() < 0.3 * region.sum():
        return False
    tone = darker[core]
    usual = np.float32(median(tone))
    even = float((np.abs(tone - usual) < 0.06).mean()) > 0.7
    rows, object_rows = np.flatnonzero(region.any(axis=1)), np.flatnonzero((shown & ~region).any(axis=1))
    low = object_rows.size > 0 and rows.mean() > object_rows.mean()
    beyond = grown(region, 6) & ~near & shown
    apart = (np.abs(darker - usual) > 0.12) | (stray > 8)
    steps = float(apart[beyond].mean()) if beyond.any() else 1.0
    return bool(even and low and outside > 0.3 and steps > 0.6)


def without_mirror_image(lab: Array, found: Found) -> Found:
    """Take a paler mirror image off an object that stands on a glossy floor.

    lab : (h, w, 3). Below the line on which the object stands the picture repeats it upside down, only weaker.
    """
    shown = found.foreground
    scale = _MIRROR_SIDE / max(shown.shape)
    size = (max(8, round(shown.shape[1] * scale)), max(8, round(shown.shape[0] * scale)))
    mask = cv2.resize(shown.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size < 16:
        return found
    backdrop = spread(lab, found.backdrop) if found.backdrop.any() else lab
    excess: Array = cv2.resize(lab - backdrop, size, interpolation=cv2.INTER_AREA)
    line = _mirror_line(excess, mask, int(rows[0]), int(rows[-1]))
    if line is None:
        return found
    foreground = shown.copy()
    foreground[round(line / scale) :] = False
    return found.left_with(foreground)


def _mirror_line(excess: Array, mask: Mask, first: int, last: int) -> int | None:
    """Find the row below which the picture repeats what is above it, weaker; None where none does."""
    best, found = 0.0, None
    for line in range(first + (last - first) // 3, last - 2):
        height = min(last + 1 - line, line - first)
        if height < 5:
            continue
        below, above = excess[line : line + height], excess[line - height : line][::-1]
        where = mask[line : line + height] | mask[line - height : line][::-1]
        low, high = below[where], above[where]
        power_low, power_high = float((low**2).sum()), float((high**2).sum())
        if power_low < 1e-3 or power_high < 1e-3:
            continue
        alike = float((low * high).sum()) / np.sqrt(power_low * power_high)
        gain = float(np.sqrt(power_low / power_high))
        if 0.08 < gain < 0.75 and alike > max(best, 0.8):
            best, found = alike, line
    return found


def without_baked_shadow(rgba: Pixels) -> Pixels:
    """Return the alpha (h, w) of a cut-out, without the shadow that another tool may have left in it.

    A shadow is one dark colour, half transparent over a wide area, and lies beside what is opaque.
    """
    alpha, colour = rgba[..., 3], rgba[..., :3].astype(np.float32)
    solid = alpha >= 200
    faint = (alpha > 0) & (alpha < 0.72 * 255)
    # The soft edge of the object itself is no shadow.
    edge = grown(solid, 2)
    wide = faint & ~edge
    if not solid.any() or wide.sum() < 0.01 * solid.sum():
        return alpha
    middle = channel_medians(colour, wide)
    stray = np.sqrt(sum_channels((colour - middle) ** 2))
    if middle.max() > 70 or quantile(stray[wide], 0.9) > 24:
        return alpha
    shadow = faint & (stray < 40) & ~_thin(faint)
    return np.where(shadow | (wide & (stray < 40)), 0, alpha).astype(np.uint8)


def _thin(mask: Mask) -> Mask:
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    return np.asarray(mask & (opened == 0), dtype=np.bool_)
