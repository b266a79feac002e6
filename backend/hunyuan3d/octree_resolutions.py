"""Octree resolutions of a service: which a quality stands for, and how fine one may be.

This module does not know what a resolution costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from backend.errors import InvalidOctreeResolution
from backend.limits import CHECKPOINT_RESOLUTION, MIN_REQUEST_RESOLUTION


@dataclass(frozen=True)
class Resolutions:
    """Octree resolutions, cells a side: what the checkpoint is for, and the finest that a request may have."""

    own: int = CHECKPOINT_RESOLUTION
    most: int = 512

    def of_quality(self, quality: int) -> int:
        """Return the cells a side for a quality from 1 to 10: a third of the checkpoint's own to four thirds.

        To the nearest multiple of 16, and within what a request may have.
        """
        exact = self.own * (1 / 3 + (quality - 1) / 9)
        return min(max(MIN_REQUEST_RESOLUTION, 16 * math.floor(exact / 16 + 0.5)), self.most)

    def check(self, asked: int | None) -> None:
        """Refuse what is finer than a request may ask for; None asks for nothing. Raises InvalidOctreeResolution."""
        if asked is not None and asked > self.most:
            allowed = f"a whole number from {MIN_REQUEST_RESOLUTION} to {self.most}"
            raise InvalidOctreeResolution(
                f"octree_resolution must be {allowed}, not '{asked}'.",
                details={"field": "octree_resolution", "allowed": allowed},
            )
