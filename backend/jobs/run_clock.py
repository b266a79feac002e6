"""How long the runs of this process have lasted, whatever becomes of the clock meanwhile.

A row has times of the wall clock; when that is set while a job runs, their difference is no duration. This module does
not know what a run does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from backend.jobs.models import Job

_SLACK = timedelta(seconds=1)
"""Clocks are also set little by little, which is no jump."""

_MOST_RUNS = 4096


class RunClock:
    """Remembers when runs began, by seconds that only pass; any thread may use it."""

    def __init__(self, monotonic: Callable[[], float] | None) -> None:
        """monotonic : seconds since any moment; None where the wall clock is never set, as a test's."""
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._began: dict[tuple[str, int], float] = {}

    def begin(self, leased: Iterable[Job]) -> None:
        """Note that runs begin now; the oldest of very many are forgotten."""
        if self._monotonic is None:
            return
        with self._lock:
            self._began |= dict.fromkeys([(job.id, job.fence) for job in leased], self._monotonic())
            for key in list(self._began)[:-_MOST_RUNS]:
                del self._began[key]

    def started_at(self, job: Job, now: datetime) -> datetime | None:
        """Return when a job's run began, as the clock says now: what its row says unless the clock was set since."""
        with self._lock:
            began = self._began.get((job.id, job.fence))
        if began is None or self._monotonic is None or job.started_at is None:
            return job.started_at
        started = now - timedelta(seconds=self._monotonic() - began)
        return started if abs(started - job.started_at) > _SLACK else job.started_at

    def __len__(self) -> int:
        """Return how many runs are remembered."""
        return len(self._began)
