"""Who runs next: the order of the queue, the lease of jobs that may run together, and what becomes of dead runs.

The order is fair: agents take turns, the one whose latest run began longest ago first, each with its oldest job. Works
inside the caller's transaction; rows that another worker is leasing at that moment are passed over, not waited for.
This module does not know what a run is or when a worker asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Case,
    ColumnElement,
    Connection,
    Row,
    Select,
    Subquery,
    Update,
    and_,
    case,
    func,
    not_,
    null,
    or_,
    select,
    update,
)

from backend.errors import WorkerDied
from backend.jobs.models import ISOLATE_AFTER_DEATHS, Job, Status
from backend.jobs.schema import jobs, status_value, time_value

_RECLAIMED_AT_ONCE = 200


@dataclass(frozen=True)
class LeaseRequest:
    """For whom a lease is, from when until when."""

    owner: str
    now: datetime
    expires_at: datetime


def job_of(row: Row[Any]) -> Job:
    """Return a row of the job table as a value."""
    # The folded label is for the database to search in.
    return Job(**{name: value for name, value in row._mapping.items() if name != "label_folded"})


def lease_next(connection: Connection, wanted: LeaseRequest, limit: int) -> list[Job]:
    """Lease the job whose turn it is, and up to limit − 1 that may run with it; none when the queue is empty."""
    head = connection.execute(_free(_order()).limit(1)).one_or_none()
    if head is None:
        return []
    first = job_of(head)
    mates = [] if first.isolated else _batch_mate_ids(connection, first, limit - 1)
    return _take(connection, wanted, [first.id, *mates])


def lease_batch_mates(connection: Connection, wanted: LeaseRequest, running: Job, limit: int) -> list[Job]:
    """Lease up to limit jobs that may run together with a leased one."""
    return [] if running.isolated else _take(connection, wanted, _batch_mate_ids(connection, running, limit))


def upcoming(connection: Connection, limit: int) -> list[Job]:
    """Return up to limit jobs that the next lease would give, without leasing them; none whose run died before."""
    head = connection.execute(_in_order(_order()).limit(1)).one_or_none()
    if head is None or head.attempts:
        return []
    first = job_of(head)
    mates = _in_order(_order(first.batch_key)).where(jobs.c.id != first.id, jobs.c.attempts == 0)
    return [first, *map(job_of, connection.execute(mates.limit(limit - 1)))]


def waiting(connection: Connection, limit: int) -> tuple[Job, ...]:
    """Return up to limit jobs that are queued, in the order of leasing."""
    return tuple(map(job_of, connection.execute(_in_order(_order()).limit(limit))))


def reclaim(connection: Connection, now: datetime, max_attempts: int) -> list[Job]:
    """End the runs whose lease has ended, and return their jobs.

    Each is back in the queue, or has failed after max_attempts, or is cancelled where its agent asked for that.
    """
    ended = (
        select(jobs.c.id)
        .where(jobs.c.status == Status.PROCESSING, jobs.c.lease_expires_at <= now)
        .limit(_RECLAIMED_AT_ONCE)
        .with_for_update(skip_locked=True)
        .cte("ended")  # PostgreSQL may run a subquery that locks once a row, and pass the limit
    )
    dead = and_(not_(jobs.c.cancel_requested), jobs.c.attempts >= max_attempts)
    statement = (
        update(jobs)
        .where(jobs.c.id.in_(select(ended.c.id)), jobs.c.status == Status.PROCESSING)
        .values(
            status=case((dead, status_value(Status.FAILED)), else_=_waiting_or_cancelled()),
            error_code=case((dead, WorkerDied.code)),
            error_message=case((dead, WorkerDied().message)),
            current_step=case((dead, Status.FAILED.value), else_=_waiting_or_cancelled_step()),
            finished_at=case((or_(dead, jobs.c.cancel_requested), time_value(now))),
            **_unleased(now),
        )
        .returning(*jobs.c)
    )
    return [job_of(row) for row in connection.execute(statement)]


def cancellation(which: ColumnElement[bool], agent_id: str, now: datetime) -> Update:
    """Return the statement that cancels an agent's jobs: waiting ones at once, running ones when their worker sees it.

    which : picks the jobs; finished ones stay as they are
    """
    waits = jobs.c.status == Status.QUEUED
    return (
        update(jobs)
        .where(which, jobs.c.agent_id == agent_id, jobs.c.status.in_((Status.QUEUED, Status.PROCESSING)))
        .values(
            status=case((waits, status_value(Status.CANCELLED)), else_=jobs.c.status),
            current_step=case((waits, Status.CANCELLED.value), else_=jobs.c.current_step),
            finished_at=case((waits, time_value(now))),
            cancel_requested=True,
            updated_at=now,
        )
    )


def handed_back(now: datetime) -> dict[str, Any]:
    """Return the new values for a run that its worker gives up unharmed: it doesn't count, and the job waits again."""
    return {
        "status": _waiting_or_cancelled(),
        "attempts": jobs.c.attempts - 1,
        "current_step": _waiting_or_cancelled_step(),
        "finished_at": case((jobs.c.cancel_requested, time_value(now))),
        **_unleased(now),
    }


