"""How far a job is and how long it still takes, from how long its stages took before.

This module does not know who runs a stage or where the numbers are shown.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backend.jobs.worker_registry import WorkerState, WorkerStatus

STAGES = ("preprocess", "encode", "sample", "decode", "mesh", "finish", "export")
"""The stages of a run in their order; the names are those of jobs.metadata.StageSecondsOut."""

# Shares of the time that hold until something was measured.
_UNMEASURED = (1.0, 1.0, 10.0, 5.0, 3.0, 3.0, 0.5)
_NEWEST = 0.3
_KINDS_KEPT = 64


@dataclass(frozen=True)
class StagePlan:
    """How long each of STAGES is expected to take, seconds; measured : whether that is more than proportions."""

    seconds: tuple[float, ...]
    measured: bool

    def __post_init__(self) -> None:
        if len(self.seconds) != len(STAGES) or min(self.seconds) < 0 or sum(self.seconds) <= 0:
            raise ValueError("a plan has one time of at least 0 for each stage, and some above 0")

    def progress(self, stage: str, done: int, total: int) -> int:
        """Return per cent of the run, 0–99, when `done` of `total` of a stage are done; 100 is for finished jobs."""
        return min(99, int(100 * self._spent(stage, done, total) / sum(self.seconds)))

    def remaining(self, stage: str, done: int, total: int) -> float | None:
        """Return the seconds until the run ends; None while nothing was measured."""
        return max(0.0, sum(self.seconds) - self._spent(stage, done, total)) if self.measured else None

    def _spent(self, stage: str, done: int, total: int) -> float:
        index = STAGES.index(stage)
        share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        return sum(self.seconds[:index]) + share * self.seconds[index]


class StageTimes:
    """Moving averages of what stages and jobs take on one worker; any thread may use it.

    Kept for each kind of job (its batch key) by itself, because steps and resolution decide how long one takes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._seconds_per_job: float | None = None

    def note(self, kind: str, seconds: Mapping[str, float]) -> None:
        """Take in the seconds of one finished run, by stage; other names are ignored."""
        with self._lock:
            averages = self._kinds.setdefault(kind, {})
            self._kinds.move_to_end(kind)
            for stage in STAGES:
                if stage in seconds:
                    averages[stage] = _moved(averages.get(stage), seconds[stage])
            while len(self._kinds) > _KINDS_KEPT:
                self._kinds.popitem(last=False)

    def note_batch(self, seconds: float, count: int) -> None:
        """Take in that `count` (≥ 1) jobs ran together in this time."""
        with self._lock:
            self._seconds_per_job = _moved(self._seconds_per_job, seconds / count)

    @property
    def seconds_per_job(self) -> float | None:
        """How long the worker is busy for one job, shared with its batch mates; None before the first."""
        return self._seconds_per_job

    def plan(self, kind: str) -> StagePlan:
        """Return what a run of this kind will take: as measured, else as the latest other kind, else a guess."""
        with self._lock:
            known = self._kinds.get(kind) or next(reversed(self._kinds.values()), None)
            seconds = tuple(known.get(stage, 0.0) for stage in STAGES) if known else ()
        return StagePlan(seconds, measured=True) if sum(seconds) > 0 else StagePlan(_UNMEASURED, measured=False)


def queued_eta(position: int, workers: Iterable[WorkerState]) -> float | None:
    """Return the seconds until the job at this position of the queue (from 1) has finished; None while unknown.

    workers : those that are alive; the jobs in front are shared out among the ready ones by their speed.
    """
    speeds = [
        1 / worker.seconds_per_job
        for worker in workers
        if worker.status is WorkerStatus.READY and worker.seconds_per_job
    ]
    return position / sum(speeds) if speeds else None


def batch_eta(etas: Sequence[float | None]) -> float | None:
    """Return the seconds until the last of several unfinished jobs has finished; None when one of them is unknown."""
    known = [eta for eta in etas if eta is not None]
    return max(known) if known and len(known) == len(etas) else None


def _moved(average: float | None, value: float) -> float:
    return value if average is None else average + _NEWEST * (value - average)
