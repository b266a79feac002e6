"""How well several things before a plain backdrop are cut out.

    OMP_NUM_THREADS=1 python -m benchmarks.several_things

prints a table and writes it to benchmarks/results/several_things.md. Discs, boxes and triangles, 4 to 21 of them in
rows, stand before a backdrop of one colour with a little gradient and noise; in half of the pictures the border may cut
some. All of them are wanted. "Best score" is what it is without the floods that go before a better score because all
that they leave stands plainly before the backdrop.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np

from backend.hunyuan3d.image import candidates
from backend.hunyuan3d.image.candidates import Candidate
from backend.hunyuan3d.image.doubts import HOPELESS
from benchmarks.background_removal import judged
from benchmarks.support.composites import Composite
from benchmarks.support.cutting import GOOD, Measured, Pixels, measure

RESULTS = Path(__file__).parent / "results" / "several_things.md"
_LEAST_DIFFERENCE = 60


def scene(seed: int) -> Composite:
    """Draw things before a plain backdrop."""
    dice = np.random.default_rng(seed)
    h, w = int(dice.integers(320, 560)), int(dice.integers(320, 700))
    colored = dice.random() < 0.6
    backdrop = dice.integers(0, 256, 3) if colored else np.repeat(dice.integers(200, 256), 3)
    gradient = np.linspace(-1, 1, h)[:, None, None] * dice.uniform(0, 12)
    image = np.clip(backdrop + gradient + dice.normal(0, 1.5, (h, w, 3)), 0, 255).astype(np.uint8)
    mask = np.zeros((h, w), np.uint8)
    count = int(dice.integers(4, 22))
    columns = int(np.ceil(np.sqrt(count * w / h)))
    rows = int(np.ceil(count / columns))
    shift = dice.uniform(-0.35, 0.35, 2) if dice.random() < 0.5 else np.zeros(2)
    for k in range(count):
        color = dice.integers(0, 256, 3)
        while np.abs(color - backdrop).max() < _LEAST_DIFFERENCE:
            color = dice.integers(0, 256, 3)
        x, y = (k % columns + 0.5 + shift[0]) * w / columns, (k // columns + 0.5 + shift[1]) * h / rows
        size, kind = min(h, w) / (2.6 * np.sqrt(count)) * dice.uniform(0.6, 1), int(dice.integers(0, 3))
        _draw(image, kind, x, y, size, tuple(int(value) for value in color))
        _draw(mask, kind, x, y, size, (255,))
    return Composite("plain backdrop", f"{count} things", image, (mask / 255).astype(np.float32))


def _draw(image: Pixels, kind: int, x: float, y: float, size: float, color: tuple[int, ...]) -> None:
    if kind == 0:
        cv2.circle(image, (int(x), int(y)), int(size), color, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.rectangle(image, (int(x - size), int(y - 0.7 * size)), (int(x + size), int(y + 0.7 * size)), color, -1)
    else:
        corners = np.array([(x, y - size), (x + size, y + size), (x - size, y + size)]).astype(np.int32)
        cv2.fillPoly(image, [corners], color, cv2.LINE_AA)


def row(name: str, found: Sequence[Measured]) -> str:
    """Return a line of the table. That there are several things is no warning that some are missing."""
    good = sum(each.iou >= GOOD for each in found)
    refused = sum(each.refused for each in found)
    doubted = sum(each.iou < GOOD and "CUTOUT_DOUBTFUL" in each.warnings for each in found)
    mean, silent = np.mean([each.iou for each in found]), len(found) - good - refused - doubted
    return f"| {name} | {mean:.3f} | {good} | {refused} | {silent} |"


def _only_before_the_hopeless(best: Candidate, plain: Candidate) -> bool:  # noqa: ARG001
    return best.score < HOPELESS


def main() -> None:
    """Cut both ways and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=240)
    scenes = [scene(seed) for seed in range(parser.parse_args().pictures)]
    with patch.object(candidates, "_goes_before", _only_before_the_hopeless):
        by_best_score = [measure(judged, each) for each in scenes]
    lines = [
        "# Several things before a plain backdrop",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {len(scenes)} pictures; a refusal counts as 0.",
        "",
        f"| | mean IoU | at least {GOOD} | refused | below {GOOD} and not doubted |",
        "|---|---|---|---|---|",
        row("best score", by_best_score),
        row("the service's own way", [measure(judged, each) for each in scenes]),
    ]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
