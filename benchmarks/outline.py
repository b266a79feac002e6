"""What following the picture's outline costs: the same pictures with outline=auto and off, turn and turn about.

    python -m benchmarks.outline

From the picture to the GLB and its preview, with the bundled checkpoint at resolution 128, in one warm process. Beside
wall time stands processor time, which other programs on the machine lengthen less.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.limits import OUTLINE_MODES, OutlineMode
from backend.rendering.outputs import OutputOptions, make_outputs

REPOSITORY = Path(__file__).parents[1]
RESULT = REPOSITORY / "benchmarks" / "results" / "outline.md"
_ASKED = 1.05
_RESOLUTION, _FACES = 128, 100_000


@dataclass(frozen=True)
class Made:
    """One mesh: wall and processor seconds until its files were there, and wall seconds of the field's search."""

    wall: float
    processor: float
    decode: float


def make(pipeline: Hunyuan3DShapePipeline, image: Path, mode: OutlineMode) -> Made:
    """Make the files of one picture."""
    wall, processor = time.perf_counter(), time.process_time()
    (result,) = pipeline(image, seeds=7, octree_resolution=_RESOLUTION, target_faces=_FACES, outline=mode)
    make_outputs(result, OutputOptions(("glb",)))
    return Made(time.perf_counter() - wall, time.process_time() - processor, result.metadata.seconds.decode)


def report(made: Mapping[OutlineMode, Sequence[Made]], images: int) -> str:
    """Return the table, as markdown."""
    rows = []
    for name, field in (
        ("processor seconds", "processor"),
        ("wall seconds", "wall"),
        ("of which the search", "decode"),
    ):
        auto, off = (statistics.fmean(getattr(each, field) for each in made[mode]) for mode in OUTLINE_MODES)
        rows.append(f"| {name} | {off:.2f} | {auto:.2f} | {auto / off:.3f} |")
    machine = f"{platform.machine()} CPU, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}"
    lines = [
        "# What following the outline costs",
        "",
        f"{images} samples, each from the picture to its GLB with a preview, {len(made['auto']) // images} times with "
        f"`outline=auto` and `off` in turns, in one warm process at resolution {_RESOLUTION}; means. Asked: at most "
        f"{_ASKED} times as long. {machine}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}. "
        "Made by `python -m benchmarks.outline`.",
        "",
        "| | off | auto | ratio |",
        "|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=int, default=10, help="at most so many of the samples")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    pipeline = Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")
    images = sorted((REPOSITORY / "samples").glob("*.png"))[: options.limit]
    for mode in OUTLINE_MODES:
        make(pipeline, images[0], mode)
    made: dict[OutlineMode, list[Made]] = {mode: [] for mode in OUTLINE_MODES}
    for turn in range(options.repeats):
        for image in images:
            for mode in OUTLINE_MODES if turn % 2 else OUTLINE_MODES[::-1]:
                made[mode].append(make(pipeline, image, mode))
    text = report(made, len(images))
    print(text)
    options.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
