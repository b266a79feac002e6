"""The database that all stores share: how it is opened, read and written, on SQLite or PostgreSQL.

Whatever keeps the database from answering comes out as StoreUnavailable, a damaged file as its kind DatabaseDamaged, a
full disk as StorageFull. This module does not know which tables there are.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, func, make_url, select
from sqlalchemy.engine.interfaces import DBAPIConnection

from backend.errors import DatabaseDamaged, DatabaseUrlError, ServiceError, StorageFull, StoreUnavailable

_POOL_SIZE = 32
# A PostgreSQL server lets 100 connections in by default, for all processes together: threads take turns instead.
_POSTGRES_POOL_SIZE = 4
_POSTGRES_MORE_AT_ONCE = 4
_BUSY_MILLISECONDS = 10_000
_POOL_SECONDS = 5
_POSTGRES_DISK_FULL = "53100"
SESSION_NAME = "orfeas"
_POSTGRES_OPTIONS = "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=30s"


class Database:
    """Connections to one database, shared by the threads of one process; open it after a fork, not before."""

    def __init__(self, engine: Engine) -> None:
        self._reader = engine
        self._writer = engine.execution_options(immediate=True)
        # SQLite lets waiting writers sleep and try again; within a process they queue up.
        self._turn = _WritersQueue() if self.is_sqlite else None

    @classmethod
    def open(cls, url: str, session_name: str = SESSION_NAME) -> Database:
        """Open `sqlite:///PATH` (its folder is made) or `postgresql://USER:PASSWORD@HOST/NAME`; connects later.

        session_name : how a server lists the connections. Raises DatabaseUrlError.
        """
        try:
            parsed = make_url(url)
        except exc.ArgumentError as error:
            raise DatabaseUrlError from error
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return cls(_sqlite_engine(parsed))
        if backend in ("postgresql", "postgres"):
            return cls(_postgres_engine(parsed, session_name))
        raise DatabaseUrlError

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite, where one writer at a time works."""
        return self._reader.dialect.name == "sqlite"

    def connect(self) -> None:
        """Make a connection now; from here on at least one is open. Raises StoreUnavailable."""
        with self.read() as connection:
            connection.execute(select(1))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a transaction that only reads. Raises StoreUnavailable."""
        with translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self, lock: int | None = None) -> Iterator[Connection]:
        """Begin a transaction that writes: all of it stays when the block ends, nothing when it raises; never nested.

        lock : as for `one_at_a_time`, which is called first
        Raises StorageFull and StoreUnavailable; after the latter it is unknown whether it stayed when the connection
        broke at the very end.
        """
        with self._turn or nullcontext(), translated(), self._writer.begin() as connection:
            if lock is not None:
                self.one_at_a_time(connection, lock)
            yield connection

    def one_at_a_time(self, connection: Connection, lock: int) -> None:
        """Let no other transaction pass this line with the same number until this one ends."""
        if not self.is_sqlite:  # there BEGIN IMMEDIATE has done it
            connection.execute(select(func.pg_advisory_xact_lock(lock)))

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._reader.dispose()


class _WritersQueue:
    """A lock that is handed to who has waited longest: a plain one may go to others again and again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False


@contextmanager
def translated() -> Iterator[None]:
    """Raise StoreUnavailable and StorageFull in place of the driver's errors."""
    try:
        yield
    except exc.TimeoutError as error:  # every connection of the pool is busy
        raise StoreUnavailable from error
    except exc.DBAPIError as error:
        known = _named(error)
        if known is None:
            raise
        raise known from error


def _named(error: exc.DBAPIError) -> ServiceError | None:
    """Return the ServiceError for a failure; None for one that would be the same on every try."""
    kind = sqlite_kind(error)
    if kind == sqlite3.SQLITE_FULL:
        return StorageFull()
    if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DatabaseDamaged()
    if getattr(error.orig, "sqlstate", None) == _POSTGRES_DISK_FULL:
        return StorageFull()
    if error.connection_invalidated or isinstance(error, exc.OperationalError | exc.InterfaceError):
        return StoreUnavailable()
    return None


def sqlite_kind(error: exc.DBAPIError) -> int:
    """Return which kind of failure SQLite reported, as sqlite3 names them; 0 when it was another database's."""
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    # The lowest byte of a longer code, which says more, is its kind.
    return code & 0xFF


def _sqlite_engine(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise DatabaseUrlError("DATABASE_URL must name a file: each connection to :memory: would have its own tables.")
    path = Path(str(url.database)).absolute()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(url, pool_size=_POOL_SIZE, pool_timeout=_POOL_SECONDS)
    event.listen(engine, "do_connect", lambda *_: _create_private(path))
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _create_private(path: Path) -> None:
    """Make the file, before SQLite makes one that others may read; its log and index get the same mode."""
    # Whatever else is wrong with the place, SQLite says.
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def make_private(url: str) -> None:
    """Take a SQLite file of ours, which an earlier release may have made, out of others' reach."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return
    for suffix in ("", "-wal", "-shm"):
        path = Path(f"{parsed.database}{suffix}")
        with suppress(OSError):  # it is not there, or not ours
            mode = path.stat().st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                path.chmod(mode & 0o700)


def damage(database: Database) -> str | None:
    """Return what SQLite finds wrong with the file's structure; None where there is nothing, or another server.

    Raises DatabaseDamaged when it cannot be looked at, StoreUnavailable.
    """
    if not database.is_sqlite:
        return None
    with database.read() as connection:
        found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
    return None if found == "ok" else found


def _prepare_sqlite(connection: DBAPIConnection, _record: object) -> None:
    assert isinstance(connection, sqlite3.Connection)  # noqa: S101
    connection.isolation_level = None  # _begin_sqlite begins; the driver's own BEGIN comes too late to lock
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # an accepted job survives a power cut, too
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _postgres_engine(url: URL, session_name: str) -> Engine:
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=_POSTGRES_POOL_SIZE,
            max_overflow=_POSTGRES_MORE_AT_ONCE,
            pool_timeout=_POOL_SECONDS,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 5, "options": _POSTGRES_OPTIONS, "application_name": session_name},
        )
    except ImportError as error:
        raise DatabaseUrlError(
            "DATABASE_URL names PostgreSQL; install its driver: pip install 'psycopg[binary]'"
        ) from error
