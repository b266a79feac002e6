"""What should be said of a cut-out: that it is doubtful, cut off, of several objects, or barely told from its backdrop.

This module does not know how a cut-out was made, or where that is said.
"""

from __future__ import annotations

import cv2
import numpy as np

from backend.hunyuan3d.facts import Remark
from backend.hunyuan3d.image.backdrop import Pixels
from backend.hunyuan3d.image.judgement import Signs
from backend.hunyuan3d.image.regions import Mask

DOUBTFUL = 0.55
"""A score below this is said. Calibrated on the tuning half of benchmarks/background_removal.py."""

HOPELESS = 0.04
"""A score below this is no cut-out at all."""

UNSEEN = 3.0
"""A median difference in Lab across the outline that no one sees: what was cut out along it was guessed."""

TOUCHING = 0.015
"""A larger share of the picture's border that is covered is said."""

MOST_TOUCHING = 0.1
"""An object that covers a larger share of the border does not stand clear of it."""

_LOW_CONTRAST = 7.0
_LEAST_PIECE = 0.01


def pieces_of(alpha: Pixels) -> tuple[int, Mask]:
    """Count the objects of a cut-out; return also where the largest is.

    alpha : (h, w) uint8. Parts that do not touch count, without those below a hundredth of the largest.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((alpha >= 128).astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 2:
        return 0, np.zeros(alpha.shape, np.bool_)
    largest = 1 + int(areas.argmax())
    return int((areas >= _LEAST_PIECE * areas.max()).sum()), np.asarray(labels == largest, dtype=np.bool_)


def keep_largest(alpha: Pixels) -> Pixels:
    """Return the alpha of the largest piece alone, with its soft edge."""
    count, largest = pieces_of(alpha)
    if not count:
        return alpha
    others = (alpha >= 128) & ~largest
    if not others.any():
        return alpha
    # A pixel of a soft edge belongs to the piece that is nearer.
    to_largest = cv2.distanceTransform((~largest).astype(np.uint8), cv2.DIST_L2, 3)
    to_others = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, 3)
    return np.where((to_largest <= to_others) & ~others, alpha, 0).astype(np.uint8)


def remarks_on(objects: int, border: float, signs: Signs | None, score: float | None) -> tuple[Remark, ...]:
    """Return what is to be said.

    objects : pieces that are kept; border : share of the image's border that is covered; signs, score : None where
    nobody judged.
    """
    found: list[Remark] = []
    if score is not None and score < DOUBTFUL:
        found.append(
            Remark(
                "CUTOUT_DOUBTFUL",
                "The object may not be cut out well; look at the cut-out, or send one with a transparent background.",
            )
        )
    if border > TOUCHING:
        found.append(
            Remark(
                "OBJECT_TOUCHES_BORDER",
                "The object reaches the picture's border: what is beyond cannot be made. Send one that shows it whole.",
            )
        )
    if objects > 1:
        found.append(
            Remark(
                "SEVERAL_OBJECTS",
                f"The picture shows {objects} objects that do not touch, which are made as one; objects=largest keeps "
                "the largest, and several views of one object are better sent as views.",
            )
        )
    if signs is not None and signs.contrast < _LOW_CONTRAST:
        found.append(
            Remark(
                "LOW_CONTRAST",
                "The object is hardly told from its background; send one before a background of another colour.",
            )
        )
    return tuple(found)


def why_hopeless(signs: Signs) -> str:
    """Return why a picture with such a cut-out is refused, and what to send instead."""
    if signs.border > MOST_TOUCHING:
        return "No object stands clear of the picture's border; send one that shows it whole."
    if signs.contrast < _LOW_CONTRAST:
        return "The object cannot be told from its background: their colours are too much alike."
    return "The background is too busy to tell an object from it; send a cut-out or a plain background."
