"""How a job or batch is found for its agent, what is known of its future, and when to ask again.

This module does not know what an answer looks like.
"""

from __future__ import annotations

import math

from flask import Response, url_for

from backend.api.responses import Links
from backend.auth.rate_limits import RateState, rate_state
from backend.errors import JobNotFound
from backend.jobs.ids import is_job_id
from backend.jobs.models import Batch, Job
from backend.jobs.outlook import Outlook
from backend.services import AgentServices
from backend.telemetry.logs import log_jobs

_SOONEST, _LATEST = 1, 20
_MINUTE = 60
_POLLS_SHARE = 0.6
"""Of an agent's calls, for asking how its jobs are; the others submit and fetch them."""


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


def poll_after(eta_seconds: float | None, asked_for: int, rate: RateState | None) -> int:
    """Return after how many seconds to ask again, so that whoever does so for all its jobs is never refused.

    asked_for : jobs and batches of the agent that are unfinished, each of which it may ask for; rate : what is left of
    its minute, None where nothing is counted. Half of what is left of the job, unless the agent's minute wants more.
    """
    wanted = _SOONEST if eta_seconds is None else min(_LATEST, eta_seconds / 2)
    if rate is not None:
        wanted = max(wanted, asked_for * _MINUTE / (_POLLS_SHARE * rate.limit))
        # The next round, and as many calls to fetch what is done by then.
        lacking = 2 * max(1, asked_for) - rate.remaining
        if lacking > 0:
            wanted = max(wanted, min(_MINUTE, rate.reset_seconds + lacking * _MINUTE / rate.limit))
    return max(_SOONEST, math.ceil(wanted))


def tell_when(response: Response, services: AgentServices, agent_id: str, eta_seconds: float | None) -> Response:
    """Put into an answer after how many seconds its caller is to ask again."""
    seconds = poll_after(eta_seconds, services.store.unfinished(agent_id), rate_state())
    response.headers["Retry-After"] = str(seconds)
    return response


def links() -> Links:
    """Return where this app's jobs and files are found."""
    return Links(
        status=lambda job_id: url_for("agent_api.status", job_id=job_id),
        download=lambda name: url_for("agent_api.download", filename=name),
    )
