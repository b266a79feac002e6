"""Migrations of the database: each schema that was ever released becomes the one that this code knows.

A fresh database is made at the latest revision. An older one is migrated while no other process uses it, unless all its
revisions may be run beside the code before them; in one transaction: one that fails leaves the schema as it was. There
is no way back but a backup. This module does not know what the tables are for.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, exc, make_url, text

from backend.errors import DatabaseDamaged, SchemaMismatch, StoreUnavailable
from backend.storage.database import Database, damage, make_private, sqlite_kind
from backend.storage.migrations import revisions
from backend.storage.migrations.exclusive import InUse, alone_in_sqlite, expect_alone
from backend.storage.migrations.revisions import Revisions

__all__ = ["advice_for", "migrate", "open_latest", "open_migrated", "pending"]

# The first release took the same lock: the two never make tables at once.
_SCHEMA_LOCK = 0x0F_EA5_001
_SESSION_NAME = "orfeas-migrate"
_LONGEST_MIGRATION_SECONDS = 300
# A process that has just ended may be seen a moment longer, one that starts is there for a moment.
_GRACE_SECONDS = 5.0
# By chance, so that two that start at once are not in each other's way again and again.
_SHORTEST_REST, _LONGEST_REST = 0.02, 0.3

logger = logging.getLogger(__name__)


def migrate(database_url: str) -> tuple[str, ...]:
    """Bring a database to the latest revision; the revisions that this call ran, oldest first.

    Any number of processes may call it at once: one works, the others wait.
    Raises SchemaMismatch when another process uses an older database, and for one that a later release made;
    DatabaseDamaged, which says what to do; DatabaseUrlError, StoreUnavailable, StorageFull.
    """
    with _advice(database_url):
        applied = _Migration(database_url, lambda: None).run()
        _expect_whole(database_url)
    return applied


def open_migrated(database_url: str) -> Database:
    """Bring a database to the latest revision and open it, with one connection to show that it is in use.

    Raises as `migrate`.
    """
    database = Database.open(database_url)
    try:
        with _advice(database_url):
            _Migration(database_url, database.connect).run()
    except BaseException:
        database.close()
        raise
    return database


def open_latest(database_url: str) -> Database:
    """Open a database that has the latest revision already, as it is used beside a service that runs.

    Raises SchemaMismatch for any other; DatabaseDamaged, DatabaseUrlError, StoreUnavailable.
    """
    missing = pending(database_url)
    if missing == revisions.every():
        raise SchemaMismatch("The database has no tables yet: start the service once, or run `orfeas migrate`.")
    if missing:
        raise SchemaMismatch(f"The database lacks the revisions {', '.join(missing)}: run `orfeas migrate` first.")
    return Database.open(database_url)


def pending(database_url: str) -> tuple[str, ...]:
    """Return the revisions that `migrate` would run, oldest first; makes no file and no table.

    Raises SchemaMismatch for a database that a later release made, DatabaseDamaged, which says what to do;
    DatabaseUrlError, StoreUnavailable.
    """
    with _advice(database_url), closing(Database.open(database_url)) as database:
        if database.is_sqlite and not Path(str(make_url(database_url).database)).exists():
            return revisions.every()
        with database.read() as connection:
            return revisions.read(connection).pending


def advice_for(database_url: str, reason: str) -> str:
    """Return a sentence on what to do about a SQLite file that is damaged."""
    path, reason = make_url(database_url).database, " ".join(reason.split())
    return (
        f"The database {path} is damaged, or no database at all ({reason}): stop every process of the service, then "
        f"put a backup in its place, or move {path} and the -wal and -shm beside it away; a new one is made, without "
        "the jobs so far, and agents keep their keys."
    )


@contextmanager
def _advice(database_url: str) -> Iterator[None]:
    """Raise DatabaseDamaged with what to do, which names the file: for who runs the service, not for callers."""
    try:
        yield
    except DatabaseDamaged as error:
        cause = error.__cause__
        reason = str(cause.orig) if isinstance(cause, exc.DBAPIError) else error.message
        raise DatabaseDamaged(advice_for(database_url, reason)) from error


def _expect_whole(database_url: str) -> None:
    """See that a SQLite file's pages belong together. Raises DatabaseDamaged, StoreUnavailable."""
    with closing(Database.open(database_url)) as database:
        found = damage(database)
    if found is not None:
        raise DatabaseDamaged(found)


class _Migration:
    """One database on its way to the latest revision.

    when_current : called while no other process can change the schema, once it is the latest
    """

    def __init__(self, url: str, when_current: Callable[[], None]) -> None:
        self._url = url
        self._when_current = when_current
        self._applied: tuple[str, ...] = ()

    def run(self) -> tuple[str, ...]:
        """Try until the schema is the latest; the revisions that were run here."""
        make_private(self._url)
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            try:
                if self._advance():
                    return self._applied
            except InUse as error:
                if waited > _GRACE_SECONDS:
                    raise self._refusal(error) from error
                time.sleep(random.uniform(_SHORTEST_REST, _LONGEST_REST))
            except StoreUnavailable as error:
                if not _is_locked(error) or waited > _LONGEST_MIGRATION_SECONDS:
                    raise

    def _advance(self) -> bool:
        """Look at the schema while no other process does; whether it is the latest. If not, migrate it."""
        with closing(Database.open(self._url, _SESSION_NAME)) as database, database.write() as connection:
            _wait_for_turn(database, connection)
            found = revisions.read(connection)
            if not found.pending:
                self._when_current()
                return True
            in_nobodys_way = found.empty or revisions.all_side_by_side(found.pending)
            needs_file = database.is_sqlite and not in_nobodys_way
            if not needs_file:
                if not in_nobodys_way:
                    expect_alone(connection, unnamed=found.current is None)
                revisions.upgrade(connection)
        if needs_file:
            with alone_in_sqlite(self._url) as connection:
                # Once more: another process may have migrated it between the two locks.
                found = revisions.read(connection)
                revisions.upgrade(connection)
        self._note(found)
        return False

    def _note(self, found: Revisions) -> None:
        """Keep what was run, which is committed by now."""
        if found.pending and not found.empty:
            logger.info("The database is migrated: revisions %s.", ", ".join(found.pending))
        self._applied += found.pending

    def _refusal(self, reason: InUse) -> SchemaMismatch:
        missing = pending(self._url)
        return SchemaMismatch(
            f"The database lacks the revisions {', '.join(missing)} of this release, and {reason}. "
            "Stop every other process of the service, then run `orfeas migrate` or start again.",
            details={"pending": list(missing)},
        )


def _wait_for_turn(database: Database, connection: Connection) -> None:
    """Wait until no other process looks at the schema or changes it; this transaction may then take its time."""
    if database.is_sqlite:
        return  # the transaction's own lock is the turn
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LONGEST_MIGRATION_SECONDS}s'"))
    database.one_at_a_time(connection, _SCHEMA_LOCK)
    # A table that somebody holds, in psql perhaps, is not to hold up the start for as long.
    connection.execute(text("SET LOCAL lock_timeout = '5s'"))


def _is_locked(error: StoreUnavailable) -> bool:
    """Whether SQLite said that another connection has the lock, for as long as it waits for one."""
    cause = error.__cause__
    return isinstance(cause, exc.DBAPIError) and sqlite_kind(cause) == sqlite3.SQLITE_BUSY
