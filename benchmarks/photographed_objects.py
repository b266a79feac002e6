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
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from backend.hunyuan3d.image.rembg_cutter import installed_model
from benchmarks.background_removal import judged
from benchmarks.support import cutting
from benchmarks.support.composites import KINDS, Composite, compose
from benchmarks.support.cutting import Cutter, Measured
from benchmarks.support.stamps import photographed

RESULT = Path(__file__).parent / "results" / "photographed_objects.md"
# Each object meets another surroundings than its neighbours, which are often of its kind.
_STEP, _SEED = 7, 5000
_FEW = 6


def composites(unpacked: Path) -> Iterator[tuple[str, Composite]]:
    """Draw a composite of each photographed object; yield it with the object's group."""
    kinds = list(KINDS["held out"])
    for number, (group, cutout) in enumerate(photographed(unpacked)):
        yield group, compose(kinds[number * _STEP % len(kinds)], "held out", cutout, _SEED + number)


def table(title: str, ways: dict[str, Cutter], pictures: Iterator[tuple[str, Composite]]) -> list[str]:
    """Measure every way on the same pictures; return the lines, with the larger groups where there are several."""
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    groups: list[str] = []
    for group, composite in pictures:
        groups.append(group)
        for name, cut in ways.items():
            found[name].append(cutting.measure(cut, composite))
    lines = [f"## {title}", "", *cutting.HEADER]
    for name, measured in found.items():
        lines.append(cutting.row(f"**{name}**", measured))
        for group in dict.fromkeys(groups) if len(set(groups)) > 1 else ():
            members = [each for each, its in zip(measured, groups, strict=True) if its == group]
            if len(members) >= _FEW:
                lines.append(cutting.row(group, members))
    lines.append("")
    for name, measured in found.items():
        doubted = 100 * cutting.false_alarms(measured)
        lines.append(f"Of good cut-outs ({name}) {doubted:.1f} % carry CUTOUT_DOUBTFUL.")
    return [*lines, *_best(found)]


def _best(found: dict[str, list[Measured]]) -> list[str]:
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
    ways: dict[str, Cutter] = {"the service's own way": judged}
    head = f"{platform.machine()} CPU, one of {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}."
    if model is not None:
        ways["rembg leads"] = partial(judged, cutter="installed")
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
