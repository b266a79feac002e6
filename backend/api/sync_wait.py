"""Waiting for a job to finish, for a caller that would rather wait than ask again.

This module does not know what is answered to the caller.
"""

from __future__ import annotations

import time

from backend.errors import StoreUnavailable
from backend.jobs.models import Job
from backend.services import AgentServices

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25


def wait_for_job(services: AgentServices, job_id: str, agent_id: str) -> Job | None:
    """The job when it has finished, or as it is once nobody may wait any longer; None when it could not be read.

    Waits up to SYNC_WAIT, not at all when half of the web threads are waiting already, and only until the service
    stops: the job goes on by itself. Raises JobNotFound.
    """
    if not services.sync_slots.acquire(blocking=False):
        return _look(services, job_id, agent_id)
    try:
        deadline = time.monotonic() + services.settings.sync_wait_seconds
        pause = _FIRST_PAUSE
        while True:
            job = _look(services, job_id, agent_id)
            left = deadline - time.monotonic()
            if left <= 0 or services.stopping.is_set() or (job is not None and job.status.finished):
                return job
            services.stopping.wait(min(pause, left))
            pause = min(1.5 * pause, _LONGEST_PAUSE)
    finally:
        services.sync_slots.release()


def _look(services: AgentServices, job_id: str, agent_id: str) -> Job | None:
    try:
        return services.store.get(job_id, agent_id)
    except StoreUnavailable:
        # The job was accepted all the same, and the caller must learn its id.
        return None
