"""The weights of a cut-out's score, fitted to the tuning half of the composites.

This module does not look at what is kept for the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from backend.hunyuan3d.image.background import working_size
from backend.hunyuan3d.image.candidates import inside, judged, set_back
from backend.hunyuan3d.image.doubts import keep_largest
from backend.hunyuan3d.image.judgement import features
from backend.hunyuan3d.image.matting import cut_with_soft_edge
from benchmarks.support.composites import Composite
from benchmarks.support.cutting import composites
from benchmarks.support.images import mask_iou

# Which way each feature may count: more cover of the border is never better, more contrast never worse, 0 is open.
_SIGNS = (-1, -1, 0, -1, 1, -1, 1, -1, -1, -1, -1, 1, -1, 1, 1, 1)
_STIFFNESS = 0.003
_BAD, _GOOD = 0.80, 0.96


@dataclass(frozen=True, eq=False)
class Tried:
    """One candidate for one picture: its features and the IoU of what it leads to."""

    features: npt.NDArray[np.float64]
    iou: float


def tried(cache: Path, each: int) -> Iterator[Tried]:
    """Try every candidate on `each` pictures of every kind that tuning may look at."""
    for composite in composites("tuning", cache, each):
        yield from _tried_on(composite)


def fit(found: list[Tried]) -> tuple[float, npt.NDArray[np.float64]]:
    """Return bias and weights of a logistic regression: 0 is an IoU of 0.80 and less, 1 of 0.96 and more."""
    design = np.stack([np.append(1.0, each.features) for each in found])
    wanted = np.clip((np.array([each.iou for each in found]) - _BAD) / (_GOOD - _BAD), 0, 1)

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        total = design @ weights
        likely = 1 / (1 + np.exp(-np.clip(total, -30, 30)))
        stiff = _STIFFNESS * np.append(0.0, weights[1:])
        value = (np.logaddexp(0, total) - wanted * total).mean() + 0.5 * float(weights[1:] @ stiff[1:])
        return float(value), design.T @ (likely - wanted) / len(wanted) + stiff

    bounds = [(None, None), *((0, None) if s > 0 else (None, 0) if s < 0 else (None, None) for s in _SIGNS)]
    best = minimize(loss, np.zeros(design.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B").x
    return float(best[0]), np.asarray(best[1:], dtype=np.float64)


def _tried_on(composite: Composite) -> Iterator[Tried]:
    small = working_size(composite.image)
    window, inner = inside(small)
    for each in judged(inner):
        whole = each.found if window is None else set_back(each.found, window, small)
        alpha, _ = cut_with_soft_edge(composite.image, small, whole)
        alpha = keep_largest(alpha) if composite.objects == "largest" else alpha
        yield Tried(features(each.signs), mask_iou(alpha, composite.mask))
