"""Whether any other process uses a database, and the connection that none can use it beside.

A process that started is seen by its connections: a pool keeps one open from the start to the end. Processes that are
starting are not counted, because they look at the schema only while no other does.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, NullPool, create_engine, event, exc, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection

from backend.storage.database import SESSION_NAME, translated

_BUSY_MILLISECONDS = 200
_MICROSECONDS = 1_000_000

# Sessions of the first release have no name.
_SESSIONS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    " AND (application_name = :name OR :unnamed AND application_name = '')"
)
# A worker that the network keeps from the server for a moment has no session, but its entry is still good.
_WORKERS = text("SELECT owner FROM workers WHERE expires_at > :now ORDER BY owner LIMIT 1")


class InUse(Exception):
    """Another process uses the database; the text says who."""


def expect_alone(connection: Connection, *, unnamed: bool) -> None:
    """Raise InUse while another process has a session on this PostgreSQL database, or a worker's entry is good.

    unnamed : whether sessions without a name are counted, too
    """
    sessions = connection.execute(_SESSIONS, {"name": SESSION_NAME, "unnamed": unnamed}).scalar_one()
    if sessions:
        raise InUse(f"{sessions} sessions of other processes are open")
    worker = connection.execute(_WORKERS, {"now": int(time.time() * _MICROSECONDS)}).scalar_one_or_none()
    if worker is not None:
        raise InUse(f"the worker {worker} was alive a moment ago")


@contextmanager
def alone_in_sqlite(url: str) -> Iterator[Connection]:
    """Give a connection in a transaction, with the file locked against every other connection, reading ones too.

    Raises InUse when there is any, StoreUnavailable and StorageFull.
    """
    engine = create_engine(make_url(url), poolclass=NullPool)
    event.listen(engine, "connect", _lock_whole_file)
    event.listen(engine, "begin", _begin)
    with translated(), engine.connect() as connection:
        try:
            connection.begin()
        except exc.OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise InUse("another process has it open") from error
            raise
        yield connection
        connection.commit()


def _lock_whole_file(connection: DBAPIConnection, _record: object) -> None:
    assert isinstance(connection, sqlite3.Connection)  # noqa: S101
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    # Before the first read: only then does SQLite lock the file itself, which each connection to it holds a share of.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
