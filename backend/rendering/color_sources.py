"""What a cut-out says of an object's colours: as seen, softened for its flanks, and what its far side may look like.

Nothing here comes from outside the object: colours are drawn from inside the outline and carried outwards. Knows
nothing of meshes or cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.rendering.color_fill import carry_outwards, soften
from backend.rendering.cut_spots import cut_spots
from backend.rendering.islands import Details, find_details

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Bools = NDArray[np.bool_]

# Shares of the image's side: how far from the outline colours are drawn, as seen and for the flanks, and the latter's
# blur. In thin parts, a share of what there is.
_RIM, _FLANK_RIM, _FLANK_BLUR = 0.004, 0.02, 0.005
_THIN = 0.6
_OPAQUE = 230
# A shadow: its greatest difference of channels, and how many pixels of _SHADOW_SIDE its edge is wide.
_SHADOW_SIDE, _GREY, _SOFT_WIDTH = 320, 18, 2.5


@dataclass(frozen=True, eq=False)
class ColorSources:
    """Images (h, w, 3) float32, 0 to 255 sRGB, without holes.

    seen : the object as it is seen. flank : the same without its rim and without spots that the outline cuts, softened,
    at half the size. known : (h, w) 0 to 1, where `seen` is the image's own. details : what was found in that.
    """

    seen: Floats
    flank: Floats
    known: Floats
    details: Details


def color_sources(rgba: Pixels) -> ColorSources:
    """Take the colours out of a cut-out (h, w, 4)."""
    side = max(rgba.shape[:2])
    rgb = rgba[..., :3].astype(np.float32)
    depth, ridge = _depths(np.where(shadow_left(rgba), 0, rgba[..., 3]).astype(np.uint8), side)
    known = (depth >= np.minimum(max(1.5, _RIM * side), _THIN * ridge)).astype(np.float32) * (depth > 0)
    half = (max(1, rgb.shape[1] // 2), max(1, rgb.shape[0] // 2))
    spread = soften(carry_outwards(*_shrunk(rgb, known, half)), _FLANK_BLUR * side / 2)
    seen = rgb + (1 - known)[..., None] * (cv2.resize(spread, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR) - rgb)
    deep = (depth >= np.minimum(_FLANK_RIM * side, _THIN * ridge)).astype(np.float32) * (depth > 0)
    details = find_details(seen, known)
    spots = cut_spots(details)
    if spots.any():
        deep *= cv2.resize(spots.astype(np.uint8), known.shape[::-1], interpolation=cv2.INTER_NEAREST) == 0
    flank = soften(carry_outwards(*_shrunk(rgb, deep, half)), _FLANK_BLUR * side / 2)
    return ColorSources(seen, flank, known, details)


def shadow_left(rgba: Pixels) -> Bools:
    """Find what a cut-out (h, w, 4) kept of the object's shadow on the floor.

    That is grey and lies low and at the outline, as a shoe's sole does; but where a sole ends sharply, its own edge is
    wide and soft. Mostly grey objects are left alone.
    """
    factor = min(1.0, _SHADOW_SIDE / max(rgba.shape[:2]))
    small = cv2.resize(rgba, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    alpha, rgb = small[..., 3], small[..., :3].astype(np.int16)
    inside = alpha >= _OPAQUE
    rows = np.flatnonzero(inside.any(axis=1))
    if not rows.size:
        return np.zeros(rgba.shape[:2], np.bool_)
    grey = (np.ptp(rgb, axis=2) < _GREY) & (rgb.mean(axis=2) > 60) & (rgb.mean(axis=2) < 235)
    low = np.arange(len(alpha))[:, None] > rows[0] + 0.55 * (rows[-1] - rows[0])
    if (grey & inside).sum() > 0.3 * inside.sum():
        return np.zeros(rgba.shape[:2], np.bool_)
    _, labels = cv2.connectedComponents((grey & low & inside).astype(np.uint8))
    soft = grey & (alpha > 12) & (alpha < _OPAQUE)
    found = np.zeros_like(inside)
    for label in range(1, int(labels.max()) + 1):
        own = labels == label
        edge = cv2.dilate(own.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
        outer = cv2.dilate(own.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_) & ~inside
        if 20 < own.sum() < 0.15 * inside.sum() and (edge & soft).sum() > _SOFT_WIDTH * max(int(outer.sum()), 8):
            found |= cv2.dilate((own | (edge & soft)).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    whole = (rgba.shape[1], rgba.shape[0])
    return np.asarray(cv2.resize(found.astype(np.uint8), whole, interpolation=cv2.INTER_NEAREST) > 0)


def _depths(alpha: Pixels, side: int) -> tuple[Floats, Floats]:
    """Return how deep (h, w) each pixel lies inside the outline, in pixels, and the greatest depth around it."""
    inside = (alpha >= _OPAQUE).astype(np.uint8)
    if not inside.any():
        inside = (alpha >= max(1, int(alpha.max()) // 2)).astype(np.uint8)
    framed = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    reach = 2 * int(_FLANK_RIM * side) + 3
    small = cv2.resize(depth, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) if side >= 64 else depth
    ridge = cv2.dilate(small, np.ones((max(3, reach // 4 | 1),) * 2, np.uint8))
    return np.asarray(depth), np.asarray(cv2.resize(ridge, depth.shape[::-1], interpolation=cv2.INTER_LINEAR))


def _shrunk(rgb: Floats, known: Floats, size: tuple[int, int]) -> tuple[Floats, Bools]:
    """Return the means of what is known in each pixel of the smaller size, and where anything is known."""
    weight = np.asarray(cv2.resize(known, size, interpolation=cv2.INTER_AREA), np.float32)
    total = np.asarray(cv2.resize(rgb * known[..., None], size, interpolation=cv2.INTER_AREA), np.float32)
    return np.asarray(total / np.maximum(weight, 1e-6)[..., None], np.float32), np.asarray(weight > 1e-3)
