"""When jobs will be finished, and how many are in front of them: for any number of jobs at once.

This module does not know how long stages take, or what a request means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backend.jobs.health import Health
from backend.jobs.models import Job, Status
from backend.jobs.progress import queued_eta
from backend.jobs.store import JobStore


@dataclass(frozen=True)
class Outlook:
    """What is known of a job beyond its row: its position in the queue from 1, and seconds until it is done."""

    queue_position: int | None = None
    eta_seconds: float | None = None


class Outlooks:
    """Looks ahead for the jobs of one service; any thread may ask."""

    def __init__(self, store: JobStore, read_health: Callable[[], Health]) -> None:
        self._store = store
        self._read_health = read_health

    def of(self, jobs: Sequence[Job]) -> Mapping[str, Outlook]:
        """Return each job's outlook by its id, with one query at most. Raises StoreUnavailable."""
        queued = [job.id for job in jobs if job.status is Status.QUEUED]
        positions = self._store.queue_positions(queued) if queued else {}
        workers = self._read_health().workers if positions else ()
        etas = {job_id: queued_eta(position, workers) for job_id, position in positions.items()}
        return {job.id: Outlook(positions.get(job.id), etas.get(job.id, job.eta_seconds)) for job in jobs}
