"""Webhooks as rows: which jobs have ended whose agent wants to hear of it, and what was sent of that, or is yet to be.

A job keeps the address until its delivery is entered, by the same transaction: each end is told of once, whoever dies
in between, and however many processes look. A delivery is taken by the process that is to send it for a while: one that
dies leaves it to the others. This module does not know how anything is sent, or what a body says.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, func, insert, select, update

from backend.jobs.leases import job_of
from backend.jobs.models import Clock, Job
from backend.jobs.schema import jobs, webhook_deliveries
from backend.storage.database import Database

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
STATES = (PENDING, DELIVERED, FAILED)
PAUSES = (5, 300, 1800, 7200, 18_000, 36_000)
"""Seconds before each try after the first."""

KEPT = timedelta(days=30)
"""How long the log remembers what has ended."""

_TAKEN_SECONDS = 60
_LOCK = 0x0F_EA5_004
_ENTERED_AT_ONCE = 50


@dataclass(frozen=True)
class NewDelivery:
    """What is to be sent of the end of a job or batch; type : job.completed, …; body : JSON text."""

    agent_id: str
    subject_id: str
    type: str
    url: str
    body: str


@dataclass(frozen=True)
class Delivery:
    """One row of the log.

    attempts : tries begun; due_at : of the next one, None when there will be none
    last_status, last_error : what came of the latest, None for what did not come
    """

    id: str
    agent_id: str
    subject_id: str
    type: str
    url: str
    body: str
    state: str
    created_at: datetime
    attempts: int
    due_at: datetime | None
    last_status: int | None
    last_error: str | None
    ended_at: datetime | None


@dataclass(frozen=True)
class Backlog:
    """Deliveries that are still to be made; due_at : of the one that is due first, None where none waits."""

    pending: int
    due_at: datetime | None


class WebhookTable:
    """The table of deliveries; every method may raise StoreUnavailable, and those that write StorageFull."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Open the table in a database."""
        self._database = database
        self._clock = clock

    def ended(self) -> list[Job]:
        """Return some jobs that have ended and of which nothing was entered yet, oldest first."""
        query = (
            select(*jobs.c)
            .where(jobs.c.webhook_url.is_not(None), jobs.c.finished_at.is_not(None))
            .order_by(jobs.c.finished_at)
            .limit(_ENTERED_AT_ONCE)
        )
        with self._database.read() as connection:
            return [job_of(row) for row in connection.execute(query)]

    def enter(self, job: Job, deliveries: Sequence[NewDelivery]) -> bool:
        """Enter what is to be sent of a job's end, unless another process has; return whether this one did.

        One of a batch that is there already is not entered again.
        """
        now = self._clock()
        claim = update(jobs).where(jobs.c.id == job.id, jobs.c.webhook_url.is_not(None)).values(webhook_url=None)
        with self._database.write(_LOCK) as connection:
            if not connection.execute(claim).rowcount:
                return False
            for new in deliveries:
                if not _is_there(connection, new):
                    connection.execute(insert(webhook_deliveries).values(**_row(new, now)))
        return True

    def is_last_of_batch(self, job: Job) -> bool:
        """Return whether all jobs of a job's batch have ended."""
        unfinished = exists().where(jobs.c.batch_id == job.batch_id, jobs.c.finished_at.is_(None))
        with self._database.read() as connection:
            return job.batch_id is not None and not connection.execute(select(unfinished)).scalar_one()

    def take(self, busy: Collection[str]) -> Delivery | None:
        """Take the delivery that is due longest, for a minute; None when none is. busy : agents that have to wait."""
        now, table = self._clock(), webhook_deliveries
        due = select(table.c.id).where(table.c.due_at <= now, table.c.agent_id.not_in(busy)).order_by(table.c.due_at)
        with self._database.write(_LOCK) as connection:
            found = connection.execute(due.limit(1)).scalar_one_or_none()
            if found is None:
                return None
            # It comes up again by itself when nobody says what came of it.
            values = {"attempts": table.c.attempts + 1, "due_at": now + timedelta(seconds=_TAKEN_SECONDS)}
            statement = update(table).where(table.c.id == found).values(values).returning(*table.c)
            return _delivery_of(connection.execute(statement).one())

    def has_due(self) -> bool:
        """Return whether there is a delivery to be made now."""
        query = select(exists().where(webhook_deliveries.c.due_at <= self._clock()))
        with self._database.read() as connection:
            return bool(connection.execute(query).scalar_one())

    def backlog(self) -> Backlog:
        """Return how much is still to be delivered."""
        query = select(func.count(), func.min(webhook_deliveries.c.due_at)).where(webhook_deliveries.c.state == PENDING)
        with self._database.read() as connection:
            count, due_at = connection.execute(query).one()
        return Backlog(count, due_at)

    def delivered(self, delivery: Delivery, status: int) -> None:
        """Note that a delivery has arrived."""
        now = self._clock()
        self._note(delivery, state=DELIVERED, due_at=None, last_status=status, last_error=None, ended_at=now)

    def failed(self, delivery: Delivery, error: str, status: int | None, *, is_final: bool = False) -> None:
        """Note that a try has failed: another follows after a pause, unless that was the last, or is_final."""
        now, pauses = self._clock(), PAUSES[delivery.attempts - 1 : delivery.attempts]
        result: dict[str, Any] = {"last_status": status, "last_error": error[:500]}
        if is_final or not pauses:
            self._note(delivery, state=FAILED, due_at=None, ended_at=now, **result)
        else:
            self._note(delivery, due_at=now + timedelta(seconds=pauses[0]), **result)

    def replay(self, delivery_id: str) -> bool:
        """Have a delivery made again from the first try on, under its id; return whether there is such a one."""
        values = {"state": PENDING, "attempts": 0, "due_at": self._clock(), "ended_at": None}
        statement = update(webhook_deliveries).where(webhook_deliveries.c.id == delivery_id).values(**values)
        with self._database.write() as connection:
            return bool(connection.execute(statement).rowcount)

    def latest(self, limit: int, agent_id: str | None = None, state: str | None = None) -> list[Delivery]:
        """Return up to limit deliveries, newest first; of one agent, or in one state, where these are given."""
        table = webhook_deliveries
        query = select(*table.c).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
        query = query if agent_id is None else query.where(table.c.agent_id == agent_id)
        query = query if state is None else query.where(table.c.state == state)
        with self._database.read() as connection:
            return [_delivery_of(row) for row in connection.execute(query)]

    def prune(self, now: datetime, limit: int) -> int:
        """Remove up to limit deliveries that ended long ago; return how many it were."""
        table = webhook_deliveries
        old = select(table.c.id).where(table.c.created_at <= now - KEPT, table.c.state != PENDING).limit(limit)
        with self._database.write() as connection:
            return connection.execute(delete(table).where(table.c.id.in_(old))).rowcount

    def _note(self, delivery: Delivery, **values: Any) -> None:
        """Write what came of a try, unless another process has tried since."""
        table = webhook_deliveries
        is_this = (table.c.id == delivery.id, table.c.attempts == delivery.attempts, table.c.state == PENDING)
        with self._database.write() as connection:
            connection.execute(update(table).where(*is_this).values(**values))


def _is_there(connection: Connection, new: NewDelivery) -> bool:
    table = webhook_deliveries
    query = select(exists().where(table.c.subject_id == new.subject_id, table.c.type == new.type))
    return bool(connection.execute(query).scalar_one())


def _row(new: NewDelivery, now: datetime) -> dict[str, Any]:
    return {
        **vars(new),
        "id": secrets.token_hex(16),
        "state": PENDING,
        "created_at": now,
        "attempts": 0,
        "due_at": now,
    }


def _delivery_of(row: Row[Any]) -> Delivery:
    return Delivery(**row._mapping)
