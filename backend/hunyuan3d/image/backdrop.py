"""Finding the object in an opaque picture by classical means: which pixels are backdrop, which are object.

Two methods, both on a picture of bounded size. `flood_backdrop` is for a near-uniform border: a quadratic surface is
fitted to the border in Lab (lamps and vignettes bend it), the backdrop is flooded from the border through pixels that
match it or are a smooth darkening of it (soft shadows), and sharp steps stop the flood. `cut_busy` is GrabCut with a
central prior. This module does not know about alpha channels, files, or how soft the edge is (see matting.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from backend.hunyuan3d.image.holes import NOTHING_ENCLOSED, Enclosed, Sea, find_holes
from backend.hunyuan3d.image.order_statistics import channel_medians, median, quantile
from backend.hunyuan3d.image.regions import Mask, border_share, from_border, grown, of_kept, significant

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Real = TypeVar("Real", np.float32, np.float64)

WORKING_SIDE = 512
# Lightness of a shadow's (L + 16) relative to the lit backdrop's; darker than this is an object.
_DARKEST_SHADOW = 0.4
_NECKS = (5, 9, 16, 28, 48, 72)


@dataclass(frozen=True)
class Found:
    """What was found: foreground (h, w) bool and backdrop (h, w) bool whose colours are surely the backdrop's.

    enclosed : places of the foreground that may be holes in it
    """

    foreground: Mask
    backdrop: Mask
    enclosed: Enclosed = NOTHING_ENCLOSED

    def opened(self, odds: Array) -> Found:
        """Return it without those enclosed places that are holes by a network's odds (h, w) and by their looks."""
        if not self.enclosed:
            return self
        holes = self.enclosed.holes(odds) & self.foreground
        return self.left_with(significant(self.foreground & ~holes))

    def left_with(self, foreground: Mask) -> Found:
        """Return it with a part of its foreground (h, w); the rest is backdrop."""
        return Found(foreground, self.backdrop | (self.foreground & ~foreground), self.enclosed)


@dataclass(frozen=True)
class _Backdrop:
    """A fitted backdrop: lab (h, w, 3), tolerance in Lab units, and whether the border is near-uniform."""

    lab: Array
    tolerance: float
    near_uniform: bool


@dataclass(frozen=True)
class _Sharpness:
    """How far each pixel's gradient (h, w) is above its neighbourhood's mean: of the picture, and of it blurred."""

    fine: Array
    blurred: Array


@dataclass(frozen=True)
class _Evidence:
    """Per pixel (h, w): distance to the backdrop in Lab, a match of it, a match or shadow of it, a sharp step."""

    distance: Array
    match: Mask
    passable: Mask
    step: Mask


def flood_backdrop(rgb: Pixels) -> Found | None:
    """Cut an object from a near-uniform backdrop.

    rgb : (h, w, 3) uint8 at working size. Returns None when the border is not near-uniform; a foreground that is
    empty everywhere means that the picture shows the backdrop alone.
    """
    return flood_lab(smooth_lab(rgb))


def flood_lab(lab: Array) -> Found | None:
    """Do the same with a picture in Lab (h, w, 3) whose noise is smoothed."""
    fitted = _fit_border(lab)
    if not fitted.near_uniform:
        return None
    sharpness = _Sharpness(_sharpness(lab, 0.0, 4.0), _sharpness(lab, 1.5, 6.0))
    first = _weigh(lab, sharpness, fitted.lab, fitted.tolerance)
    reached, pockets = _flood(first, np.zeros(lab.shape[:2], bool))
    # The first flood shows what the border alone cannot: bends, a soft horizon, the shadow itself.
    local = _fill_in(lab, fitted.lab, reached)
    evidence = _weigh(lab, sharpness, local, fitted.tolerance)
    reached, _ = _flood(evidence, pockets)
    local = _fill_in(lab, fitted.lab, reached)
    nearest, lighter = np.minimum(_distance(lab, local), first.distance), lab[..., 0] - fitted.lab[..., 0]
    sea = Sea(lab, reached, evidence.step, local, evidence.distance, nearest, lighter, fitted.tolerance)
    holes, enclosed = find_holes(sea)
    backdrop = reached | holes
    backdrop |= _reflection(lab - local, evidence, backdrop)
    foreground = significant(~backdrop, np.maximum(evidence.distance - fitted.tolerance, 0))
    return Found(foreground, backdrop & ~foreground, enclosed)


