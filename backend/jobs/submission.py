"""How a new job becomes a row, and how many an agent and the queue may have.

Works inside the caller's transaction. This module does not know what a job asks for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Subquery, func, select, union_all

from backend.errors import QueueFull, QuotaExceeded, ServiceError, TooManyActiveJobs, TooManyJobs
from backend.jobs.ids import lowest_id
from backend.jobs.models import NewJob, Status
from backend.jobs.schema import jobs, tombstones

ACTIVE = (Status.QUEUED, Status.PROCESSING)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Bounds:
    """How many jobs there may be.

    queue : that wait, of all agents; agent : of this agent, that wait or run; daily : that this agent submits in any 24
    hours, those that have expired since among them; None = any number
    """

    queue: int
    agent: int
    daily: int | None = None

    def require_possible(self, count: int) -> None:
        """See that so many jobs at once could ever have room. Raises TooManyJobs."""
        named = {"queue_limit": self.queue, "max_active_jobs": self.agent, "daily_jobs": self.daily}
        passed = {name: bound for name, bound in named.items() if bound is not None and count > bound}
        if passed:
            raise TooManyJobs(details={"jobs": count, **passed})

    def require_room(self, connection: Connection, agent_id: str, count: int, now: datetime) -> None:
        """See that so many more jobs have room now. Raises TooManyJobs, TooManyActiveJobs, QuotaExceeded, QueueFull."""
        self.require_possible(count)
        active = count_active(connection, agent_id)
        if active + count > self.agent:
            raise TooManyActiveJobs(details={"max_active_jobs": self.agent, "active_jobs": active})
        if self.daily is not None:
            _require_quota(connection, agent_id, count, self.daily, now)
        if _counted(connection, jobs.c.status == Status.QUEUED) + count > self.queue:
            raise QueueFull(details={"queue_limit": self.queue})


def count_active(connection: Connection, agent_id: str) -> int:
    """Return how many jobs of an agent wait or run, each candidate of one counted."""
    return _counted(connection, jobs.c.status.in_(ACTIVE), jobs.c.agent_id == agent_id)


def count_daily(connection: Connection, agent_id: str, now: datetime) -> int:
    """Return how many jobs of an agent came in within the last 24 hours, each candidate of one counted."""
    counted = func.coalesce(func.sum(_of_last_day(agent_id, now).c.candidates), 0)
    return int(connection.execute(select(counted)).scalar_one())


def seconds_until_free(connection: Connection, agent_id: str, jobs_to_end: int, now: datetime) -> int:
    """Return in how many seconds so many (≥ 1) of the jobs that an agent submitted today will be a day old, at least 1.

    0 when there are not so many.
    """
    recent = _of_last_day(agent_id, now)
    ended = func.sum(recent.c.candidates).over(order_by=recent.c.created_at).label("ended")
    counted = select(recent.c.created_at, ended).subquery("counted")
    query = select(func.min(counted.c.created_at)).where(counted.c.ended >= jobs_to_end)
    created: datetime | None = connection.execute(query).scalar_one_or_none()
    return 0 if created is None else max(1, math.ceil((created + _DAY - now).total_seconds()))


def _require_quota(connection: Connection, agent_id: str, count: int, daily: int, now: datetime) -> None:
    used = count_daily(connection, agent_id, now)
    if used + count > daily:
        wait = seconds_until_free(connection, agent_id, used + count - daily, now)
        raise QuotaExceeded(retry_after=wait, details={"daily_jobs": daily, "remaining": max(0, daily - used)})


def _of_last_day(agent_id: str, now: datetime) -> Subquery:
    """Select when each job of an agent's last 24 hours came in, and its candidates; its row may be gone by now."""
    since = now - _DAY
    # Ids grow with the time, and the index is by them. A job whose image was refused has none stored.
    recent = (jobs.c.id >= lowest_id(since), jobs.c.created_at > since, jobs.c.image_name != "")
    kept = select(jobs.c.created_at, jobs.c.candidates).where(jobs.c.agent_id == agent_id, *recent)
    gone = select(tombstones.c.submitted_at, tombstones.c.candidates).where(
        tombstones.c.agent_id == agent_id, tombstones.c.submitted_at > since
    )
    return union_all(kept, gone).subquery("of_last_day")


def _counted(connection: Connection, *which: ColumnElement[bool]) -> int:
    """Return how many jobs these are, each candidate of one counted."""
    return int(connection.execute(select(func.coalesce(func.sum(jobs.c.candidates), 0)).where(*which)).scalar_one())


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
        "webhook_url": new.webhook_url,
        "trace": new.trace,
        "candidates": new.candidates,
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
