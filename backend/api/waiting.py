"""A status that is answered when there is something new to say: `?wait=`.

A change of status is answered at once; of progress or step alone only after as long as the agent is to leave between
two calls, so that one that asks again and again is never refused. This module does not know what an answer looks like.
"""

from __future__ import annotations

import time

from backend.api.following import find
from backend.api.pacing import poll_after
from backend.api.request_context import waiting
from backend.auth.rate_limits import rate_state
from backend.jobs.models import Batch, Job
from backend.services import AgentServices


def when_changed(services: AgentServices, found: Job | Batch, agent_id: str, seconds: int) -> tuple[Job | Batch, float]:
    """Return a job or batch once it has changed, or after so many seconds as it is; and how long that took.

    Returns what is given, after 0 s, when it has finished, or when too many calls wait already. Raises as find does.
    """
    if seconds == 0 or found.status.finished:
        return found, 0.0
    jobs = [job for job in found.jobs if not job.status.finished] if isinstance(found, Batch) else [found]
    calm = poll_after(None, services.store.unfinished(agent_id), rate_state())
    began = time.monotonic()
    with services.wait_slots.one_of(agent_id) as is_free:
        if not is_free:
            return found, 0.0
        with waiting():
            services.watch.wait(jobs, seconds, calm)
    return find(services, found.id, agent_id), time.monotonic() - began
