"""Migrations of the database: each schema that was ever released becomes the one that this code knows.

A fresh database is made at the latest revision. An older one is migrated while no other process uses it, all revisions
in one transaction: one that fails leaves the schema as it was. There is no way back but a backup. This module does not
know what the tables are for.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, exc, make_url, text

from backend.errors import SchemaMismatch, StoreUnavailable
from backend.storage.database import Database
from backend.storage.migrations import revisions
from backend.storage.migrations.exclusive import InUse, alone_in_sqlite, expect_alone

__all__ = ["migrate", "open_migrated", "pending"]

# The first release took the same lock: the two never make tables at once.
_SCHEMA_LOCK = 0x0F_EA5_001
_SESSION_NAME = "orfeas-migrate"
_LONGEST_MIGRATION_SECONDS = 300
# A process that has just ended may be seen a moment longer, one that starts is there for a moment.
_GRACE_SECONDS = 2.0
_REST_SECONDS = 0.05

logger = logging.getLogger(__name__)


def migrate(database_url: str) -> tuple[str, ...]:
    """Bring a database to the latest revision; the revisions that this call ran, oldest first.

    Any number of processes may call it at once: one works, the others wait.
    Raises SchemaMismatch when another process uses an older database, and for one that a later release made;
    DatabaseUrlError, StoreUnavailable, StorageFull.
    """
    return _Migration(database_url, lambda: None).run()


def open_migrated(database_url: str) -> Database:
    """Bring a database to the latest revision and open it, with one connection to show that it is in use.

    Raises as `migrate`.
    """
    database = Database.open(database_url)
    try:
        _Migration(database_url, database.connect).run()
    except BaseException:
        database.close()
        raise
    return database


def pending(database_url: str) -> tuple[str, ...]:
    """Return the revisions that `migrate` would run, oldest first; changes nothing.

    Raises SchemaMismatch for a database that a later release made, DatabaseUrlError, StoreUnavailable.
    """
    with closing(Database.open(database_url)) as database:
        if database.is_sqlite and not Path(str(make_url(database_url).database)).exists():
            return revisions.every()
        with database.read() as connection:
            return revisions.read(connection).pending


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
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            try:
                if self._advance():
                    return self._applied
            except InUse as error:
                if waited > _GRACE_SECONDS:
                    raise self._refusal(error) from error
                time.sleep(_REST_SECONDS)
            except StoreUnavailable as error:
                if not _is_locked(error) or waited > _LONGEST_MIGRATION_SECONDS:
                    raise

    def _advance(self) -> bool:
        """Look at the schema while no other process does; whether it is the latest. If not, migrate it."""
        with closing(Database.open(self._url, _SESSION_NAME)) as database, database.write() as connection:
            if not database.is_sqlite:
                _be_patient(connection)
            database.one_at_a_time(connection, _SCHEMA_LOCK)
            found = revisions.read(connection)
            if not found.pending:
                self._when_current()
                return True
            if found.empty or not database.is_sqlite:
                if not found.empty:
                    expect_alone(connection, unnamed=found.current is None)
                self._upgrade(connection)
                return False
        with alone_in_sqlite(self._url) as connection:
            self._upgrade(connection)
        return False

    def _upgrade(self, connection: Connection) -> None:
        # Once more: on SQLite the lock was let go of between looking and working.
        found = revisions.read(connection)
        revisions.upgrade(connection)
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


def _be_patient(connection: Connection) -> None:
    """Let this transaction wait for another migration and work for as long as one may take."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LONGEST_MIGRATION_SECONDS}s'"))
    connection.execute(text("SET LOCAL statement_timeout = 0"))


def _is_locked(error: StoreUnavailable) -> bool:
    """Whether SQLite said that another connection has the lock, for as long as it waits for one."""
    cause = error.__cause__
    return isinstance(cause, exc.DBAPIError) and getattr(cause.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY
