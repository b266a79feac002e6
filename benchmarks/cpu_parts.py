"""Seconds that the demo checkpoint takes on a CPU: alone on the machine, and beside programs that keep each core busy.

    python -m benchmarks.cpu_parts

Each way of using several cores runs in processes of its own, in turns: torch's threads for each call, which turn while
they wait for one another (OMP_WAIT_POLICY=active) or sleep, and both again with decoding in parts, a thread for each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
RESULT = REPOSITORY / "benchmarks" / "results" / "cpu_parts.md"
_RESOLUTION, _SEED = 128, 7

_RUN = """
import sys, time
import torch
import backend.hunyuan3d.networks.field_decoder as field_decoder
from backend.hunyuan3d import Hunyuan3DShapePipeline
if sys.argv[1] == "calls":
    field_decoder.side_by_side = lambda function, parts: [function(part) for part in parts]
pipeline = Hunyuan3DShapePipeline.from_pretrained("demo")
for _ in range(2):
    begun = time.perf_counter()
    (result,) = pipeline([sys.argv[2]], seeds=[int(sys.argv[3])], octree_resolution=int(sys.argv[4]))
    total = time.perf_counter() - begun
seconds = result.metadata.seconds
print(seconds.sample, seconds.decode, total)
"""


@dataclass(frozen=True)
class Way:
    """How the cores are used. decoding : calls (each over all cores) or parts; waiting : OMP_WAIT_POLICY."""

    name: str
    decoding: str
    waiting: str


WAYS = (
    Way("each call over all cores, turning while it waits", "calls", "active"),
    Way("each call over all cores, asleep while it waits", "calls", "passive"),
    Way("decoding in parts, turning", "parts", "active"),
    Way("decoding in parts, asleep (what programs do)", "parts", "passive"),
)


def seconds_of(way: Way, image: Path) -> list[float]:
    """Make one mesh, warm, in a process of its own; return its seconds: sample, decode, total."""
    command = [sys.executable, "-c", _RUN, way.decoding, str(image), str(_SEED), str(_RESOLUTION)]
    environment = {**os.environ, "OMP_WAIT_POLICY": way.waiting}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=REPOSITORY)  # noqa: S603
    return [float(figure) for figure in printed.stdout.split()]


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile."""
    running = [multiprocessing.Process(target=_turn, daemon=True) for _ in range(processes)]
    for process in running:
        process.start()
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.join()


def _turn() -> None:
    while True:
        pass


def report(alone: Sequence[Sequence[float]], beside: Sequence[Sequence[float]], cores: int, runs: int) -> str:
    """Return the table, as markdown."""
    load = os.getloadavg()[2]
    lines = [
        "# Several cores of a CPU",
        "",
        f"One mesh of `mug.png`, demo checkpoint, octree resolution {_RESOLUTION}, warm; medians of {runs} processes, "
        f"all ways in turns. {platform.machine()} CPU, {cores} cores, load of the last quarter of an hour {load:.1f}, "
        f"{datetime.now(UTC):%Y-%m-%d}. Made by `python -m benchmarks.cpu_parts`.",
        "",
        f"| seconds | alone: sample | decode | total | beside {cores} busy programs: sample | decode | total | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way, quiet, loaded in zip(WAYS, alone, beside, strict=True):
        figures = " | ".join(f"{value:.2f}" for value in (*quiet, *loaded))
        lines.append(f"| {way.name} | {figures} | {loaded[2] / beside[-1][2]:.2f} |")
    lines += ["", "The ratio is of the last column to the last row's."]
    return "\n".join(lines) + "\n"


def measured(image: Path, runs: int) -> list[list[float]]:
    """Return the median seconds of each way."""
    found: list[list[list[float]]] = [[] for _ in WAYS]
    for _ in range(runs):
        for own, way in zip(found, WAYS, strict=True):
            own.append(seconds_of(way, image))
    return [[statistics.median(column) for column in zip(*own, strict=True)] for own in found]


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    image, cores = REPOSITORY / "samples" / "mug.png", os.cpu_count() or 1
    alone = measured(image, arguments.runs)
    with busy(cores):
        beside = measured(image, arguments.runs)
    table = report(alone, beside, cores, arguments.runs)
    arguments.out.write_text(table, encoding="utf-8")
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
