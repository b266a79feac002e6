"""Command line that fills a directory with shards of procedural shapes.

`python -m training.make_data --out DIR --count N --first-seed S --workers 2`; run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def single_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def draw_shard(directory: Path, first_seed: int, count: int, occupancy: bool) -> int:
    from training.dataset import write_shard

    write_shard(directory, first_seed, count, occupancy)
    return count


def make_data(directory: Path, count: int, first_seed: int, workers: int, occupancy: bool, shard: int = 1000) -> None:
    """Write the shards of `count` seeds from `first_seed`, in order, by `workers` single-threaded processes.

    Raises ValueError if the range mixes training and held-out seeds.
    """
    from training.shapes.generator import is_held_out

    if is_held_out(first_seed) != is_held_out(first_seed + count - 1):
        raise ValueError("a data set is either for training or held out; the seed range holds both")
    directory.mkdir(parents=True, exist_ok=True)
    jobs = [(first_seed + k, min(shard, count - k)) for k in range(0, count, shard)]
    for name in THREADS:
        os.environ.setdefault(name, "1")
    with (
        tqdm(total=count, unit="shape", smoothing=0.1) as bar,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=single_thread) as pool,
    ):
        for done in as_completed([pool.submit(draw_shard, directory, seed, size, occupancy) for seed, size in jobs]):
            bar.update(done.result())


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and make the data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard", type=int, default=1000, help="shapes in one file")
    parser.add_argument("--occupancy", action="store_true", help="also store the 64³ occupancy (for evaluation)")
    chosen = parser.parse_args(arguments)
    make_data(chosen.out, chosen.count, chosen.first_seed, chosen.workers, chosen.occupancy, chosen.shard)


if __name__ == "__main__":
    main()
