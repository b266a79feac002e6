"""When jobs will be finished, and how many are in front of them: for any number of jobs at once.

What was said of a job before is kept in mind: the time left falls, and rises by little unless something new came in
front. This module does not know how long stages take, or what a request means.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from backend.jobs.changes import Changes
from backend.jobs.forecast import Forecast, WorkloadOf, foresee, run_left
from backend.jobs.health import Health
from backend.jobs.models import Clock, Job, JobFile, Status
from backend.jobs.store import JobStore

_FRESH_SECONDS = 1.0
_MOMENT_SECONDS = 0.05
_PLAYED = 250
"""Jobs of the queue that are played forward; those behind them are reckoned by their position."""
_REMEMBERED = 10_000
_MOST_RISE = 1.1


@dataclass(frozen=True)
class Outlook:
    """What is known of a job beyond its row: its position in the queue from 1, seconds until it is done, its files."""

    queue_position: int | None = None
    eta_seconds: float | None = None
    files: tuple[JobFile, ...] = ()


@dataclass(frozen=True)
class _Taken:
    """A forecast, and when it was made: seconds of the monotonic clock, and how many writes there had been."""

    forecast: Forecast
    at: float
    changes: int


@dataclass(frozen=True)
class _Promise:
    """The least that was said of a job, and of what: which run, knowing of which newest job, by how many workers."""

    lowest: float
    run: int
    newest: str
    ready: int

    def is_kept_by(self, other: _Promise, newest_before: str) -> bool:
        """Return whether nothing has come since then that may put the job off.

        newest_before : the newest job that runs before it or beside it now
        """
        return other.run == self.run and newest_before <= self.newest and other.ready >= self.ready


class Outlooks:
    """Looks ahead for the jobs of one service; any thread may ask."""

    def __init__(
        self,
        store: JobStore,
        read_health: Callable[[], Health],
        workload_of: WorkloadOf,
        changes: Changes,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet. changes : hears of the store's writes, after each of which the queue is read anew."""
        self._store = store
        self._read_health = read_health
        self._workload_of = workload_of
        self._changes = changes
        self._clock = clock
        self._monotonic = monotonic
        self._reading = threading.Lock()
        self._taken: _Taken | None = None
        self._promises = _Promises()

    def of(self, jobs: Sequence[Job]) -> Mapping[str, Outlook]:
        """Return each job's outlook by its id: one reading of the queue at most, one of the files.

        Raises StoreUnavailable.
        """
        unfinished = [job for job in jobs if not job.status.finished]
        files = self._store.files.of_all(jobs)
        found = {job.id: Outlook(files=files[job.id]) for job in jobs}
        if not unfinished:
            return found
        queued = [job.id for job in unfinished if job.status is Status.QUEUED]
        taken = self._current(queued)
        past = [job_id for job_id in queued if job_id not in taken.forecast.positions]
        positions = {**taken.forecast.positions, **(self._store.queue_positions(past) if past else {})}
        ready, since = len(self._read_health().ready), self._monotonic() - taken.at
        for job in unfinished:
            position = positions.get(job.id) if job.status is Status.QUEUED else None
            left = self._left(job, taken.forecast, position, since)
            found[job.id] = Outlook(position, self._promises.say(job, taken.forecast, left, ready))
        return found

    def _left(self, job: Job, forecast: Forecast, position: int | None, since: float) -> float | None:
        """Return the seconds left; since : seconds since the forecast was made."""
        if job.status is Status.PROCESSING and job.eta_seconds is not None:
            return run_left(job, self._clock())
        left = forecast.remaining.get(job.id)
        if left is None and position is not None:
            left = forecast.beyond(position)
        return None if left is None else max(0.0, left - since)

    def _current(self, queued: Sequence[str]) -> _Taken:
        """Return a forecast that knows of everything this process wrote, made a second ago at most."""
        taken = self._taken
        if taken is None or self._is_old(taken, queued):
            with self._reading:
                taken = self._taken
                if taken is None or self._is_old(taken, queued):
                    taken = self._taken = self._take()
        return taken

    def _is_old(self, taken: _Taken, queued: Sequence[str]) -> bool:
        age = self._monotonic() - taken.at
        if taken.changes != self._changes.count or age >= _FRESH_SECONDS:
            return True
        positions = taken.forecast.positions
        # Another process may have put them into the queue since.
        is_lacking = len(positions) < _PLAYED and any(job_id not in positions for job_id in queued)
        return is_lacking and age >= _MOMENT_SECONDS

    def _take(self) -> _Taken:
        changes, at = self._changes.count, self._monotonic()
        line, workers = self._store.line(_PLAYED), self._read_health().workers
        return _Taken(foresee(line, workers, self._workload_of, self._clock()), at, changes)


class _Promises:
    """What was said of jobs; of the latest ones that were asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: OrderedDict[str, _Promise] = OrderedDict()

    def say(self, job: Job, forecast: Forecast, left: float | None, ready: int) -> float | None:
        """Return what is to be said of the seconds left: not much more than was said before, if nothing came since."""
        with self._lock:
            before = self._said.get(job.id)
            if left is None:
                return None
            # A run's number is its fence; one that waits is to have the next.
            now = _Promise(left, job.fence + (job.status is Status.QUEUED), forecast.newest, ready)
            if before is not None and before.is_kept_by(now, forecast.newest_before.get(job.id, "")):
                left = min(left, _MOST_RISE * before.lowest)
                now = replace(now, lowest=min(left, before.lowest))
            self._said[job.id] = now
            self._said.move_to_end(job.id)
            while len(self._said) > _REMEMBERED:
                self._said.popitem(last=False)
        return round(left, 1)
