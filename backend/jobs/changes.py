"""'Something in the job table has changed': from whoever writes in this process to whoever wants to know.

What other processes write is not heard here. This module does not know what changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from backend.storage.database import Database


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
        finally:
            self._changes.note()
