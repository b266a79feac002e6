"""A cut-out's outline as distances in the world of a view-aligned checkpoint, and whether it may be relied on.

Such a checkpoint sees along -Z without perspective, so that its cut-out says exactly where the object ends. This module
does not know of fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.hunyuan3d.facts import BackgroundFacts, UnusedOutline
from backend.hunyuan3d.image.doubts import DOUBTFUL, TOUCHING

Floats = NDArray[np.float32]

# A view-aligned checkpoint was trained on shapes whose outline's longer side is so long.
ALIGNED_SPAN = 1.8
SIDE = 512
COARSE_SIDE = 128
_SHOWN = 0.5
_RADII = 20
# Alpha between these, deeper in the object than its edge is wide, is glass or smoke.
_CLEAR, _SOLID = 0.1, 0.9
_EDGE = 0.03
_MOST_SOFT = 0.15


@dataclass(frozen=True)
class AlignedFrame:
    """Where a view-aligned world lies in its cut-out: half the image's sides to a world unit, and the origin's place.

    shift : in half sides right of and above the image's middle.
    """

    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)


def aligned_frame(alpha: NDArray[np.uint8]) -> AlignedFrame:
    """Return the frame of a cut-out's alpha (S, S): the outline's longer side is ALIGNED_SPAN, about the origin.

    The outline runs through the pixels that alpha covers in part: with the whole of its soft edge a small picture's
    would be a hundredth longer. Smoke and glass that stand out from it count, as they do for the image processor.
    """
    cover = np.asarray(alpha, np.float32) / 255
    across, down = _ends(cover.max(axis=0)), _ends(cover.max(axis=1))
    if across is None or down is None:
        return AlignedFrame()
    (left, right), (top, bottom) = across, down
    half = len(alpha) / 2
    span = max(bottom - top, right - left) / half
    return AlignedFrame(span / ALIGNED_SPAN, ((left + right) / 2 / half - 1, 1 - (top + bottom) / 2 / half))


def _ends(cover: Floats) -> tuple[float, float] | None:
    """Return where what covers a line of pixels (n,) begins and ends, as if each were covered from within."""
    shown = np.flatnonzero(cover >= _SHOWN)
    if not shown.size:
        shown = np.flatnonzero(cover)
    if not shown.size:
        return None
    first, last = int(shown[0]), int(shown[-1])
    padded = np.pad(cover, 1)
    begin, end = first + 1 - float(padded[first] + padded[first + 1]), last + float(padded[last + 1] + padded[last + 2])
    faint = np.flatnonzero(cover >= _CLEAR)
    # A soft edge is narrower than this.
    edge = _EDGE * len(cover)
    if faint.size and faint[0] < begin - edge:
        begin = float(faint[0])
    if faint.size and faint[-1] + 1 > end + edge:
        end = float(faint[-1] + 1)
    return begin, end


@dataclass(frozen=True, eq=False)
class Outline:
    """Distances to the outline, world units, positive inside, on square rasters of the box ±bounds, top row first.

    distance : (SIDE, SIDE) float32. coarse : the same on COARSE_SIDE. radius : (COARSE_SIDE, COARSE_SIDE) float32, of
    the largest circle within the outline that holds the place, 0 outside.
    """

    distance: Floats
    coarse: Floats
    radius: Floats
    bounds: float

    @classmethod
    def of(cls, cutout: Image.Image, bounds: float) -> Outline:
        """Measure a cut-out: RGBA, square."""
        alpha = np.asarray(cutout.getchannel("A"))
        distance = signed_distance(_in_world(alpha, bounds), bounds)
        small = cv2.resize(distance, (COARSE_SIDE, COARSE_SIDE), interpolation=cv2.INTER_AREA)
        coarse = np.asarray(small, np.float32)
        return cls(distance, coarse, _inner_radius(coarse, 2 * bounds / COARSE_SIDE), bounds)


def reason_not_to_follow(cutout: Image.Image, background: BackgroundFacts) -> UnusedOutline | None:
    """Say why an outline is not to be relied on; None where it is.

    It is not where the cut-out is doubtful, ends at the image's border and not at its own, or is soft as glass is.
    """
    if background.score is not None and background.score < DOUBTFUL:
        return "doubtful"
    if background.border > TOUCHING:
        return "border"
    alpha = np.asarray(cutout.getchannel("A"), np.float32) / 255
    margin = max(1, round(_EDGE * len(alpha)))
    within = cv2.erode((alpha > _CLEAR).astype(np.uint8), np.ones((margin, margin), np.uint8)) > 0
    soft = within & (alpha < _SOLID)
    return "soft" if soft.sum() > _MOST_SOFT * max(1, (alpha > _CLEAR).sum()) else None


def signed_distance(shown: Floats, bounds: float) -> Floats:
    """Return distances (n, n) to where `shown` (n, n) crosses one half, world units, positive where it is more."""
    inside = (shown >= _SHOWN).astype(np.uint8)
    if not inside.any() or inside.all():
        return np.full(shown.shape, 2 * bounds if inside.any() else -2 * bounds, np.float32)
    within, beyond = _exact_distance(inside), _exact_distance(1 - inside)
    pixels = np.where(inside > 0, within - 0.5, 0.5 - beyond).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 0.8) * (2 * bounds / len(shown)), np.float32)


def _exact_distance(inside: NDArray[np.uint8]) -> Floats:
    """Return how far each place (n, n) is from the nearest where `inside` is 0, in pixels, rounded correctly.

    IPP, which OpenCV asks where it has one thread, rounds a place this way or that from call to call: the same picture
    then had another outline, and other vertices, in their last bits.
    """
    asks_ipp = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)  # Of this thread alone.
    try:
        return np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
    finally:
        cv2.ipp.setUseIPP(asks_ipp)


def _inner_radius(s: Floats, pixel: float) -> Floats:
    """Return the radius of the largest circle within the outline that holds each place, from distances s (n, n)."""
    radius = np.maximum(s, 0)
    # The wider circles lie farther apart: it is thin parts that have to be told from one another.
    for least in np.linspace(0, 1, _RADII + 1)[1:-1] ** 1.5 * max(float(s.max()), 0.0):
        away = cv2.distanceTransform((s < least).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5) * pixel
        radius = np.where((away <= least) & (s > 0), np.maximum(radius, least), radius)
    return np.asarray(cv2.GaussianBlur(radius, (0, 0), 1.0), np.float32)


def _in_world(alpha: NDArray[np.uint8], bounds: float) -> Floats:
    """Return the alpha as the box ±bounds sees it, (SIDE, SIDE), 0 to 1."""
    frame = aligned_frame(alpha)
    small = min(len(alpha), SIDE)
    shown = np.asarray(alpha, np.float32) / 255
    if small < len(alpha):
        shown = np.asarray(cv2.resize(shown, (small, small), interpolation=cv2.INTER_AREA), np.float32)
    across = bounds * frame.scale * small / SIDE
    right, up = frame.shift
    left = (right + 1) * small / 2 - bounds * frame.scale * small / 2 + across / 2 - 0.5
    top = (1 - up) * small / 2 - bounds * frame.scale * small / 2 + across / 2 - 0.5
    matrix = np.array([[across, 0, left], [0, across, top]], np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(shown, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(warped, np.float32)
