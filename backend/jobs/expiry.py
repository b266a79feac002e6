"""The end of rows: which jobs were kept or have waited long enough, what their files are, and what else has expired.

Everything works inside the caller's transaction and passes over rows that another process is ending at that moment.
Rows are picked in a CTE, because PostgreSQL may run a subquery that locks once for each row: it would pick others each
time and pass the limit. This module does not know how long a job is kept or where its files lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, delete, select, tuple_, union, update

from backend.errors import JobExpired
from backend.jobs.leases import job_of
from backend.jobs.models import FileState, Job, Status
from backend.jobs.schema import files as file_rows
from backend.jobs.schema import jobs


def finished_by(connection: Connection, before: datetime, limit: int) -> list[Job]:
    """Return up to limit jobs that finished at or before a time, oldest first."""
    query = select(*jobs.c).where(jobs.c.finished_at <= before).order_by(jobs.c.finished_at, jobs.c.id).limit(limit)
    return [job_of(row) for row in connection.execute(query)]


def remove(connection: Connection, finished: Sequence[Job]) -> frozenset[str]:
    """Remove the rows of finished jobs; return the ids of those that were still there."""
    there = (
        select(jobs.c.id)
        .where(jobs.c.id.in_([job.id for job in finished]), jobs.c.finished_at.is_not(None))
        .with_for_update(skip_locked=True)
        .cte("there")
    )
    removal = delete(jobs).where(jobs.c.id.in_(select(there.c.id))).returning(jobs.c.id)
    return frozenset(connection.execute(removal).scalars())


def fail_waiting(connection: Connection, before: datetime, now: datetime, limit: int) -> list[Job]:
    """Fail up to limit jobs that were submitted at or before a time and still wait; return them."""
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


def prune(connection: Connection, table: Table, ended: ColumnElement[bool], limit: int) -> int:
    """Remove up to limit rows of a table that have ended; return how many it were."""
    key = table.primary_key.columns
    picked = select(*key).where(ended).limit(limit).with_for_update(skip_locked=True).cte("picked")
    keys = select(*(picked.c[column.name] for column in key))
    removal = delete(table).where(tuple_(*key).in_(keys)).returning(*key)
    return len(connection.execute(removal).all())


def named(connection: Connection, names: Sequence[str]) -> frozenset[str]:
    """Return those of some file names that a row names, as a job's image or as a file of it that is not deleted."""
    query = union(
        select(jobs.c.image_name).where(jobs.c.image_name.in_(names)),
        select(file_rows.c.name).where(file_rows.c.name.in_(names), file_rows.c.state != FileState.DELETED),
    )
    return frozenset(connection.execute(query).scalars())
