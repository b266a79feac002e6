"""How well the cutter does on objects that others photographed, and how well rembg does on both.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb STAMPS
    OMP_NUM_THREADS=1 python -m benchmarks.photographed_objects --stamps STAMPS --cache FOLDER

puts each photographed object before one of the surroundings that no tuning looks at, in turn, and prints and writes a
table to benchmarks/results/. Where rembg and a model of its are there (docs/operations.md), it is measured beside, on
these and on background_removal.py's held-out composites. FOLDER is the same as background_removal.py's.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from backend.errors import NoForeground
from backend.hunyuan3d.image.background import remove_background
from backend.hunyuan3d.image.rembg_cutter import installed_model
from benchmarks.support import cutting
from benchmarks.support.composites import KINDS, Composite, compose
from benchmarks.support.cutting import Cut, Measured
from benchmarks.support.stamps import photographed

RESULT = Path(__file__).parent / "results" / "photographed_objects.md"
# Each object meets another surroundings than its neighbours, which are often of its kind.
_STEP, _SEED = 7, 5000
_FEW = 6


@dataclass(frozen=True)
class Way:
    """A way to cut: its name in the table, and whether rembg may be asked."""

    name: str
    rembg: bool

    def __call__(self, composite: Composite) -> Cut:
        """Cut as the service does."""
        image = Image.fromarray(composite.image)
        try:
            found = remove_background(image, objects=composite.objects, cutter="installed" if self.rembg else None)
        except NoForeground:
            return Cut(None)
        if found.fallback:
            raise RuntimeError(found.fallback)
        return Cut(np.asarray(found.image)[..., 3], tuple(remark.code for remark in found.remarks), found.score)


def composites(unpacked: Path) -> Iterator[tuple[str, Composite]]:
    """Draw a composite of each photographed object; yield it with the object's group."""
    kinds = list(KINDS["held out"])
    for number, (group, cutout) in enumerate(photographed(unpacked)):
        yield group, compose(kinds[number * _STEP % len(kinds)], "held out", cutout, _SEED + number)


def table(title: str, ways: list[Way], pictures: Iterator[tuple[str, Composite]]) -> list[str]:
    """Measure every way on the same pictures; return the lines, with the larger groups where there are several."""
    found: dict[Way, list[Measured]] = {way: [] for way in ways}
    groups: list[str] = []
    for group, composite in pictures:
        groups.append(group)
        for way in ways:
            found[way].append(cutting.measure(way, composite))
    lines = [f"## {title}", "", *cutting.HEADER]
    for way in ways:
        lines.append(cutting.row(f"**{way.name}**", found[way]))
        for group in dict.fromkeys(groups) if len(set(groups)) > 1 else ():
            members = [each for each, its in zip(found[way], groups, strict=True) if its == group]
            if len(members) >= _FEW:
                lines.append(cutting.row(group, members))
    return [*lines, "", *(false_alarms(way, found[way]) for way in ways), *_best(found)]


def false_alarms(way: Way, found: list[Measured]) -> str:
    """Return what share of a way's good cut-outs it doubts."""
    doubted = ["CUTOUT_DOUBTFUL" in each.warnings for each in found if each.iou >= cutting.GOOD]
    return f"Of good cut-outs ({way.name}) {100 * np.mean(doubted):.1f} % carry CUTOUT_DOUBTFUL."


def _best(found: dict[Way, list[Measured]]) -> list[str]:
    if len(found) < 2:
        return [""]
    best = [max(each.iou for each in row) for row in zip(*found.values(), strict=True)]
    below = 100 * np.mean(np.array(best) < cutting.GOOD)
    return [f"The better of both each time, looking at the truth: {np.mean(best):.3f}, {below:.0f} % below 0.9.", ""]


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", type=Path, required=True, metavar="STAMPS")
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--each", type=int, default=6, metavar="N", help="composites of a kind (default: %(default)s)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    model = installed_model()
    ways = [Way("the service's own way", rembg=False)] + ([Way("rembg leads", rembg=True)] if model else [])
    head = f"{platform.machine()} CPU, one of {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}."
    if model is not None:
        head += f" rembg with {model}."
    held_out = (("", each) for each in cutting.composites("held out", options.cache, options.each))
    lines = [
        "# Objects that others photographed, and rembg",
        "",
        head,
        "",
        *table(
            "Photographed objects (Tux Paint's stamps) before held-out surroundings", ways, composites(options.stamps)
        ),
        *table("background_removal.py's held-out composites", ways, held_out),
    ]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
