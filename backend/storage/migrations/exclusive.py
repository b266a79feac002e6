"""Whether any other process uses a database, and the connection that none can use it beside.

A process that started is seen by its connections: a pool keeps one open from the start to the end. Processes that are
starting are not counted, because they look at the schema only while no other does.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, NullPool, create_engine, event, inspect, make_url, text

from backend.storage.database import SESSION_NAME, translated

_BUSY_SECONDS = 0.2
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
    if not inspect(connection).has_table("workers"):
        return
    worker = connection.execute(_WORKERS, {"now": int(time.time() * _MICROSECONDS)}).scalar_one_or_none()
    if worker is not None:
        raise InUse(f"the worker {worker} was alive a moment ago")


@contextmanager
def alone_in_sqlite(url: str) -> Iterator[Connection]:
    """Give a connection in a transaction, with the file locked against every other connection, reading ones too.

    Raises InUse when there is any, StoreUnavailable and StorageFull.
    """
    path = str(make_url(url).database)
    engine = create_engine("sqlite://", poolclass=NullPool, creator=lambda: _lock_whole_file(path))
    event.listen(engine, "begin", _begin)
    with translated(), engine.connect() as connection, connection.begin():
        yield connection


def _lock_whole_file(path: str) -> sqlite3.Connection:
    # Not through SQLAlchemy: its errors hold on to a cursor, which would keep a part of the lock after the close.
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        # Before the first read: only then does SQLite lock the file itself, of which each connection holds a share.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")  # the lock stays until the close
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise InUse("another process has it open") from None
        raise
    return connection


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