def cut_busy(rgb: Pixels) -> Found | None:
    """Cut a central object from a busy picture with GrabCut, or return None when nothing is sure.

    rgb : (h, w, 3) uint8. Sure means: two different priors lead to the same object, it stands clear of most of the
    border, and its colours differ from the rest's.
    """
    scale = min(1.0, 320 / max(rgb.shape[:2]))
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    wide, narrow = (_grab(small, reach) for reach in (0.85, 0.55))
    both, either = wide & narrow, wide | narrow
    if not both.any() or both.sum() < 0.6 * either.sum():
        return None
    mask = significant(wide, least_share=0.1)
    if not 0.01 < mask.mean() < 0.75 or border_share(mask) > 0.3 or colour_overlap(small, mask) > 0.4:
        return None
    size = (rgb.shape[1], rgb.shape[0])
    foreground = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    return Found(foreground, ~foreground)


def smooth_lab(rgb: Pixels) -> Array:
    lab: Array = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    residual = np.abs(cv2.filter2D(lab, -1, kernel))
    noise = channel_medians(residual) / 0.6745 / 6 * (1, 0.5, 0.5)
    smooth: Array = cv2.GaussianBlur(lab, (0, 0), float(np.clip(0.7 + 0.7 * noise.max(), 0.7, 2.2)))
    return smooth


def _fit_border(lab: Array) -> _Backdrop:
    """Fit a quadratic surface to the border, robustly (Tukey weights, scale annealed from the median's)."""
    basis, design, ring = _quadratics(*lab.shape[:2])
    # A row for each channel and each term: a short axis at the end is slow to go along.
    values = np.stack([lab[..., channel][ring] for channel in range(3)]).astype(np.float64)
    distance = _lengths(values - channel_medians(values.T)[:, None])
    scale = max(1.5, 1.48 * median(distance))
    for step in range(10):
        weighted = design * np.clip(1 - (distance / (4 * scale)) ** 2, 0, 1) ** 2
        surface = np.linalg.solve(weighted @ design.T + 1e-3 * np.eye(6), weighted @ values.T)
        distance = _lengths(values - surface.T @ design)
        scale = max(0.7, 0.8 * scale if step < 3 else median(distance))
    inlier = distance < max(4, 4 * scale)
    tolerance = 1.3 * quantile(distance[inlier], 0.97) if inlier.any() else np.inf
    uniform = bool(inlier.mean() >= 0.5 and median(distance) <= 6)
    return _Backdrop((basis @ surface).astype(np.float32), float(np.clip(tolerance, 3, 8)), uniform)


@lru_cache(maxsize=2)
def _quadratics(h: int, w: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Mask]:
    """Return 1, x, y, xy, x², y², x and y from -1 to 1, at every pixel (h, w, 6) and in the border (6, n); the border.

    Most images have the same size.
    """
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    width = max(3, round(0.03 * min(h, w)))
    ring = np.ones((h, w), np.bool_)
    ring[width:-width, width:-width] = False
    kept = basis, np.ascontiguousarray(basis[ring].T), ring
    for each in kept:
        each.flags.writeable = False
    return kept


