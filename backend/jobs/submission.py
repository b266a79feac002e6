"""How a new job becomes a row, and how many an agent and the queue may have.

Works inside the caller's transaction. This module does not know what a job asks for.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from backend.errors import QueueFull, TooManyActiveJobs
from backend.jobs.models import NewJob, Status
from backend.jobs.schema import jobs

ACTIVE = (Status.QUEUED, Status.PROCESSING)


def check_bounds(connection: Connection, agent_id: str, count: int, queue_limit: int, agent_limit: int) -> None:
    """See that so many more jobs have room. Raises TooManyActiveJobs, QueueFull."""
    active = select(func.count()).where(jobs.c.status.in_(ACTIVE), jobs.c.agent_id == agent_id)
    if connection.execute(active).scalar_one() + count > agent_limit:
        raise TooManyActiveJobs(details={"max_active_jobs": agent_limit})
    queued = select(func.count()).where(jobs.c.status == Status.QUEUED)
    if connection.execute(queued).scalar_one() + count > queue_limit:
        raise QueueFull(details={"queue_limit": queue_limit})


def row_of(job_id: str, batch_id: str | None, agent_id: str, new: NewJob, now: datetime) -> dict[str, Any]:
    """Return the row of a job that comes in now."""
    return {
        "id": job_id,
        "batch_id": batch_id,
        "agent_id": agent_id,
        "status": Status.QUEUED,
        "request": new.request,
        "batch_key": new.batch_key,
        "image_name": new.image_name,
        "created_at": now,
        "updated_at": now,
        "attempts": 0,
        "fence": 0,
        "progress": 0,
        "current_step": Status.QUEUED.value,
        "cancel_requested": False,
    }
