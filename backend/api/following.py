"""How a job or batch is found for its agent, what is known of its future, and when to ask again.

This module does not know what an answer looks like.
"""

from __future__ import annotations

import math

from flask import url_for

from backend.api.responses import Links
from backend.errors import JobNotFound
from backend.jobs.ids import is_job_id
from backend.jobs.models import Batch, Job
from backend.jobs.outlook import Outlook
from backend.services import AgentServices
from backend.telemetry.logs import log_jobs

_POLL_SECONDS = (1, 10)


def find(services: AgentServices, job_id: str, agent_id: str) -> Job | Batch:
    """Return an agent's job or batch of this id. Raises JobNotFound."""
    log_jobs(job_id)
    try:
        return services.store.get(require_id(job_id), agent_id)
    except JobNotFound:
        return services.store.get_batch(job_id, agent_id)


def require_id(job_id: str) -> str:
    """Return the id, when a job or batch can have it. Raises JobNotFound."""
    if not is_job_id(job_id):
        raise JobNotFound
    return job_id


def outlook_of(services: AgentServices, job: Job) -> Outlook:
    """Return a job's position in the queue and its ETA; of many jobs services.outlooks knows them at once."""
    return services.outlooks.of([job])[job.id]


def poll_after(eta_seconds: float | None) -> int:
    """Return after how many seconds to poll again: half of what is left, within bounds."""
    shortest, longest = _POLL_SECONDS
    return shortest if eta_seconds is None else max(shortest, min(longest, math.ceil(eta_seconds / 2)))


def links() -> Links:
    """Return where this app's jobs and files are found."""
    return Links(
        status=lambda job_id: url_for("agent_api.status", job_id=job_id),
        download=lambda name: url_for("agent_api.download", filename=name),
    )
