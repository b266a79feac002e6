"""How well several things before a plain backdrop are cut out.

    OMP_NUM_THREADS=1 python -m benchmarks.several_things

prints a table and writes it to benchmarks/results/several_things.md. Discs, boxes and triangles, 4 to 21 of them in
rows, stand before a backdrop of one colour with a little gradient and noise; in half of the pictures the border may cut
some. All of them are wanted. "Best score" is what it is without the floods that go before a better score because all
that they leave stands plainly before the backdrop.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.errors import NoForeground
from backend.hunyuan3d.image import candidates
from backend.hunyuan3d.image.background import remove_background
from backend.hunyuan3d.image.candidates import Candidate
from backend.hunyuan3d.image.doubts import HOPELESS
from benchmarks.support.images import mask_iou

RESULTS = Path(__file__).parent / "results" / "several_things.md"
_LEAST_DIFFERENCE = 60
_GOOD = 0.9
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cut:
    """What came of a picture: the IoU with what was drawn, None where it was refused, and whether it was doubted."""

    iou: float | None
    doubted: bool = False


def scene(seed: int) -> tuple[Picture, Picture]:
    """Draw things before a plain backdrop: (h, w, 3), and where they are, (h, w) of 0 or 255."""
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
    return image, mask


def _draw(image: Picture, kind: int, x: float, y: float, size: float, color: tuple[int, ...]) -> None:
    if kind == 0:
        cv2.circle(image, (int(x), int(y)), int(size), color, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.rectangle(image, (int(x - size), int(y - 0.7 * size)), (int(x + size), int(y + 0.7 * size)), color, -1)
    else:
        corners = np.array([(x, y - size), (x + size, y + size), (x - size, y + size)]).astype(np.int32)
        cv2.fillPoly(image, [corners], color, cv2.LINE_AA)


def cut(image: Picture, mask: Picture) -> Cut:
    """Cut a picture's things out and compare."""
    try:
        found = remove_background(Image.fromarray(image), cutter=None)
    except NoForeground:
        return Cut(None)
    doubted = "CUTOUT_DOUBTFUL" in {remark.code for remark in found.remarks}
    return Cut(mask_iou(np.asarray(found.image)[..., 3], (mask / 255).astype(np.float32)), doubted)


def row(name: str, cuts: list[Cut]) -> str:
    """Return a line of the table."""
    ious = np.array([each.iou or 0.0 for each in cuts])
    refused = sum(each.iou is None for each in cuts)
    silent = sum(each.iou is not None and each.iou < _GOOD and not each.doubted for each in cuts)
    return f"| {name} | {ious.mean():.3f} | {(ious >= _GOOD).sum()} | {refused} | {silent} |"


def _goes_before_the_hopeless(best: Candidate, plain: Candidate) -> bool:  # noqa: ARG001
    return best.score < HOPELESS


def by_best_score(work: Callable[[], list[Cut]]) -> list[Cut]:
    """Work with the candidate of the best score, a hopeless one excepted."""
    kept = candidates._goes_before
    candidates._goes_before = _goes_before_the_hopeless
    try:
        return work()
    finally:
        candidates._goes_before = kept


def main() -> None:
    """Cut both ways and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=240)
    pictures = [scene(seed) for seed in range(parser.parse_args().pictures)]

    def work() -> list[Cut]:
        return [cut(*picture) for picture in pictures]

    lines = [
        "# Several things before a plain backdrop",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {len(pictures)} pictures; a refusal counts as 0.",
        "",
        f"| | mean IoU | at least {_GOOD} | refused | below {_GOOD} and not doubted |",
        "|---|---|---|---|---|",
        row("best score", by_best_score(work)),
        row("the service's own way", work()),
    ]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
