"""What is left of expired jobs: ids of jobs and batches and names of files, so that gone can be told from never there.

Works inside the caller's transaction. This module does not know when a job expires or what it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from backend.jobs import expiry
from backend.jobs.models import Job
from backend.jobs.schema import tombstones

LIFETIME = timedelta(days=7)


def leave(connection: Connection, expired: Sequence[Job], files: Mapping[str, str], now: datetime) -> None:
    """Keep the names by which agents know some jobs: of the job, its batch and its files.

    files : the agent of each file, by its name
    A job's own name says when it came in, where it counts among those that its agent submitted.
    """
    ids = {name: job.agent_id for job in expired for name in (job.id, job.batch_id) if name is not None}
    names = {**ids, **files}
    if not names:
        return
    upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    counted = {job.id: (job.created_at, job.candidates) for job in expired if job.image_name}
    rows = []
    for name, agent_id in sorted(names.items()):
        submitted, candidates = counted.get(name, (None, 1))
        row = {"name": name, "agent_id": agent_id, "expired_at": now}
        rows.append({**row, "submitted_at": submitted, "candidates": candidates})
    statement = upsert(tombstones)
    # The jobs of a batch may expire one after the other: its own name goes with the last.
    latest = {"expired_at": statement.excluded.expired_at}
    connection.execute(statement.on_conflict_do_update(index_elements=[tombstones.c.name], set_=latest), rows)


def find(connection: Connection, name: str, agent_id: str, now: datetime) -> datetime | None:
    """Return when the agent's job, batch or file of this name expired; None when none did within LIFETIME."""
    query = select(tombstones.c.expired_at).where(
        tombstones.c.name == name, tombstones.c.agent_id == agent_id, tombstones.c.expired_at > now - LIFETIME
    )
    found: datetime | None = connection.execute(query).scalar_one_or_none()
    return found


def prune(connection: Connection, now: datetime, limit: int) -> int:
    """Remove up to limit names whose time is over; return how many it were."""
    return expiry.prune(connection, tombstones, tombstones.c.expired_at <= now - LIFETIME, limit)
