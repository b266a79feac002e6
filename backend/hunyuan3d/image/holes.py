"""Places that an object encloses and that have about the backdrop's colour: holes in it, or prints on it.

Some are holes beyond doubt, by their colour alone. Of the others the network that sees the picture knows more; what it
says and how they look make a logistic regression of 'is no part of the object', fitted to 4,924 such places of 809
composites: 216 of benchmarks/background_removal.py's tuning half and 593 of training/cutout. By area it opens 99 % of
the tuning half's holes, where those beyond doubt are 60 %, and 11 % of the prints. White and black count for more
against a hole than the fit has it: the network sees through white squares. This module does not know how the backdrop
was found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from backend.hunyuan3d.image.order_statistics import median
from backend.hunyuan3d.image.regions import Box, Mask, grown, of_kept, widened

Array = npt.NDArray[np.float32]
_LEAST_AREA, _LEAST_DOUBTED, _SMALL = 16, 3e-4, 5e-3
_NEAR = 5
_SUREST = 3.0


@dataclass(frozen=True, eq=False)
class Enclosed:
    """Enclosed places that may be holes.

    labels : (h, w) int32, 0 where there is none. seem : (n + 1,), the logarithm of the chances that each is a hole, by
    its looks; of label 0 nothing.
    """

    labels: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    seem: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return len(self.seem) > 1

    def holes(self, odds: Array) -> Mask:
        """Return which places (h, w) are none of the object; odds : (h, w), how likely each pixel is."""
        count = len(self.seem)
        total = np.bincount(self.labels.ravel(), weights=odds.ravel(), minlength=count)
        mean = total / np.maximum(np.bincount(self.labels.ravel(), minlength=count), 1)
        chances = np.clip(np.log((mean + 0.01) / (1.01 - mean)), -_SUREST, _SUREST)
        return of_kept(self.labels, self.seem + _ODDS * chances > 0)


NOTHING_ENCLOSED = Enclosed()


@dataclass(frozen=True, eq=False)
class Sea:
    """A backdrop as far as a flood came: what it reached and the sharp steps that stopped it, (h, w) each.

    lab : (h, w, 3), the picture. colour : (h, w, 3), the backdrop's everywhere, Lab. distance : (h, w), how far each
    pixel is from it. nearest : the same, from the nearer of two accounts of it. lighter : (h, w), how much lighter than
    the fitted backdrop. tolerance : how far the backdrop itself is from its colour.
    """

    lab: Array
    reached: Mask
    step: Mask
    colour: Array
    distance: Array
    nearest: Array
    lighter: Array
    tolerance: float


def find_holes(sea: Sea) -> tuple[Mask, Enclosed]:
    """Return what is enclosed and surely backdrop, (h, w): its very colour within sharp steps; and what may be.

    The rim of a highlight is soft. A small one is more often a print on the object: it must match more closely, and be
    as flat as the backdrop.
    """
    rest = ~sea.reached & ~sea.step & (sea.nearest < 1.5 * sea.tolerance)
    noise = 3.8 * _spread_about_median(sea.lighter[sea.reached]) if sea.reached.any() else 0.0
    count, labels, stats, _ = cv2.connectedComponentsWithStats(rest.astype(np.uint8), connectivity=4)
    land = max(int(rest.size - sea.reached.sum()), 1)
    sure, doubted, seem = np.zeros(count, np.bool_), np.zeros(count, np.int32), [0.0]
    for k in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= _LEAST_AREA):
        if k == 0:
            continue
        x, y, across, down, area = (int(value) for value in stats[k])
        box = widened((slice(y, y + down), slice(x, x + across)), _NEAR)
        region = labels[box] == k
        if _is_surely_one(sea, box, region, noise, small=area < _SMALL * rest.size):
            sure[k] = True
        elif area >= _LEAST_DOUBTED * rest.size:
            doubted[k] = len(seem)
            seem.append(_looks(sea, box, region, area / land))
    return of_kept(labels, sure), Enclosed(doubted.take(labels), np.array(seem))


def _is_surely_one(sea: Sea, box: Box, region: Mask, noise: float, *, small: bool) -> bool:
    distance, lighter = sea.nearest[box][region], sea.lighter[box][region]
    middle, high = np.quantile(distance, (0.5, 0.9)) / (0.55 if small else 1.0)
    if middle >= max(1.2, 0.4 * sea.tolerance) or high >= max(2.5, 0.9 * sea.tolerance):
        return False
    low_light, high_light = np.quantile(lighter, (0.1, 0.9))
    if small and high_light - low_light >= 1.5 * noise + 0.2:
        return False
    return _stopped(sea, box, region) > 0.7


def _looks(sea: Sea, box: Box, region: Mask, share: float) -> float:
    """Return the logarithm of the chances that a region is a hole, but for what the network says of it.

    Prints are white, grey or black far oftener than they have a backdrop's hue. share : of all that no flood reached.
    """
    colour = sea.colour[box]
    lightness, *hue = (float(colour[region, channel].mean()) for channel in range(3))
    extreme = max(lightness - 80, 0) / 20 + max(25 - lightness, 0) / 25
    core = cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    within = core if core.any() else region
    off = float(np.linalg.norm((sea.lab[box][within] - colour[within]).mean(axis=0)))
    around = grown(region, _NEAR) & ~region & ~sea.reached[box]
    contrast = median(sea.distance[box][around]) if around.any() else 0.0
    signs = (
        extreme * max(1 - math.hypot(*hue) / 8, 0),
        np.log(off + 0.2),
        np.log(median(sea.nearest[box][region]) + 0.2),
        np.log(contrast + 2),
        np.log(share + 1e-3) / 2,
        max(_stopped(sea, box, region) - 0.8, 0) * 5,
    )
    return float(_BIAS + np.dot(_WEIGHTS, signs))


_BIAS, _ODDS = -1.03, -1.03
_WEIGHTS = np.array([-1.80, -0.34, -0.67, 0.82, -0.30, 0.65])


def _stopped(sea: Sea, box: Box, region: Mask) -> float:
    """Return the share of a region's rim that sharp steps, or what the flood reached, are."""
    rim = grown(region, 1) & ~region
    return float((sea.step[box] | sea.reached[box])[rim].mean()) if rim.any() else 1.0


def _spread_about_median(values: Array) -> float:
    """Return the median of how far values (n,) are from their median."""
    return median(np.abs(values - np.float32(median(values))))
