"""Processes that draw shapes beside a training run.

Knows shards and processes; nothing of who reads them. Processes are single-threaded and end with the run.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from training.make_data import THREADS, draw_shard, single_thread


class Drawing:
    """Shards of consecutive seeds being written to a folder, in order, by `workers` processes."""

    def __init__(self, workers: int) -> None:
        for name in THREADS:
            os.environ.setdefault(name, "1")
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=single_thread)
        self._jobs: list[Future[int]] = []

    def ask(self, folder: Path, first_seed: int, count: int, shard: int) -> None:
        """Ask for `count` shapes; those whose shard is there already cost nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, count, shard):
            size = min(shard, count - start)
            self._jobs.append(self._pool.submit(draw_shard, folder, first_seed + start, size, False))

    @property
    def over(self) -> bool:
        """Return whether all that was asked for is drawn, or failed."""
        return all(job.done() for job in self._jobs)

    def failures(self) -> list[str]:
        """Return what went wrong with shards that are not there."""
        errors = [job.exception() for job in self._jobs if job.done() and not job.cancelled()]
        return [repr(error) for error in errors if error is not None]

    def stop(self) -> None:
        """End the drawing; shards that are not finished vanish."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
