"""A table before a wall, or a floor before a backdrop: where the two meet, and the picture as if they were one.

The horizon shows at both sides of the picture, where the object seldom is. With it known, the wall's and the table's
colours are brought to the same one, so that what is for a plain backdrop works. This module does not know what that is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from backend.hunyuan3d.image.backdrop import Array
from backend.hunyuan3d.image.order_statistics import channel_medians
from backend.hunyuan3d.image.regions import Mask

_LEAST_STEP = 2.5
_MOST_TILT = 0.08


@dataclass(frozen=True)
class Horizon:
    """A line from row `left` at the left side to row `right` at the right one, and how many rows it is soft."""

    left: float
    right: float
    softness: int


def find_horizon(lab: Array) -> Horizon | None:
    """Find the horizon of a picture (h, w, 3) in Lab from its two sides; None where they do not agree on one."""
    w = lab.shape[1]
    strip = max(3, round(0.02 * w))
    first, last = (
        _step(lab[:, columns].mean(axis=1)) for columns in (slice(1, 1 + strip), slice(w - 1 - strip, w - 1))
    )
    if first is None or last is None:
        return None
    (left, above_left, below_left), (right, above_right, below_right) = first, last
    step = np.linalg.norm(below_left - above_left)
    unlike = max(np.linalg.norm(above_left - above_right), np.linalg.norm(below_left - below_right))
    if abs(left - right) > _MOST_TILT * w or unlike > max(12.0, 0.7 * float(step)):
        return None
    profile = lab[:, 1 : 1 + strip].mean(axis=1)
    return Horizon(float(left), float(right), _softness(profile, round(left), above_left, below_left))


def flatten(lab: Array, horizon: Horizon) -> Array:
    """Return the picture in Lab with the table brought to the wall's colour; across the line itself it is filled in."""
    h, w = lab.shape[:2]
    line = np.linspace(horizon.left, horizon.right, w, dtype=np.float32)
    rows = np.arange(h, dtype=np.float32)[:, None]
    below = rows > line
    wall, table = (_at_the_sides(lab, side) for side in (~below, below))
    goal = channel_medians(wall)
    # A shadow scales L + 16, a and b alike: it must still be one of the new colour.
    backdrop = np.where(below[..., None], table, wall)
    scale = (lab[..., :1] + 16) / np.maximum(backdrop[..., :1] + 16, 1)
    flat = np.empty_like(lab)
    flat[..., 0] = scale[..., 0] * (goal[0] + 16) - 16
    tint = np.minimum(scale, 1.3)
    flat[..., 1:] = lab[..., 1:] - tint * backdrop[..., 1:] + tint * goal[1:].astype(np.float32)
    reach = horizon.softness + 2
    return _bridged(flat, np.abs(rows - line) <= reach, line, reach)


def _step(profile: Array) -> tuple[float, Array, Array] | None:
    """Find the row where a side's colour changes once: the row, the colour above and that below, or None."""
    h = len(profile)
    rows = np.arange(1, h)
    total = profile.cumsum(axis=0)[:-1]
    above = total / rows[:, None]
    below = (profile.sum(axis=0) - total) / (h - rows)[:, None]
    gained = rows * (above**2).sum(axis=1) + (h - rows) * (below**2).sum(axis=1)
    margin = max(4, round(0.08 * h))
    if h < 2 * margin + 2:
        return None
    inner = slice(margin, h - 1 - margin)
    at = margin + int(gained[inner].argmax())
    error = ((profile**2).sum() - gained[at]) / h
    step = float(np.linalg.norm(above[at] - below[at]))
    if step < _LEAST_STEP or step < 1.6 * float(np.sqrt(max(error, 0.0))):
        return None
    return float(at + 0.5), above[at], below[at]


def _softness(profile: Array, at: int, above: Array, below: Array) -> int:
    """Return over how many rows to either side of the line one colour turns into the other."""
    span = below - above
    share = ((profile - above) @ span) / max(float(span @ span), 1e-6)
    between = (share > 0.12) & (share < 0.88)
    reach = 0
    while reach < 12 and between[max(0, at - reach - 1) : at + reach + 2][[0, -1]].any():
        reach += 1
    return reach


def _at_the_sides(lab: Array, region: Mask) -> Array:
    """Return for every place what a region's colour is, between its left and its right side, as bands of rows."""
    h, w = lab.shape[:2]
    strip = max(3, round(0.04 * w))
    ends = []
    for columns in (slice(0, strip), slice(w - strip, w)):
        inside = np.asarray(region[:, columns], dtype=np.bool_)
        weight = cv2.GaussianBlur(inside.sum(axis=1).astype(np.float32)[:, None], (1, 0), sigmaX=0.1, sigmaY=0.06 * h)
        values = np.where(inside[..., None], lab[:, columns], 0).sum(axis=1).astype(np.float32)
        mean = cv2.GaussianBlur(values[:, None], (1, 0), sigmaX=0.1, sigmaY=0.06 * h)[:, 0]
        known = np.maximum(weight.reshape(-1, 1), 1e-4)
        filled = mean / known
        enough = weight.reshape(-1) > 1e-3
        first, last = np.flatnonzero(enough)[[0, -1]] if enough.any() else (0, h - 1)
        filled[:first], filled[last + 1 :] = filled[first], filled[last]
        ends.append(filled)
    share = np.linspace(0, 1, w, dtype=np.float32)[None, :, None]
    bands: Array = (ends[0][:, None] * (1 - share) + ends[1][:, None] * share).astype(np.float32)
    return bands


def _bridged(flat: Array, band: Mask, line: Array, reach: int) -> Array:
    """Fill the rows about the line from those just above and below it, column by column."""
    h, w = flat.shape[:2]
    columns = np.arange(w)
    over = np.clip(np.floor(line - reach - 1).astype(int), 0, h - 1)
    under = np.clip(np.ceil(line + reach + 1).astype(int), 0, h - 1)
    share = ((np.arange(h)[:, None] - over) / np.maximum(under - over, 1)).clip(0, 1)[..., None].astype(np.float32)
    between = flat[over, columns] * (1 - share) + flat[under, columns] * share
    return np.where(np.asarray(band, dtype=np.bool_)[..., None], between, flat).astype(np.float32)
