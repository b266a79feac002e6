"""How a new job becomes a row, and how many an agent and the queue may have.

Works inside the caller's transaction. This module does not know what a job asks for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from backend.errors import QueueFull, ServiceError, TooManyActiveJobs
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


def rows_of(
    ids: Sequence[str], batch_id: str | None, agent_id: str, new_jobs: Sequence[NewJob], now: datetime
) -> list[dict[str, Any]]:
    """Return the rows of jobs that come in now; one whose image was refused has failed already."""
    rows = []
    for index, (job_id, new) in enumerate(zip(ids, new_jobs, strict=True)):
        belongs = {"batch_id": batch_id, "batch_index": None if batch_id is None else index}
        rows.append({"id": job_id, "agent_id": agent_id, **belongs, **_values_of(new, now)})
    return rows


def _values_of(new: NewJob, now: datetime) -> dict[str, Any]:
    status = Status.QUEUED if new.refusal is None else Status.FAILED
    failed = {"finished_at": None if new.refusal is None else now, **failure_values(new.refusal)}
    return {
        **failed,
        "status": status,
        "request": new.request,
        "batch_key": new.batch_key,
        "image_name": new.image_name,
        "created_at": now,
        "updated_at": now,
        "attempts": 0,
        "fence": 0,
        "progress": 0,
        "current_step": status.value,
        "cancel_requested": False,
        "filename": new.filename,
        "label": new.label,
        "label_folded": None if new.label is None else folded(new.label),
    }


def failure_values(error: ServiceError | None) -> dict[str, Any]:
    """Return the values of the columns that say why a job failed; None for one that did not."""
    if error is None:
        return {"error_code": None, "error_message": None, "error_details": None}
    return {
        "error_code": error.code,
        "error_message": error.message,
        # A detail that JSON does not know is shown as text rather than lost with the failure.
        "error_details": json.dumps(error.details, default=str) if error.details else None,
    }


def folded(text: str) -> str:
    """Return a text as labels are searched by: without regard to capitals, alike in every database."""
    return text.casefold()
