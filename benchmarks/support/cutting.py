"""How well composites are cut: each picture's IoU, warnings and seconds, and what that makes of a kind.

This module does not know how a cutter works, or where the table goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.support.composites import KINDS, Composite, compose
from benchmarks.support.cutouts import Cutout, cutouts
from benchmarks.support.images import mask_iou

Pixels = npt.NDArray[np.uint8]
Part = Literal["tuning", "held out"]
GOOD = 0.9
_SEEDS: dict[Part, int] = {"tuning": 1, "held out": 7001}


@dataclass(frozen=True)
class Cut:
    """What a cutter gave: alpha (H, W), None where it refused; its warnings' codes; its score, 0..1, if it has one."""

    alpha: Pixels | None
    warnings: tuple[str, ...] = ()
    score: float | None = None


Cutter = Callable[[Composite], Cut]


@dataclass(frozen=True)
class Measured:
    """One picture's outcome; iou is 0 where it was refused."""

    kind: str
    object: str
    iou: float
    refused: bool
    warnings: tuple[str, ...]
    score: float | None
    seconds: float

    @property
    def silent(self) -> bool:
        """Whether it is bad and nobody is told."""
        return self.iou < GOOD and not self.refused and not self.warnings


def composites(part: Part, cache: Path, each: int) -> Iterator[Composite]:
    """Draw `each` pictures of every kind of a part, with that part's objects in turn and its own seeds."""
    yield from drawn(part, KINDS[part], cutouts(part, cache), each)


def drawn(part: Part, kinds: Iterable[str], objects: Sequence[Cutout], each: int) -> Iterator[Composite]:
    """Draw `each` pictures of some kinds of a part."""
    for number, kind in enumerate(kinds):
        for k in range(each):
            yield compose(kind, part, objects[(number * 5 + k) % len(objects)], _SEEDS[part] + 100 * number + k)


def measure(cutter: Cutter, composite: Composite) -> Measured:
    """Cut one picture; seconds are of this process's processors, so that other work on the machine does not count."""
    began = time.process_time()
    cut = cutter(composite)
    seconds = time.process_time() - began
    iou = 0.0 if cut.alpha is None else mask_iou(cut.alpha, composite.mask)
    return Measured(composite.kind, composite.object, iou, cut.alpha is None, cut.warnings, cut.score, seconds)


def false_alarms(found: Sequence[Measured]) -> float:
    """Return the share of good cut-outs, 0..1, that carry CUTOUT_DOUBTFUL; 0 without good ones."""
    doubted = ["CUTOUT_DOUBTFUL" in each.warnings for each in found if each.iou >= GOOD]
    return float(np.mean(doubted)) if doubted else 0.0


def row(name: str, found: Sequence[Measured]) -> str:
    """Return a kind's row: mean IoU, shares below GOOD, refused, warned and silently bad, mean seconds."""
    kept = [each.iou for each in found if not each.refused]
    mean = f"{np.mean(kept):.3f}" if kept else "–"
    shares = [
        np.mean([each.iou < GOOD for each in found]),
        np.mean([each.refused for each in found]),
        np.mean([bool(each.warnings) for each in found]),
        np.mean([each.silent for each in found]),
    ]
    cells = [mean, *(f"{100 * share:.0f} %" for share in shares), f"{np.mean([each.seconds for each in found]):.2f} s"]
    return f"| {name} | {len(found)} | " + " | ".join(cells) + " |"


HEADER = [
    "| kind | pictures | mean IoU of those not refused | below 0.9 or refused | refused | warned | bad, not a word |"
    " seconds |",
    "|---|---|---|---|---|---|---|---|",
]


def table(found: Sequence[Measured]) -> list[str]:
    """Return the lines of a table by kind, and its last row for all."""
    kinds = dict.fromkeys(each.kind for each in found)
    rows = [row(kind, [each for each in found if each.kind == kind]) for kind in kinds]
    return [*HEADER, *rows, row("**all**", found)]