def _lengths(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the lengths (n,) of vectors (3, n)."""
    squares = vectors * vectors
    lengths: npt.NDArray[np.float64] = np.sqrt(squares[0] + squares[1] + squares[2])
    return lengths


def _distance(lab: Array, backdrop: Array) -> Array:
    difference: Array = np.sqrt(sum_channels((lab - backdrop) ** 2))
    return difference


def stray_hue(lab: Array, backdrop: Array, lightness: Array) -> Array:
    """Return how far a and b (h, w) are from those of the backdrop under so much less light, in Lab units.

    lab, backdrop : (h, w, 3). lightness : L + 16 relative to the backdrop's, (h, w). Scaling linear light by r scales
    L + 16, a and b by the cube root of r alike (CIE 1976), so a shadow of the backdrop lies on a known line in Lab.
    """
    stray: Array = cv2.magnitude(lab[..., 1] - lightness * backdrop[..., 1], lab[..., 2] - lightness * backdrop[..., 2])
    return stray


def sum_channels(values: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Add up the three channels of (..., 3) values; numpy's own sum over so short an axis is many times slower."""
    total: npt.NDArray[Real] = values[..., 0] + values[..., 1]
    total += values[..., 2]
    return total


def _weigh(lab: Array, sharpness: _Sharpness, backdrop: Array, tolerance: float) -> _Evidence:
    """Weigh each pixel against the backdrop."""
    distance = _distance(lab, backdrop)
    darker = np.minimum((lab[..., 0] + 16) / (backdrop[..., 0] + 16), 1)
    stray = stray_hue(lab, backdrop, darker)
    not_lighter = lab[..., 0] - backdrop[..., 0] < tolerance
    match = distance < tolerance
    shadow = (stray < max(2.5, 0.8 * tolerance)) & (darker > _DARKEST_SHADOW) & not_lighter
    step = _steps(sharpness.fine, match, 0.4, 12) | _steps(sharpness.blurred, match, 0.2, 20)
    return _Evidence(distance, match, (match | shadow) & ~step, step)


def _sharpness(lab: Array, fine: float, coarse: float) -> Array:
    """Return how far the gradient is above its neighbourhood's mean (h, w), which a shadow's ramp is not.

    fine, coarse : how far the picture is blurred before (0: not), and how wide the neighbourhood is, in pixels
    """
    blurred = cv2.GaussianBlur(lab, (0, 0), fine) if fine else lab
    steepness = gradient(blurred)
    sharpness: Array = steepness - 1.2 * cv2.GaussianBlur(steepness, (0, 0), coarse)
    return sharpness


def gradient(lab: Array) -> Array:
    """Return the length (h, w) of the gradient of an image (h, w, 3), all channels together, a pixel."""
    along, down = cv2.Scharr(lab, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(lab, cv2.CV_32F, 0, 1) / 32
    length: Array = np.sqrt(sum_channels(along**2 + down**2))
    return length


def _steps(sharpness: Array, match: Mask, least: float, length: int) -> Mask:
    """Find steps of at least so many sharp pixels, linked by hysteresis; what matches the backdrop tells its noise."""
    noise = quantile(sharpness[match], 0.985) if match.any() else 0.0
    threshold = float(np.clip(1.3 * noise, least, 2.0))
    count, labels = cv2.connectedComponents((sharpness > 0.5 * threshold).astype(np.uint8), connectivity=8)
    return of_kept(labels, np.bincount(labels[sharpness > threshold], minlength=count) >= length)


def _grow(mask: Mask, within: Mask, steps: int) -> Mask:
    """Dilate by one pixel at a time, never leaving `within`."""
    grown, allowed = mask.astype(np.uint8), within.astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for _ in range(steps):
        grown |= cv2.dilate(grown, kernel) & allowed
    return grown.astype(np.bool_)


def _depth(mask: Mask) -> Array:
    """Return the distance to the nearest pixel of the picture outside the mask."""
    distance: Array = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    return distance


def _flood(evidence: _Evidence, suspects: Mask) -> tuple[Mask, Mask]:
    """Flood the backdrop from the border, again with a stricter eye for gaps where the flood leaked inside.

    suspects : pockets of an earlier flood; those that still do not match stay out. Returns reached and pockets.
    """
    kept = _unlike(evidence, suspects)
    floods: list[tuple[Mask, Mask]] = []
    for slack, least_match in ((1.6, 0.8), (1.1, 0.8), (1.1, 1.01)):
        pockets = kept | _pockets(evidence, slack, least_match)
        floods.append((_flood_around(evidence, pockets), pockets))
        if not _has_leaked(evidence, floods[-1][0]):
            return floods[-1]
    return floods[0]


def _unlike(evidence: _Evidence, regions: Mask) -> Mask:
    """Keep those components of the regions that do not match the backdrop."""
    count, labels = cv2.connectedComponents(regions.astype(np.uint8))
    size = np.bincount(labels.ravel(), minlength=count)
    matching = np.bincount(labels.ravel(), weights=evidence.match.ravel(), minlength=count)
    return of_kept(labels, matching < 0.8 * size)


def _flood_around(evidence: _Evidence, pockets: Mask) -> Mask:
    """Flood through matches five pixels wide and through shadow ten pixels wide, but into no pocket."""
    open_ = evidence.passable & ~pockets
    wide = (_depth(evidence.match & ~evidence.step) > 2.5) | (_depth(evidence.passable) > 5)
    reached = _grow(from_border(wide & open_), open_, 7)
    return _grow(reached, open_ & evidence.match, 8)


def _has_leaked(evidence: _Evidence, reached: Mask) -> bool:
    """Say whether the main part left is little but an outline of faint steps, or shadow fills much of its hull."""
    rest = significant(~reached, evidence.step.astype(np.float32), 0.3)
    if not rest.any():
        return False
    corners = cv2.convexHull(_row_ends(rest))
    hull = cv2.fillConvexPoly(np.zeros(rest.shape, np.uint8), corners, 1) > 0
    faint = rest & evidence.step & (evidence.distance < 25)
    hollow = faint.sum() > max(60, 0.4 * rest.sum()) and rest.sum() < 0.4 * hull.sum()
    return bool(hollow or (hull & reached & ~evidence.match).sum() > 0.25 * hull.sum())


def _row_ends(mask: Mask) -> npt.NDArray[np.int32]:
    """Return the first and last pixel (n, 2) [x, y] of every row of the mask: its hull is theirs."""
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    return np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])], axis=1).astype(np.int32)


