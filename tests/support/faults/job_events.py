"""A log of every change of a job's state, written by the database itself: nothing that a worker does escapes it.

This module does not know who changes jobs, or which faults are made.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import text

from backend.storage.database import Database

_COLUMNS = "job_id text, before text, after text, attempts int, at double precision"
_CHANGED = "NEW.status <> OLD.status OR NEW.fence <> OLD.fence OR OLD.finished_at IS NOT NULL"
_INSERT = "INSERT INTO job_events (job_id, before, after, attempts, at) VALUES"
_VALUES = "NEW.id, OLD.status, NEW.status, NEW.attempts"
_POSTGRESQL = (
    f"CREATE TABLE job_events (seq bigserial PRIMARY KEY, {_COLUMNS})",
    f"""CREATE FUNCTION note_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF {_CHANGED} THEN {_INSERT} ({_VALUES}, extract(epoch FROM clock_timestamp())); END IF;
        RETURN NEW; END $$""",
    "CREATE TRIGGER note_job AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION note_job()",
)
_SQLITE = (
    f"CREATE TABLE job_events (seq integer PRIMARY KEY, {_COLUMNS})",
    f"""CREATE TRIGGER note_job AFTER UPDATE ON jobs WHEN {_CHANGED} BEGIN
        {_INSERT} ({_VALUES}, (julianday('now') - 2440587.5) * 86400.0); END""",
)


@dataclass(frozen=True)
class Event:
    """A job went from one state to another; attempts : the runs that it had begun then; at : seconds since 1970."""

    job_id: str
    before: str
    after: str
    attempts: int
    at: float


class JobEvents:
    """The log, oldest first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> list[Event]:
        """All of it."""
        query = text("SELECT job_id, before, after, attempts, at FROM job_events ORDER BY seq")
        with self._database.read() as connection:
            return [Event(*row) for row in connection.execute(query)]

    def finishes(self) -> Counter[str]:
        """How often each job was finished, or changed after that."""
        return Counter(event.job_id for event in self.read() if event.before != "queued" and _ends(event))

    def pauses(self, kills: list[float]) -> list[float]:
        """For each run that a kill ended: seconds from the kill until its job ran again.

        kills : when every worker was killed
        """
        runs: dict[str, list[float]] = defaultdict(list)
        for event in self.read():
            if event.after == "processing":
                runs[event.job_id].append(event.at)
        found: list[float] = []
        for starts in runs.values():
            for start, again in itertools.pairwise(starts):
                # The first kill after its start is what ended it; another may have come before it could go on.
                found += [again - kill for kill in kills if start < kill < again][:1]
        return found


@contextmanager
def job_events(database: Database) -> Iterator[JobEvents]:
    """Log what happens to the jobs of a database while the block runs."""
    statements = _SQLITE if database.is_sqlite else _POSTGRESQL
    with database.write() as connection:
        for statement in statements:
            connection.execute(text(statement))
    try:
        yield JobEvents(database)
    finally:
        with database.write() as connection:
            connection.execute(text("DROP TRIGGER note_job" + ("" if database.is_sqlite else " ON jobs")))
            if not database.is_sqlite:
                connection.execute(text("DROP FUNCTION note_job"))
            connection.execute(text("DROP TABLE job_events"))


def _ends(event: Event) -> bool:
    return event.after in ("completed", "failed", "cancelled")
