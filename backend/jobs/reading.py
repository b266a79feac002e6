"""What readers see of the job table: one agent's jobs, batches and pages, and how much waits and runs.

Works inside the caller's transaction and writes nothing. This module does not know who reads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, exists, func, select

from backend.errors import InvalidCursor, JobNotFound
from backend.jobs.ids import is_job_id
from backend.jobs.leases import job_of
from backend.jobs.models import Batch, Job, JobFilter, JobState, Page, QueueCounts, Status, Usage
from backend.jobs.schema import jobs
from backend.jobs.submission import ACTIVE, count_active, count_daily, folded, seconds_until_free

_ASKED_AT_ONCE = 500


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


def find_several(connection: Connection, ids: Sequence[str]) -> dict[str, Job | Batch]:
    """Return the jobs and batches of some ids, of any agent; those that are gone are missing."""
    found: dict[str, Job | Batch] = {}
    for first in range(0, len(ids), _ASKED_AT_ONCE):
        asked = frozenset(ids[first : first + _ASKED_AT_ONCE])
        query = select(*jobs.c).where(jobs.c.id.in_(asked) | jobs.c.batch_id.in_(asked)).order_by(jobs.c.id)
        for job in map(job_of, connection.execute(query)):
            if job.id in asked:
                found[job.id] = job
            if job.batch_id in asked:
                batch = found.get(job.batch_id)
                earlier = batch.jobs if isinstance(batch, Batch) else ()
                found[job.batch_id] = Batch(job.batch_id, (*earlier, job))
    return found


def newer_ids(connection: Connection, agent_ids: Collection[str], lowest: str) -> dict[str, str]:
    """Return the jobs of some agents whose ids are not below one, oldest first: their agents by their ids."""
    query = select(jobs.c.id, jobs.c.agent_id).where(jobs.c.agent_id.in_(agent_ids), jobs.c.id >= lowest)
    return {row.id: row.agent_id for row in connection.execute(query.order_by(jobs.c.id))}


def active_of(connection: Connection, agent_id: str) -> list[Job]:
    """Return an agent's unfinished jobs."""
    query = select(*jobs.c).where(jobs.c.agent_id == agent_id, jobs.c.status.in_(ACTIVE))
    return [job_of(row) for row in connection.execute(query)]


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


def unfinished(connection: Connection, agent_id: str) -> int:
    """Return how many of an agent's jobs and batches are unfinished, the jobs of a batch as one."""
    asked_for = func.count(func.coalesce(jobs.c.batch_id, jobs.c.id).distinct())
    query = select(asked_for).where(jobs.c.status.in_(ACTIVE), jobs.c.agent_id == agent_id)
    return int(connection.execute(query).scalar_one())


def running(connection: Connection) -> tuple[Job, ...]:
    """Return the jobs that run, of all agents, oldest first."""
    query = select(*jobs.c).where(jobs.c.status == Status.PROCESSING).order_by(jobs.c.id)
    return tuple(map(job_of, connection.execute(query)))


def turns(connection: Connection, agent_ids: Collection[str]) -> dict[str, datetime | None]:
    """Return when the latest run of each of some agents began."""
    latest = select(jobs.c.agent_id, func.max(jobs.c.started_at)).where(jobs.c.agent_id.in_(agent_ids))
    return {row[0]: row[1] for row in connection.execute(latest.group_by(jobs.c.agent_id))}


def states(connection: Connection, ids: Sequence[str]) -> dict[str, JobState]:
    """Return how far some jobs are, by id; those that are gone are missing."""
    columns = (jobs.c.status, jobs.c.cancel_requested, jobs.c.progress, jobs.c.current_step)
    found: dict[str, JobState] = {}
    for first in range(0, len(ids), _ASKED_AT_ONCE):
        query = select(jobs.c.id, *columns).where(jobs.c.id.in_(ids[first : first + _ASKED_AT_ONCE]))
        found.update((row[0], JobState(*row[1:])) for row in connection.execute(query))
    return found


def with_unfinished(connection: Connection, agent_ids: Collection[str]) -> list[str]:
    """Return those of some agents that have jobs which wait or run and were not asked to stop."""
    active = (jobs.c.status.in_(ACTIVE), jobs.c.agent_id.in_(agent_ids), ~jobs.c.cancel_requested)
    return list(connection.execute(select(jobs.c.agent_id).where(*active).distinct()).scalars())


def usage(connection: Connection, agent_id: str, now: datetime) -> Usage:
    """Return how much of its bounds an agent takes."""
    return Usage(
        active=count_active(connection, agent_id),
        daily=count_daily(connection, agent_id, now),
        oldest_ends_in=seconds_until_free(connection, agent_id, 1, now),
    )