def position(connection: Connection, job_id: str) -> int | None:
    """Return the position of a queued job in the fair order, from 1; None when it is not queued."""
    return positions(connection, [job_id]).get(job_id)


def positions(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Return the positions of those of some jobs that are queued, in the fair order, from 1, by id."""
    order = _order()
    numbered = select(
        order.c.id,
        func.row_number().over(order_by=(order.c.round, order.c.turn.nulls_first(), order.c.id)).label("position"),
    ).subquery("positions")
    found = connection.execute(select(numbered.c.id, numbered.c.position).where(numbered.c.id.in_(ids)))
    return {row.id: row.position for row in found}


def _order(batch_key: str | None = None) -> Subquery:
    """Select queued jobs (of one batch key) with each one's round, and its agent's turn in that round."""
    waiting = jobs.alias("waiting")
    started = jobs.alias("started")
    is_waiting = waiting.c.status == Status.QUEUED
    if batch_key is not None:
        is_waiting &= waiting.c.batch_key == batch_key
    rounds = (
        select(
            waiting.c.id,
            waiting.c.agent_id,
            func.row_number().over(partition_by=waiting.c.agent_id, order_by=waiting.c.id).label("round"),
        )
        .where(is_waiting)
        .subquery("rounds")
    )
    agents = select(waiting.c.agent_id).where(is_waiting).distinct().subquery("agents")
    latest = select(func.max(started.c.started_at)).where(started.c.agent_id == agents.c.agent_id).scalar_subquery()
    turns = select(agents.c.agent_id, latest.label("turn")).subquery("turns")
    return (
        select(rounds.c.id, rounds.c.round, turns.c.turn)
        .join(turns, turns.c.agent_id == rounds.c.agent_id)
        .subquery("fair_order")
    )


def _free(order: Subquery) -> Select[Any]:
    """Select jobs that are queued and that no other transaction is taking, in order, locked for this one."""
    return _in_order(order).with_for_update(of=jobs, skip_locked=True)


def _in_order(order: Subquery) -> Select[Any]:
    """Select jobs that are queued, in order."""
    return (
        select(*jobs.c)
        .join(order, order.c.id == jobs.c.id)
        .where(jobs.c.status == Status.QUEUED)
        .order_by(order.c.round, order.c.turn.nulls_first(), order.c.id)
    )


def _batch_mate_ids(connection: Connection, first: Job, limit: int) -> list[str]:
    if limit < 1:
        return []
    query = _free(_order(first.batch_key)).where(jobs.c.id != first.id, jobs.c.attempts < ISOLATE_AFTER_DEATHS)
    return [row.id for row in connection.execute(query.limit(limit))]


def _take(connection: Connection, wanted: LeaseRequest, ids: list[str]) -> list[Job]:
    statement = (
        update(jobs)
        .where(jobs.c.id.in_(ids), jobs.c.status == Status.QUEUED)
        .values(
            status=Status.PROCESSING,
            attempts=jobs.c.attempts + 1,
            fence=jobs.c.fence + 1,
            lease_owner=wanted.owner,
            lease_expires_at=wanted.expires_at,
            started_at=wanted.now,
            updated_at=wanted.now,
            current_step="starting",
        )
        .returning(*jobs.c)
    )
    taken = {job.id: job for job in map(job_of, connection.execute(statement))}
    return [taken[job_id] for job_id in ids if job_id in taken]


def _unleased(now: datetime) -> dict[str, Any]:
    return {
        "lease_owner": null(),
        "lease_expires_at": null(),
        "progress": 0,
        "eta_seconds": null(),
        "updated_at": now,
    }


def _waiting_or_cancelled() -> Case[Any]:
    return case((jobs.c.cancel_requested, status_value(Status.CANCELLED)), else_=status_value(Status.QUEUED))


def _waiting_or_cancelled_step() -> Case[Any]:
    return case((jobs.c.cancel_requested, Status.CANCELLED.value), else_=Status.QUEUED.value)
