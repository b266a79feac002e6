"""The jobs a worker holds, and the thread that keeps their leases: one statement for all of them, twice a second.

The thread writes how far each run is, learns which its agent cancelled and which another worker took over, and hands
back what is still running when draining takes too long. So nothing else that runs a job waits for the job table. This
module does not know what a run does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum

from backend.errors import LeaseLost
from backend.jobs.models import Job, Report
from backend.jobs.progress import Reached, StagePlan
from backend.jobs.store import JobStore
from backend.periodic import PeriodicTask
from backend.runner.stage_clock import StageClock
from backend.telemetry.logs import log_context
from backend.telemetry.tracing import Attributes, RunTrace

_log = logging.getLogger(__name__)
_TICK_SECONDS = 0.5
_ETA_SLACK = 0.5
"""Seconds by which a run's end may be put off or brought forward without that being written."""


_BEFORE_STAGES = "starting"


class Ending(Enum):
    """How a run ends on this worker; the first that claims it decides."""

    RECORDED = "its result is being written by whoever claimed it"
    CANCELLED = "its agent asked for that"
    RELEASED = "it is handed back, unharmed"
    ABANDONED = "it is left to the end of its lease, and counts as a run that died"
    LOST = "it is another worker's now, or has finished"


class Run:
    """One leased job on this worker; any thread may use it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._lock = threading.Lock()
        self._ending: Ending | None = None
        self._reached: Reached | None = None
        self._progress = 0
        self._handed_over_at: float | None = None
        self.waited_for_mesh = 0.0
        self._clock = StageClock()

    @property
    def ending(self) -> Ending | None:
        """How it ended; None while it goes on."""
        return self._ending

    @property
    def over(self) -> bool:
        """Whether nothing more is to be done for it, other than by whoever claimed its end."""
        return self._ending is not None

    def end(self, ending: Ending) -> bool:
        """Claim the run's end; return False when something else ended it before."""
        with self._lock:
            if self._ending is not None:
                return False
            self._ending = ending
            return True

    def note(self, plan: StagePlan, stage: str, done: int, total: int) -> None:
        """Take in that `done` of `total` of a stage are done, of a run that is expected to go as planned."""
        with self._lock:
            self._reached = Reached.now(plan, stage, done, total, time.monotonic())
            self._clock.note(stage, done)

    def hand_over(self) -> None:
        """Take in that the device is done with it, and that its mesh is to be made as soon as a thread is free."""
        self._handed_over_at = time.monotonic()
        with self._lock:
            self._clock.pause()

    def begin(self, stage: str, done: int = 0, total: int = 1) -> None:
        """Take in that a stage begins, or how far it is, of a run that goes as planned so far."""
        now = time.monotonic()
        if self._handed_over_at is not None:
            self.waited_for_mesh, self._handed_over_at = now - self._handed_over_at, None
        with self._lock:
            if self._reached is not None:
                self._reached = Reached.now(self._reached.plan, stage, done, total, now)
            self._clock.note(stage, done)

    def trace(self, outcome: str) -> RunTrace:
        """Return what it was, once it has ended."""
        job = self.job
        with self._lock:
            ended = self._clock.now()
            stages = self._clock.stages(ended)
        attributes: Attributes = {
            "orfeas.job_id": job.id,
            "orfeas.batch_id": job.batch_id or "",
            "orfeas.attempt": job.attempts,
        }
        return RunTrace(job.trace, job.created_at, self._clock.begun, ended, outcome, stages, attributes)

    def report(self) -> Report:
        """Return how far it is by now, between two notes as time goes; progress never falls."""
        with self._lock:
            if self._reached is None:
                return Report(self.job, 0, _BEFORE_STAGES, None)
            now = time.monotonic()
            self._progress = max(self._progress, self._reached.progress(now))
            eta = self._reached.remaining(now)
            return Report(self.job, self._progress, self._reached.step, None if eta is None else round(eta, 1))


