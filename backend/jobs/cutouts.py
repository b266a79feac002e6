"""Cut-outs that were asked for alone: files without a job, whose they are, and how they go.

This module does not know how an image is cut out, or where its file lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Connection, delete, insert, select

from backend.jobs import idempotency, tombstones
from backend.jobs.models import Clock, IdempotencyKey, Submitted
from backend.jobs.schema import cutouts
from backend.storage.database import Database


@dataclass(frozen=True)
class Cutout:
    """A stored cut-out: its file's name, what its agent was answered as JSON, and when it was made."""

    name: str
    answer: str
    created_at: datetime


class Files(Protocol):
    """Where the files of cut-outs are."""

    def delete(self, name: str) -> None:
        """Remove a file; one that is gone is no error."""
        ...


class CutoutTable:
    """The table of cut-outs; every method may raise StoreUnavailable, and those that write StorageFull."""

    def __init__(self, database: Database, files: Files, clock: Clock, ttl: timedelta) -> None:
        """Open the table in a database. files : where the files are; ttl : how long one is kept."""
        self._database = database
        self._files = files
        self._clock = clock
        self._ttl = ttl

    def add(self, agent_id: str, name: str, answer: str, key: IdempotencyKey | None) -> str:
        """Keep a cut-out as an agent's; return the name of the one that the key had first, or else this name.

        Raises IdempotencyConflict.
        """
        now = self._clock()
        with self._database.write() as connection:
            if key is not None:
                first = idempotency.claim(connection, agent_id, key, Submitted((name,), None, replayed=False), now)
                if first.replayed:
                    return first.job_ids[0]
            row = {"name": name, "agent_id": agent_id, "answer": answer, "created_at": now}
            connection.execute(insert(cutouts), [row])
        return name

    def recall(self, agent_id: str, key: IdempotencyKey) -> str | None:
        """Return the name of the cut-out that this request got within the last 24 hours. Raises IdempotencyConflict."""
        with self._database.read() as connection:
            first = idempotency.recall(connection, agent_id, key, self._clock())
        return None if first is None else first.job_ids[0]

    def find(self, name: str, agent_id: str) -> Cutout | None:
        """Return an agent's cut-out by its file's name; None for what is no cut-out or another agent's."""
        query = select(cutouts.c.name, cutouts.c.answer, cutouts.c.created_at).where(
            cutouts.c.name == name, cutouts.c.agent_id == agent_id
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Cutout(*row)

    def expires_at(self, cutout: Cutout) -> datetime:
        """Return when a cut-out is removed."""
        return cutout.created_at + self._ttl

    def prune(self, now: datetime, limit: int) -> int:
        """Remove up to limit cut-outs whose time is over, all but their names; return how many it were.

        Files go first: whoever dies in between leaves a row, which is found again. Raises ArtifactStoreUnavailable.
        """
        due = self._due(now - self._ttl, limit)
        for name in due:
            self._files.delete(name)
        if due:
            with self._database.write() as connection:
                tombstones.leave(connection, (), _remove(connection, due), now)
        return len(due)

    def _due(self, before: datetime, limit: int) -> list[str]:
        query = select(cutouts.c.name).where(cutouts.c.created_at <= before).order_by(cutouts.c.created_at).limit(limit)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())


def _remove(connection: Connection, names: list[str]) -> dict[str, str]:
    """Remove rows; return the agents by the names."""
    removal = delete(cutouts).where(cutouts.c.name.in_(names)).returning(cutouts.c.name, cutouts.c.agent_id)
    return {row.name: row.agent_id for row in connection.execute(removal)}
