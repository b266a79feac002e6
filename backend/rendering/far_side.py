"""What the far side of an object looks like, to judge by an image of its near side.

Two proposals: the near side mirrored, as the far side of a fish is; and the near side without its islands, which are
details that do not reach the outline. Bands and hats reach it, and go round; eyes, noses and buttons do not, and a face
on the back of a head is worse than a plain back. What has two eyes is a face and gets the second.
Knows nothing of meshes or cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.rendering.color_fill import fill_image
from backend.rendering.islands import Details, Islands, find_details

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Bools = NDArray[np.bool_]

_SYMMETRIC = 0.9
_SMALL = 0.03
_PATTERN_PIECES, _PATTERN_SHARE, _PATTERN_LEAST = 5, 0.06, 0.006


@dataclass(frozen=True, eq=False)
class FarSide:
    """plain : whether the far side is the near one without its islands. image : (h, w, 3) float32, the far side."""

    plain: bool
    image: Floats


def far_side(seen: Floats, known: Floats, *, aslant: bool = False, details: Details | None = None) -> FarSide:
    """Propose the far side, seen through the object as it were: not turned over.

    seen : (h, w, 3) 0 to 255, without holes; known : (h, w), 1 inside the object. aslant : neither front nor side was
    seen straight on: then a detail of the near side is not on the far one. details : of the same, found when absent.
    """
    details = details or find_details(seen, known)
    small, inside, islands = details.small, details.inside, details.islands
    if not inside.any():
        return FarSide(False, seen)
    plain = aslant or _has_eyes(details)
    plain = plain and not _is_pattern(small, islands, inside)
    return FarSide(plain, _replaced(seen, islands, inside) if plain else seen)


def _is_pattern(small: Pixels, islands: Islands, inside: Bools) -> bool:
    """Say whether the islands are many of one colour, as a ladybird's dots are: then the far side has them too."""
    share = islands.stats[1:, cv2.CC_STAT_AREA] / inside.sum()
    large = np.flatnonzero(share >= _PATTERN_LEAST) + 1
    if len(large) < _PATTERN_PIECES:
        return False
    colors = np.array([small[islands.labels == label].mean(axis=0) for label in large])
    alike = np.abs(colors - np.median(colors, axis=0)).max(axis=1) < 60
    return int(alike.sum()) >= _PATTERN_PIECES and float(share[large - 1][alike].sum()) >= _PATTERN_SHARE


def _has_eyes(details: Details) -> bool:
    """Say whether two equal spots lie side by side in the upper part: dark ones, or any in a symmetric outline."""
    inside = details.inside
    darker = (details.bare.astype(np.int16) - details.small).mean(axis=2) > 35
    if _two_alike(darker & inside, inside):
        return True
    columns = np.flatnonzero(inside.any(axis=0))
    outline = inside[:, columns[0] : columns[-1] + 1]
    return _overlap(outline, outline[:, ::-1]) > _SYMMETRIC and _two_alike(details.islands.mask, inside)


def _two_alike(mask: Bools, inside: Bools) -> bool:
    _, _, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    area = stats[:, cv2.CC_STAT_AREA]
    share = area / inside.sum()
    longest = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    fits = (share > 0.0006) & (share < 0.035) & (longest < 3.2 * np.sqrt(area))
    upper = (centroids[:, 1] - rows[0]) / height < 0.62
    spots = np.flatnonzero(fits & upper)
    for i, a in enumerate(spots):
        for b in spots[i + 1 :]:
            dx, dy = np.abs(centroids[a] - centroids[b])
            ratio = max(share[a], share[b]) / min(share[a], share[b])
            if ratio < 2.5 and dy < 0.35 * dx and 0.06 * width < dx < 0.65 * width:
                return True
    return False


def _replaced(seen: Floats, islands: Islands, inside: Bools) -> Floats:
    """Return the image with its islands, and a pixel around them, replaced: small ones by what is most around them.

    Large ones are continued from all sides.
    """
    height, width = islands.mask.shape
    small = cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA)
    wide = cv2.dilate(islands.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    filled = fill_image(small, (~wide & inside).astype(np.float32))
    for label in np.flatnonzero(islands.stats[1:, cv2.CC_STAT_AREA] < _SMALL * inside.sum()) + 1:
        own = (islands.labels == label).astype(np.uint8)
        near, far = (cv2.dilate(own, np.ones((k, k), np.uint8)) > 0 for k in (3, 11))
        ring = far & ~wide & inside
        if ring.any():
            filled[near] = np.median(small[ring], axis=0)
    whole = (seen.shape[1], seen.shape[0])
    around = cv2.resize(cv2.GaussianBlur(filled, (0, 0), 0.7), whole, interpolation=cv2.INTER_LINEAR)
    weight = cv2.resize(cv2.GaussianBlur(wide.astype(np.float32), (0, 0), 0.7), whole, interpolation=cv2.INTER_LINEAR)
    weight = np.clip(weight * 1.6, 0, 1)[..., None]
    return np.asarray(seen + weight * (around - seen), dtype=np.float32)


def _overlap(a: Bools, b: Bools) -> float:
    return float((a & b).sum() / max(int((a | b).sum()), 1))
