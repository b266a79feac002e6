"""How much a cut-out looks like an object cut out, whoever cut it: signs that are measured, and a score made of them.

The score is a logistic regression of 'IoU with the true mask is at least 0.9' over the tuning half of
benchmarks/background_removal.py, whose --fit prints the weights. This module does not know how a cut-out was made.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from backend.hunyuan3d.image.backdrop import (
    Array,
    Found,
    Pixels,
    by_channel,
    colour_overlap,
    gradient,
    stray_hue,
    sum_channels,
)
from backend.hunyuan3d.image.cutout_network import Sight, expected_iou
from backend.hunyuan3d.image.order_statistics import median
from backend.hunyuan3d.image.regions import Mask, border_share, grown

_SIDE = 320
_FAINT = 6.0
# Signs of a cut-out that nothing speaks against.
_FEW_FAINT, _CLEAR_CONTRAST, _MOST_SHARED, _LITTLE_SHADE = 0.05, 20.0, 0.3, 0.07
# What stands in for what a network that is not there, or a method that found nothing, would say.
_USUAL_ODDS, _USUALLY_UNSURE, _USUALLY_AGREED = 0.8, 0.2, 0.7


@dataclass(frozen=True)
class Signs:
    """What can be seen of a cut-out.

    border : share of the image's border that is covered, 0..1; area : share of the image
    contrast : median difference in Lab across the outline; faint : share of the outline where that is below 6
    edges : share of the outline that lies on an edge of the image
    overlap : shared part of the colours inside and outside, 0..1
    ragged : length of the outline, of that of its hull; pieces : parts that do not touch
    shade : share of the object that is a darker backdrop
    odds : overlap that the network's odds let expect, 0..1; unsure : how much of the object these odds leave open,
    0 = nothing; expected : the IoU that the network expects of its own mask; agreed : the overlap with that mask; all
    None without a network
    rival : overlap with the most alike of what another method found, None where none found anything
    """

    border: float
    area: float
    contrast: float
    faint: float
    edges: float
    overlap: float
    ragged: float
    pieces: int
    shade: float
    odds: float | None = None
    unsure: float | None = None
    expected: float | None = None
    agreed: float | None = None
    rival: float | None = None

    @property
    def plain(self) -> bool:
        """Whether it is of other colours than what is around it, all along its outline and within, and no shadow."""
        return (
            self.faint <= _FEW_FAINT
            and self.contrast >= _CLEAR_CONTRAST
            and self.overlap <= _MOST_SHARED
            and self.shade <= _LITTLE_SHADE
        )


@dataclass(frozen=True, eq=False)
class Scene:
    """An image as its cut-outs are measured, at most _SIDE pixels a side, whichever cut-out it is.

    rgb : (h, w, 3) uint8; lab : the same in Lab; edges : (h, w), where an edge stands out from its surroundings
    """

    rgb: Pixels
    lab: Array
    edges: Mask

    @classmethod
    def of(cls, rgb: Pixels) -> Scene:
        """Prepare an image (H, W, 3) uint8."""
        scale = min(1.0, _SIDE / max(rgb.shape[:2]))
        small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
        lab: Array = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        return cls(np.asarray(small, np.uint8), lab, _edges(lab))

    def small(self, mask: Mask) -> Mask:
        """Return a mask (H, W) at this size, (h, w): never empty."""
        h, w = self.rgb.shape[:2]
        if mask.shape != (h, w):
            mask = cv2.resize(mask.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA) >= 0.5
        if not mask.any():
            mask = np.zeros((h, w), np.bool_)
            mask[np.unravel_index(int(self.rgb.sum(axis=2).argmin()), mask.shape)] = True
        return mask


def measure(scene: Scene, found: Found, sight: Sight | None = None, rival: float | None = None) -> Signs:
    """Measure a cut-out that has some foreground.

    sight : what the network makes of the image. rival : the most overlap with what other methods found.
    """
    mask, lab = scene.small(found.foreground), scene.lab
    across, outline, outer = _across(lab, mask)
    count, _, _, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    area = float(mask.mean())
    length = float(outline.sum())
    return Signs(
        border=border_share(mask),
        area=area,
        contrast=median(across) if across.size else 0.0,
        faint=float((across < _FAINT).mean()) if across.size else 1.0,
        edges=float(scene.edges[outline].mean()) if outline.any() else 0.0,
        overlap=colour_overlap(scene.rgb, mask),
        ragged=length / max(_hull_length(mask), 1.0),
        pieces=count - 1,
        shade=_shade(lab, mask, outer),
        odds=None if sight is None else expected_iou(sight.odds, found.foreground),
        unsure=None if sight is None else _left_open(sight.odds, found.foreground),
        expected=None if sight is None else sight.expected,
        agreed=None if sight is None else overlap(found.foreground, sight.odds > 0.5),
        rival=rival,
    )


def overlap(first: Mask, second: Mask) -> float:
    """Return the intersection over union of two masks (h, w), 0 where both are empty."""
    return float((first & second).sum() / max(int((first | second).sum()), 1))


def score(signs: Signs) -> float:
    """Return how likely a cut-out with these signs is right, 0..1."""
    total = float(_BIAS + np.dot(_WEIGHTS, features(signs)))
    return float(1 / (1 + np.exp(-np.clip(total, -30, 30))))


def features(signs: Signs) -> npt.NDArray[np.float64]:
    """Return the numbers that the score weighs, each roughly between 0 and 3."""
    return np.array(
        [
            min(signs.border, 0.5) * 4,
            np.sqrt(signs.border) * 2,
            np.log10(max(signs.area, 1e-4)) + 2,
            max(signs.area - 0.5, 0) * 4,
            min(signs.contrast, 40) / 20,
            signs.faint * 2,
            signs.edges * 2,
            signs.overlap * 2,
            min(np.log(max(signs.ragged, 1.0)), 3),
            min(signs.pieces - 1, 5) / 2,
            signs.shade * 2,
            (_USUAL_ODDS if signs.odds is None else signs.odds) * 3,
            min(_USUALLY_UNSURE if signs.unsure is None else signs.unsure, 1.5) * 2,
            (_USUAL_ODDS if signs.expected is None else signs.expected) * 3,
            (_USUALLY_AGREED if signs.agreed is None else signs.agreed) * 3,
            (_USUALLY_AGREED if signs.rival is None else signs.rival) * 3,
        ]
    )


_BIAS = -5.99
_WEIGHTS = np.array(
    [-0.81, -0.78, 0.09, -0.26, 0.01, -0.46, 0.91, -0.88, -0.83, -0.75, -0.22, 1.27, -0.1, 0.59, 0.0, 0.71]
)


def _across(lab: Array, mask: Mask) -> tuple[Array, Mask, Array]:
    """Return the differences (n,) in Lab across the outline, the outline itself, and the colours outside everywhere.

    Where the image's own border cuts the object there is no outline.
    """
    kernel = np.ones((3, 3), np.uint8)
    shown = mask.astype(np.uint8)
    core, rest = cv2.erode(shown, kernel), 1 - cv2.dilate(shown, kernel)
    outline = mask & (cv2.erode(shown, kernel, borderType=cv2.BORDER_REPLICATE) == 0)
    thin = core.sum() < 0.3 * shown.sum()
    inner, outer = _near(lab, shown if thin else core), _near(lab, rest)
    return np.sqrt(sum_channels((inner - outer) ** 2))[outline], outline, outer


def _hull_length(mask: Mask) -> float:
    hull = cv2.convexHull(np.argwhere(mask)[:, ::-1].astype(np.int32))
    return float(cv2.arcLength(hull, closed=True))


def _left_open(odds: Array, shown: Mask) -> float:
    """Return the entropy-like sum of odds that are neither 0 nor 1, a share of the object's area."""
    return float((4 * odds * (1 - odds)).sum(dtype=np.float64) / max(float(shown.sum()), 1.0))


def _near(lab: Array, where: Pixels) -> Array:
    """Return everywhere the mean colour of the marked pixels nearby."""
    weight = where.astype(np.float32)
    total = np.maximum(cv2.GaussianBlur(weight, (0, 0), 3), 1e-6)
    mean: Array = cv2.GaussianBlur(lab * by_channel(weight), (0, 0), 3) / by_channel(total)
    return mean


def _edges(lab: Array) -> Mask:
    """Return where (h, w) an edge that stands out from its surroundings is within a pixel."""
    steepness = gradient(lab)
    peak = cv2.dilate(steepness, np.ones((3, 3), np.uint8))
    around = cv2.blur(steepness, (15, 15))
    return np.asarray((peak > 1.6 * around) & (peak > 1.0))


def _shade(lab: Array, mask: Mask, outer: Array) -> float:
    """Return the share of the object whose colour is the nearby backdrop's, only darker."""
    near = grown(~mask, 7)
    lightness = (lab[..., 0] + 16) / (outer[..., 0] + 16)
    stray = stray_hue(lab, outer, lightness)
    darker = (stray < 4) & (lightness < 0.97) & (lightness > 0.35) & near
    return float(darker[mask].mean())
