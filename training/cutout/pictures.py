"""The files of pictures that composites are made of: objects, surfaces and writing, in shards that processes share.

`python -m training.cutout.pictures --out DIR` draws until there are as many as asked; run again, or by several
processes at a time (`--worker 2 --of 8`), it goes on with what is missing. Knows nothing of how pictures are put
together.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from training.cutout.figures import draw_figure
from training.cutout.objects import SIDE, fitted, shape_pictures
from training.cutout.surfaces import draw_surface

OBJECT_SIDE, SURFACE_SIDE, WRITING_SIDE = SIDE, 384, 128
Kind = Literal["objects", "surfaces", "writing"]
Pixels = NDArray[np.uint8]

_KINDS: dict[str, Kind] = {"shapes": "objects", "figures": "objects", "surfaces": "surfaces", "writing": "writing"}
_WORDS = ("NEW", "-50%", "SALE", "No. 4", "EUR 9.99", "size M", "sample", "(c) studio", "top", "100 ml", "Item 2210")


@dataclass(frozen=True)
class Wanted:
    """How many pictures there should be: of shapes (each in three styles), flat figures, surfaces, and of writing.

    first_seed : training's own begin at 0; what is held out begins at 1,000,000,000.
    """

    shapes: int = 4000
    figures: int = 6000
    surfaces: int = 6000
    writing: int = 400
    first_seed: int = 0


def shards(path: Path) -> Kind | None:
    """Return what a shard's file holds, None where it is no shard."""
    return _KINDS.get(path.stem.partition("-")[0])


def draw_shards(folder: Path, wanted: Wanted, worker: int = 0, of: int = 1) -> Iterator[Path]:
    """Draw this worker's shards that are missing, all kinds by turns; give each path when it is written."""
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for path, draw, seeds in _planned(folder, wanted, worker, of):
        if not path.exists():
            pictures = np.concatenate([draw(seed) for seed in seeds])
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, pictures)
            partial.replace(path)
        yield path


def start_workers(folder: Path, wanted: Wanted, count: int) -> list[subprocess.Popen[bytes]]:
    """Start processes that draw what is wanted and end by themselves, or when whoever started them is gone."""
    command = [sys.executable, "-m", "training.cutout.pictures", "--out", str(folder), "--of", str(count)]
    command += [f"--shapes={wanted.shapes}", f"--figures={wanted.figures}", f"--surfaces={wanted.surfaces}"]
    command += [f"--writing={wanted.writing}", f"--first-seed={wanted.first_seed}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return [
        subprocess.Popen([*command, "--worker", str(worker), "--parent", str(os.getpid())], env=environment)  # noqa: S603
        for worker in range(count)
    ]


_Job = tuple[Path, Callable[[int], Pixels], range]


def _planned(folder: Path, wanted: Wanted, worker: int, of: int) -> Iterator[_Job]:
    lists = [
        _jobs(folder, "writing", _writing, wanted.writing, 100, wanted.first_seed),
        _jobs(folder, "figures", _figure, wanted.figures, 60, wanted.first_seed),
        _jobs(folder, "surfaces", _surface, wanted.surfaces, 40, wanted.first_seed),
        _jobs(folder, "shapes", shape_pictures, wanted.shapes, 20, wanted.first_seed),
    ]
    mine = [jobs[worker::of] for jobs in lists]
    for turn in zip_longest(*mine):
        yield from (job for job in turn if job is not None)


def _jobs(folder: Path, name: str, draw: Callable[[int], Pixels], count: int, each: int, first: int) -> list[_Job]:
    starts = range(first, first + count, each)
    return [
        (folder / f"{name}-{start:010d}.npy", draw, range(start, min(start + each, first + count))) for start in starts
    ]


def _figure(seed: int) -> Pixels:
    return fitted(draw_figure(np.random.default_rng([seed, 77])), OBJECT_SIDE)[None]


def _surface(seed: int) -> Pixels:
    surface = draw_surface(np.random.default_rng([seed, 78]), SURFACE_SIDE)
    return np.asarray(np.rint(surface.clip(0, 255)), np.uint8)[None]


def _writing(seed: int) -> Pixels:
    """Draw one to three lines of words and numbers, or a badge, (1, S, 2 S, 1)."""
    rng = np.random.default_rng([seed, 79])
    ink = np.zeros((WRITING_SIDE, 2 * WRITING_SIDE), np.uint8)
    if rng.random() < 0.25:
        radius = int(rng.uniform(0.2, 0.48) * WRITING_SIDE)
        cv2.circle(ink, (WRITING_SIDE, WRITING_SIDE // 2), radius, 255, -1, cv2.LINE_AA)
        if rng.random() < 0.7:
            cv2.putText(ink, "-30%", (WRITING_SIDE - radius // 2, WRITING_SIDE // 2), 0, radius / 60, 0, 2, cv2.LINE_AA)
        return ink[None, ..., None]
    lines = int(rng.integers(1, 4))
    for line in range(lines):
        words = " ".join(str(rng.choice(_WORDS)) for _ in range(int(rng.integers(1, 4))))
        font = (0, 2, 3, 4)[int(rng.integers(4))]
        scale, thickness = rng.uniform(0.7, 2.0) / lines, int(rng.integers(1, 4))
        at = (int(rng.uniform(2, 60)), int((line + 0.75) * WRITING_SIDE / lines))
        cv2.putText(ink, words, at, font, scale, 255, thickness, cv2.LINE_AA)
    return ink[None, ..., None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--worker", type=int, default=0, help="which of the processes this one is, from 0")
    parser.add_argument("--of", type=int, default=1, help="how many processes share the work")
    parser.add_argument("--parent", type=int, help="process without which this one ends")
    for name in ("shapes", "figures", "surfaces", "writing", "first_seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Wanted, name))
    chosen = parser.parse_args(arguments)
    wanted = Wanted(chosen.shapes, chosen.figures, chosen.surfaces, chosen.writing, chosen.first_seed)
    for _ in draw_shards(chosen.out, wanted, chosen.worker, chosen.of):
        if chosen.parent is not None and os.getppid() != chosen.parent:
            return


if __name__ == "__main__":
    main()
