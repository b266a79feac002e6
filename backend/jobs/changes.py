"""'Something in the job table has changed': from whoever writes in this process to whoever wants to know.

What other processes write is heard where the database tells of it (storage/wakeups.py). This module does not know what
changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, func, select

from backend.storage.database import Database
from backend.storage.wakeups import CHANNEL


class Changes:
    """A number that grows with every write of this process, and those who are told of each; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._listeners: list[Callable[[], None]] = []

    @property
    def count(self) -> int:
        """How many writes there have been."""
        return self._count

    def listen(self, then: Callable[[], None]) -> None:
        """Call this after every write from now on, on the thread that wrote: it must return at once, and not raise."""
        self._listeners.append(then)

    def hear(self) -> None:
        """Take in that another process may have written something."""
        for then in self._listeners:
            then()

    def note(self) -> None:
        """Take in that something may have been written."""
        with self._lock:
            self._count += 1
        for then in self._listeners:
            then()


class NotingDatabase:
    """A database whose writes are noted; for one table's keeper, so that other tables' writes are not."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._changes = changes
        self.read = database.read

    @contextmanager
    def write(self, lock: int | None = None) -> Iterator[Connection]:
        """Do as Database.write does, and note a transaction that may have been kept."""
        try:
            with self._database.write(lock) as connection:
                yield connection
                if not self._database.is_sqlite:
                    # Heard when the transaction is kept, by whoever listens on any machine.
                    connection.execute(select(func.pg_notify(CHANNEL, "")))
        finally:
            self._changes.note()