class Heartbeats:
    """Keep the leases of one worker's runs until each has ended."""

    def __init__(
        self,
        store: JobStore,
        owner: str,
        lease_seconds: float,
        on_over: Callable[[Run], None],
        *,
        tick_seconds: float = _TICK_SECONDS,
    ) -> None:
        """Hold no run yet; the thread starts with the first.

        on_over : called with each run that ended here: cancelled, released or lost
        """
        self._store = store
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._on_over = on_over
        self._lock = threading.Lock()
        self._ticking = threading.Lock()
        self._held: dict[str, Run] = {}
        self._written: dict[str, Report] = {}
        self._written_at = time.monotonic()
        self._deadline: float | None = None
        self._beats = PeriodicTask("heartbeats", tick_seconds, self.tick)

    def hold(self, runs: Iterable[Run]) -> None:
        """Keep the leases of these runs from now on."""
        with self._lock:
            self._held.update((run.job.id, run) for run in runs)
        self._beats.start()

    def drop(self, run: Run) -> None:
        """Leave a run to whoever claimed its end."""
        with self._lock:
            if self._held.get(run.job.id) is run:
                del self._held[run.job.id]

    def release_at(self, deadline: float | None) -> None:
        """Hand back what hasn't ended from this time.monotonic() on; None: never. Safe in a signal handler."""
        self._deadline = deadline

    @property
    def past_deadline(self) -> bool:
        """Whether what runs is being handed back."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def jobs(self) -> list[Job]:
        """Return the jobs of the runs that are held."""
        return [run.job for run in self._runs()]

    def wake(self) -> None:
        """Have the next beat come at once."""
        self._beats.wake()

    def stop(self, timeout: float | None = None) -> None:
        """End the thread; what is still held is left to the end of its lease."""
        self._beats.stop(timeout)

    def tick(self) -> None:
        """Do one beat. Raises StoreUnavailable, StorageFull; then the next beat makes up for it."""
        with self._ticking:
            if self.past_deadline:
                for run in self._runs():
                    run.end(Ending.RELEASED)
            self._settle()
            runs = self._runs()
            if runs:
                self._beat(runs)
                self._settle()

    def _runs(self) -> list[Run]:
        with self._lock:
            return list(self._held.values())

    def _says_more(self, reports: Mapping[str, Report]) -> bool:
        """Return whether the reports say more than those that were written, from which readers take off the time."""
        passed = time.monotonic() - self._written_at
        return reports.keys() != self._written.keys() or any(
            _differs(report, self._written[job_id], passed) for job_id, report in reports.items()
        )

    def _settle(self) -> None:
        """Write the ends that others claimed for this thread to write: a cancellation, a release."""
        writes = {Ending.CANCELLED: self._store.stop_cancelled, Ending.RELEASED: self._store.release}
        for run in self._runs():
            ending = run.ending
            if ending is not None and ending is not Ending.RECORDED:
                with log_context(run.job.id):
                    self._let_go(run, writes.get(ending))

    def _let_go(self, run: Run, write: Callable[[Job], Job] | None) -> None:
        """Write a run's end, where there is one to write, and hold it no more."""
        try:
            if write is not None:
                write(run.job)
        except LeaseLost:
            _log.warning("job %s was no longer ours to end", run.job.id)
        self.drop(run)
        self._on_over(run)

    def _beat(self, runs: Sequence[Run]) -> None:
        reports = {run.job.id: run.report() for run in runs}
        due = time.monotonic() - self._written_at >= self._lease_seconds / 3
        if due or self._says_more(reports):
            seen = self._store.report(self._owner, list(reports.values()), self._lease_seconds).held
            self._written, self._written_at = reports, time.monotonic()
        else:
            seen = tuple(self._store.poll([run.job for run in runs]))
        now = {job.id: job for job in seen}
        for run in runs:
            row = now.get(run.job.id)
            if row is None:
                # A run whose result is being written may have left the table's processing rows just now.
                if run.end(Ending.LOST):
                    with log_context(run.job.id):
                        _log.warning("job %s was taken over or has ended", run.job.id)
            elif row.cancel_requested:
                run.end(Ending.CANCELLED)


def _differs(report: Report, written: Report, passed: float) -> bool:
    """Return whether a report says other than one that was written so many seconds ago, of this run or one before."""
    if (report.progress, report.step, report.job.fence) != (written.progress, written.step, written.job.fence):
        return True
    if report.eta_seconds is None or written.eta_seconds is None:
        return report.eta_seconds != written.eta_seconds
    return abs(report.eta_seconds - max(0.0, written.eta_seconds - passed)) > _ETA_SLACK
