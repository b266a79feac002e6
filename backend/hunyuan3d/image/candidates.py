"""Several ways to cut an object out of an opaque picture, and the one whose result looks most like an object.

Each candidate is measured and scored by `judgement`, whoever made it; frames and margins are peeled off first. This
module does not know about alpha channels or soft edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from backend.hunyuan3d.image.backdrop import Array, Found, Mask, Pixels, cut_busy, flood_lab, smooth_lab
from backend.hunyuan3d.image.cutout_network import Sight, look, refined_mask
from backend.hunyuan3d.image.frames import Window, peel
from backend.hunyuan3d.image.horizon import find_horizon, flatten
from backend.hunyuan3d.image.judgement import Signs, measure, overlap, score
from backend.hunyuan3d.image.shadows import without_mirror_image, without_shadow

CandidateMethod = Literal["flood", "grabcut", "network"]
# A flood's outline is the truer one where both are about as likely, and by far where it is clear all along.
_LEAD, _CLEAR_LEAD = 0.1, 0.25
_CLEAR_FAINT = 0.001
_LIKELY, _NEAR = 0.1, 5
_MOST_ASPECT = 3.0
_FILLED = 25
_HOLLOW = 0.6


@dataclass(frozen=True, eq=False)
class Candidate:
    """A cut-out of a picture: how it was made, what was found, what is seen of it, and how likely it is right."""

    method: CandidateMethod
    found: Found
    signs: Signs
    score: float


def best_cut(rgb: Pixels) -> Candidate | None:
    """Cut the object out of a picture (h, w, 3) uint8 at working size; None where no candidate found anything."""
    window, inner = inside(rgb)
    best = _best_of(inner)
    if best is None or window is None:
        return best
    return Candidate(best.method, set_back(best.found, window, rgb), best.signs, best.score)


def inside(rgb: Pixels) -> tuple[Window | None, Pixels]:
    """Return where the inside of a picture's frames is, None where it has none, and the picture there."""
    window = peel(rgb)
    return window, rgb if window is None else np.ascontiguousarray(rgb[window.slices])


def _best_of(rgb: Pixels) -> Candidate | None:
    best: Candidate | None = None
    for tried in judged(rgb, sight_of(rgb)):
        if best is None or tried.score > best.score + (_lead(best) if tried.method != best.method else 0.0):
            best = tried
    return best


def _lead(best: Candidate) -> float:
    """Return by how much another method's score must be higher."""
    clear = best.method == "flood" and best.signs.border == 0 and best.signs.faint < _CLEAR_FAINT
    return _CLEAR_LEAD if clear else _LEAD


def judged(rgb: Pixels, sight: Sight | None) -> list[Candidate]:
    """Return the candidates that found anything, each with its signs and score."""
    found = [(method, each) for method, each in candidates(rgb, sight) if each.foreground.any()]
    out = []
    for method, each in found:
        others = [overlap(each.foreground, other.foreground) for name, other in found if name != method]
        signs = measure(rgb, each, sight, max(others, default=None))
        out.append(Candidate(method, each, signs, score(signs)))
    return out


def sight_of(rgb: Pixels) -> Sight | None:
    """Return what the network makes of an image; None without one or for a shape it never saw."""
    h, w = rgb.shape[:2]
    return None if max(h, w) > _MOST_ASPECT * min(h, w) else look(rgb)


def candidates(rgb: Pixels, sight: Sight | None) -> list[tuple[CandidateMethod, Found]]:
    """Return the candidates; sight : what the network makes of the image, None without one."""
    floods = _floods(rgb)
    if floods and sight is not None:
        floods.append(_where_likely(floods[0], sight.odds))
    found: list[tuple[CandidateMethod, Found | None]] = [("flood", each) for each in floods]
    if sight is None:
        found.append(("grabcut", cut_busy(rgb)))
    else:
        likely = sight.odds > 0.5
        found.append(("network", Found(likely, ~likely)))
        if likely.any():
            refined = refined_mask(rgb, sight.odds)
            found.append(("network", Found(refined, ~refined)))
    return [(method, each) for method, each in found if each is not None]


def _floods(rgb: Pixels) -> list[Found]:
    """Return what floods from the border leave, the horizon known and not, shadows and mirror images taken off."""
    lab = smooth_lab(rgb)
    horizon = find_horizon(lab)
    flat = lab if horizon is None else flatten(lab, horizon)
    flooded = flood_lab(flat)
    found = []
    if flooded is not None:
        changed = (without_shadow(flat, flooded), without_mirror_image(flat, flooded), filled(lab, flooded))
        found = [flooded, *(each for each in changed if each is not flooded)]
    if horizon is not None:
        plain = flood_lab(lab)
        found += [] if plain is None else [plain]
    return found


def _where_likely(found: Found, odds: Array) -> Found:
    """Keep of a flood's object what the network does not deny: shadows, tables and captions go, the outline stays."""
    near = cv2.dilate((odds > _LIKELY).astype(np.uint8), np.ones((_NEAR, _NEAR), np.uint8)) > 0
    foreground = found.foreground & near
    return Found(foreground, found.backdrop | (found.foreground & ~near))


def filled(lab: Array, found: Found) -> Found:
    """Fill an object of which the flood left the outline alone: what it encloses and is not the backdrop's very colour.

    lab : (h, w, 3). Returns the same Found where there is nothing to fill.
    """
    shown = _walled(found.foreground).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_FILLED, _FILLED))
    closed = cv2.morphologyEx(cv2.copyMakeBorder(shown, 16, 16, 16, 16, cv2.BORDER_CONSTANT), cv2.MORPH_CLOSE, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
    outside = labels[0, 0]
    labels = labels[16:-16, 16:-16]
    backdrop = np.median(lab[found.backdrop], axis=0) if found.backdrop.any() else np.zeros(3)
    more = np.zeros(found.foreground.shape, np.bool_)
    for k in range(1, count):
        if k == outside or stats[k, cv2.CC_STAT_AREA] < 0.02 * shown.sum():
            continue
        region = labels == k
        if region.any() and float(np.linalg.norm(np.median(lab[region], axis=0) - backdrop)) > 1.2:
            more |= region
    if more.sum() < _HOLLOW * shown.sum():
        return found
    more = (cv2.dilate(more.astype(np.uint8), kernel) > 0) & (closed[16:-16, 16:-16] > 0) | more
    foreground = found.foreground | more
    return Found(foreground, found.backdrop & ~foreground)


def _walled(shown: Mask) -> Mask:
    """Return a mask with each side of the image filled from the first to the last place at which it is touched."""
    walled = shown.copy()
    for line in (walled[0], walled[-1], walled[:, 0], walled[:, -1]):
        touched = np.flatnonzero(line)
        if touched.size:
            line[touched[0] : touched[-1] + 1] = True
    return walled


def set_back(found: Found, window: Window, rgb: Pixels) -> Found:
    """Return what was found inside a frame as found in the whole picture; the frame is backdrop."""
    foreground, backdrop = np.zeros(rgb.shape[:2], np.bool_), np.ones(rgb.shape[:2], np.bool_)
    foreground[window.slices], backdrop[window.slices] = found.foreground, found.backdrop
    return Found(foreground, backdrop)