def _pockets(evidence: _Evidence, slack: float, least_match: float) -> Mask:
    """Find regions that resemble shadow and hang on the backdrop by a neck much narrower than themselves.

    They are the insides of objects of the backdrop's own hue whose outline fades somewhere. Regions of which a share
    of least_match has the backdrop's very colour are no pockets: they are backdrop between the parts of an object.
    slack : how many times deeper than its neck a pocket is.
    """
    texture = ~evidence.passable & ~significant(~evidence.passable, least_share=0)
    depth = _depth(evidence.passable | texture)
    found = np.zeros(depth.shape, bool)
    barrier = np.repeat(np.where(evidence.passable | texture, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    for neck in _NECKS:
        wide = depth > neck
        outside = from_border(wide)
        if np.array_equal(outside, wide):
            continue
        count, labels = cv2.connectedComponents(wide.astype(np.uint8))
        open_ = np.bincount(labels[outside], minlength=count) > 0
        if open_[1:].all():
            continue
        deepest = np.zeros(count, np.float32)
        np.maximum.at(deepest, labels.ravel(), depth.ravel())
        deepest[open_] = 0
        inner = [k for k in range(1, count) if deepest[k] >= slack * neck]
        if not inner:
            continue
        markers = np.where(np.isin(labels, inner), labels + 1, outside.astype(np.int32)).astype(np.int32)
        cv2.watershed(barrier, markers)
        for k in inner:
            region = (markers == k + 1) & evidence.passable
            if evidence.match[region].mean() < least_match:
                found |= region
    if not found.any():
        return found
    # Where two floods met in a gap the border is ragged; an outline's is not.
    whole = (found | evidence.step).astype(np.uint8)
    closed = cv2.morphologyEx(whole, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)))
    return _grow(found, evidence.passable & (closed > 0), 12)


