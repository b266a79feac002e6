"""The end of jobs: which have been kept or have waited long enough, and which files their rows still name.

Works inside the caller's transaction; rows that another process is ending at that moment are passed over. They are
picked in a CTE, for PostgreSQL may run a subquery that locks once a row, and it would pick others each time. This
module does not know how long a job is kept or where its files lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, select, union, update

from backend.errors import JobExpired
from backend.jobs.leases import job_of
from backend.jobs.models import Job, Status
from backend.jobs.schema import jobs


def finished_by(connection: Connection, before: datetime, limit: int) -> list[Job]:
    """Up to limit jobs that finished at or before a time, oldest first."""
    query = select(*jobs.c).where(jobs.c.finished_at <= before).order_by(jobs.c.finished_at, jobs.c.id).limit(limit)
    return [job_of(row) for row in connection.execute(query)]


def remove(connection: Connection, finished: Sequence[Job]) -> int:
    """Removes the rows of finished jobs; how many were still there."""
    there = (
        select(jobs.c.id)
        .where(jobs.c.id.in_([job.id for job in finished]), jobs.c.finished_at.is_not(None))
        .with_for_update(skip_locked=True)
        .cte("there")
    )
    removal = delete(jobs).where(jobs.c.id.in_(select(there.c.id))).returning(jobs.c.id)
    return len(connection.execute(removal).all())


def fail_waiting(connection: Connection, before: datetime, now: datetime, limit: int) -> list[Job]:
    """Fails up to limit jobs that were submitted at or before a time and still wait."""
    old = (
        select(jobs.c.id)
        .where(jobs.c.status == Status.QUEUED, jobs.c.created_at <= before)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    statement = (
        update(jobs)
        .where(jobs.c.id.in_(select(old.c.id)), jobs.c.status == Status.QUEUED)
        .values(
            status=Status.FAILED,
            current_step=Status.FAILED.value,
            error_code=JobExpired.code,
            error_message=JobExpired().message,
            finished_at=now,
            updated_at=now,
        )
        .returning(*jobs.c)
    )
    return [job_of(row) for row in connection.execute(statement)]


def named(connection: Connection, names: Sequence[str]) -> frozenset[str]:
    """Those of some file names that a row names, as its picture or its mesh."""
    query = union(
        select(jobs.c.image_name).where(jobs.c.image_name.in_(names)),
        select(jobs.c.artifact).where(jobs.c.artifact.in_(names)),
    )
    return frozenset(connection.execute(query).scalars())
