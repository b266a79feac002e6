"""What readers see of the job table: one agent's jobs, batches and pages, and how much waits and runs.

Works inside the caller's transaction and writes nothing. This module does not know who reads.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, exists, func, select

from backend.errors import ArtifactNotFound, InvalidCursor, JobNotFound
from backend.jobs.ids import is_job_id
from backend.jobs.leases import job_of
from backend.jobs.models import Batch, Job, JobFilter, Page, QueueCounts, Status
from backend.jobs.schema import jobs
from backend.jobs.submission import ACTIVE, folded


def find(connection: Connection, job_id: str, agent_id: str) -> Job:
    """Return an agent's job. Raises JobNotFound for unknown ids and other agents' alike."""
    query = select(*jobs.c).where(jobs.c.id == job_id, jobs.c.agent_id == agent_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise JobNotFound
    return job_of(row)


def find_batch(connection: Connection, batch_id: str, agent_id: str) -> Batch:
    """Return an agent's batch with those of its jobs that have not expired. Raises JobNotFound as find does."""
    query = select(*jobs.c).where(jobs.c.batch_id == batch_id, jobs.c.agent_id == agent_id).order_by(jobs.c.id)
    found = tuple(map(job_of, connection.execute(query)))
    if not found:
        raise JobNotFound
    return Batch(batch_id, found)


def find_any(connection: Connection, job_or_batch_id: str, agent_id: str) -> Job | Batch:
    """Return an agent's job or batch of this id. Raises JobNotFound as find does."""
    try:
        return find(connection, job_or_batch_id, agent_id)
    except JobNotFound:
        return find_batch(connection, job_or_batch_id, agent_id)


def find_by_artifact(connection: Connection, artifact: str, agent_id: str) -> Job:
    """Return the agent's job that made this file. Raises ArtifactNotFound for other agents' files, too."""
    query = select(*jobs.c).where(jobs.c.artifact == artifact, jobs.c.agent_id == agent_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise ArtifactNotFound
    return job_of(row)


def page(connection: Connection, agent_id: str, cursor: str | None, limit: int, wanted: JobFilter) -> Page:
    """Return up to limit (≥ 1) of an agent's jobs, newest first, older than the cursor. Raises InvalidCursor."""
    query = select(*jobs.c).where(jobs.c.agent_id == agent_id).order_by(jobs.c.id.desc()).limit(limit + 1)
    if wanted.statuses:
        query = query.where(jobs.c.status.in_(wanted.statuses))
    if wanted.label:
        query = query.where(jobs.c.label_folded.contains(folded(wanted.label), autoescape=True))
    if cursor is not None:
        if not is_job_id(cursor):
            raise InvalidCursor
        query = query.where(jobs.c.id < cursor)
    found = tuple(map(job_of, connection.execute(query)))
    shown = found[:limit]
    return Page(shown, shown[-1].id if len(found) > limit else None)


def counts(connection: Connection) -> QueueCounts:
    """Return how much is waiting and running."""
    query = (
        select(jobs.c.status, func.count().label("jobs"), func.min(jobs.c.created_at).label("oldest"))
        .where(jobs.c.status.in_(ACTIVE))
        .group_by(jobs.c.status)
    )
    found = {row.status: row for row in connection.execute(query)}
    queued, processing = found.get(Status.QUEUED), found.get(Status.PROCESSING)
    return QueueCounts(
        queued=queued.jobs if queued else 0,
        processing=processing.jobs if processing else 0,
        oldest_queued_at=queued.oldest if queued else None,
    )


def has_work(connection: Connection, now: datetime) -> bool:
    """Return whether a lease would find a job: one that waits, or one whose run has died."""
    died = (jobs.c.status == Status.PROCESSING) & (jobs.c.lease_expires_at <= now)
    return bool(connection.execute(select(exists().where((jobs.c.status == Status.QUEUED) | died))).scalar_one())