def _fill_in(lab: Array, backdrop: Array, reached: Mask) -> Array:
    """Return the backdrop's colour everywhere, from the pixels reached; spread what the fit missed under the object."""
    inside = cv2.erode(reached.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    filled: Array = cv2.GaussianBlur(backdrop + spread(lab - backdrop, inside), (0, 0), 2)
    return filled


def spread(values: Array, known: Mask) -> Array:
    """Fill (h, w, c) values where not known from coarser and coarser averages of the known ones."""
    if min(known.shape) <= 2 or known.all():
        weight = known.astype(np.float32)[..., None]
        mean = (values * weight).sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6)
        return np.where(weight > 0, values, mean).astype(np.float32)
    weight = known.astype(np.float32)
    half = ((known.shape[1] + 1) // 2, (known.shape[0] + 1) // 2)
    weights = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    means = cv2.resize(values * by_channel(weight), half, interpolation=cv2.INTER_AREA)
    coarse = spread(means / by_channel(np.maximum(weights, 1e-6)), weights > 1e-3)
    raised: Array = cv2.resize(coarse, (known.shape[1], known.shape[0]), interpolation=cv2.INTER_LINEAR)
    # numpy takes several times as long to pick pixels out and put them in.
    copied: Array = cv2.copyTo(values, known.astype(np.uint8), raised)
    return copied


def by_channel(values: Array) -> Array:
    """Repeat (h, w) values for three channels; numpy works on whole arrays much faster than it repeats on the way."""
    repeated: Array = cv2.merge((values, values, values))
    return repeated


def _reflection(excess: Array, evidence: _Evidence, backdrop: Mask) -> Mask:
    """Find a faint mirror image under the object: pale, of its hue, and fading out with no outline on one side."""
    body = ~backdrop & ~evidence.step
    count, labels, stats, centres = cv2.connectedComponentsWithStats(body.astype(np.uint8), connectivity=4)
    mirrored = np.zeros(body.shape, bool)
    if count < 3:
        return mirrored
    main = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    hue = channel_medians(excess, labels == main)
    strength = float(np.linalg.norm(hue))
    for k in range(1, count):
        if k == main or stats[k, cv2.CC_STAT_AREA] < 30 or centres[k, 1] < centres[main, 1]:
            continue
        region = labels == k
        mean = channel_medians(excess, region)
        pale = np.linalg.norm(mean) < 0.5 * strength
        alike = float(mean @ hue) > 0.8 * strength * float(np.linalg.norm(mean))
        rim = grown(region, 1) & ~region
        if pale and alike and backdrop[rim].mean() > 0.08:
            mirrored |= region
    outline = _grow(mirrored, evidence.step, 6) & ~_grow(body & ~mirrored, evidence.step, 4)
    return mirrored | outline


def _grab(rgb: Pixels, reach: float) -> Mask:
    h, w = rgb.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    mask = np.where(np.hypot(x, y) < reach, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    width = max(2, round(0.03 * min(h, w)))
    mask[:width] = mask[-width:] = mask[:, :width] = mask[:, -width:] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(rgb, mask, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    return np.asarray((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), dtype=np.bool_)


def colour_overlap(rgb: Pixels, mask: Mask) -> float:
    """Return the shared part of the two sides' colour histograms, 0..1."""
    bins = (rgb // 32).astype(np.int64) @ np.array([64, 8, 1])
    inside = np.bincount(bins[mask], minlength=512) / max(int(mask.sum()), 1)
    outside = np.bincount(bins[~mask], minlength=512) / max(int((~mask).sum()), 1)
    return float(np.minimum(inside, outside).sum())
