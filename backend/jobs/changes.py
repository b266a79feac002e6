"""'Something in the job table has changed': from whoever writes in this process to whoever waits in it.

What other processes write is not heard here. This module does not know what changed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from backend.storage.database import Database


class Changes:
    """A number that grows with every write of this process; any thread may wait for it to grow."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    @property
    def count(self) -> int:
        """How many writes there have been."""
        return self._count

    def note(self) -> None:
        """Take in that something was written, and wake those who wait."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout: float) -> int:
        """Return the count once it is above `seen`, or after timeout seconds as it is."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > seen, timeout)
            return self._count


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
