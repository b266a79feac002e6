"""What a worker tells whoever counts. This module does not know who that is or how the numbers are shown."""

from __future__ import annotations

from typing import Protocol

COMPLETED = "COMPLETED"
CANCELLED = "CANCELLED"
LEASE_LOST = "LEASE_LOST"
RELEASED = "RELEASED"
DIED = "DIED"


class WorkerMetrics(Protocol):
    """Counts what a worker does; called from several threads, must be quick and never raise."""

    def observe_batch(self, size: int) -> None:
        """A device call ended that `size` pictures were given to."""

    def observe_stage(self, stage: str, seconds: float) -> None:
        """A stage of one job took this long: a field's name of job_metadata.StageSecondsOut."""

    def job_finished(self, outcome_code: str) -> None:
        """A run is over: COMPLETED, CANCELLED, LEASE_LOST, RELEASED (it waits again), or the code of its error."""


class NoMetrics:
    """Counts nothing."""

    def observe_batch(self, size: int) -> None:
        """Ignored."""

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Ignored."""

    def job_finished(self, outcome_code: str) -> None:
        """Ignored."""
