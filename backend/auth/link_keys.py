"""The keys that links to files are signed with, shared by every process on one database, in two generations.

The newest signs, both are accepted: a link that was made just before a rotation is good until its time is over. This
module does not know what a link is.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, Row, delete, func, insert, select

from backend.jobs.models import Clock
from backend.jobs.schema import link_keys
from backend.storage.database import Database

GENERATIONS = 2

_KEY_BYTES = 32
_KEPT_SECONDS = 1.0
"""How long a process signs with the key that it read, whatever becomes of that."""
_LOCK = 0x0F_EA5_003


class LinkKeys(Protocol):
    """Keys as lower-case hex, of which at most GENERATIONS are accepted."""

    def newest(self) -> str:
        """Return the key that signs, made now if there is none. Raises StoreUnavailable, StorageFull."""
        ...

    def accepted(self) -> tuple[str, ...]:
        """Return the keys whose signatures count, newest first. Raises StoreUnavailable."""
        ...


class SqlLinkKeys:
    """The keys of a database."""

    def __init__(self, database: Database, clock: Clock, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Open the table of keys; monotonic : seconds since any moment."""
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._read: tuple[str, float] | None = None

    def newest(self) -> str:
        """As LinkKeys says; one that was read within the last second is not read again."""
        now, read = self._monotonic(), self._read
        if read is None or not 0 <= now - read[1] < _KEPT_SECONDS:
            key = next(iter(self.accepted()), None) or self._make_first()
            self._read = read = (key, now)
        return read[0]

    def accepted(self) -> tuple[str, ...]:
        """As LinkKeys says; read anew each time, since another process may have rotated them."""
        with self._database.read() as connection:
            return tuple(row.key for row in _newest_rows(connection))

    def rotate(self) -> datetime | None:
        """Make a new key, with which links are signed from now on; return when the one before was made, if any.

        That one stays accepted, those before it do not. Raises StoreUnavailable, StorageFull.
        """
        with self._database.write(_LOCK) as connection:
            before = _newest_rows(connection)[:1]
            self._add(connection, before[0].generation + 1 if before else 1)
            if before:
                connection.execute(delete(link_keys).where(link_keys.c.generation < before[0].generation))
        self._read = None
        return before[0].created_at if before else None

    def _make_first(self) -> str:
        """Make the first key, unless another process was faster; return the one that is there then."""
        with self._database.write(_LOCK) as connection:
            if not connection.execute(select(func.count()).select_from(link_keys)).scalar_one():
                self._add(connection, 1)
            return str(_newest_rows(connection)[0].key)

    def _add(self, connection: Connection, generation: int) -> None:
        values = {"generation": generation, "key": secrets.token_hex(_KEY_BYTES), "created_at": self._clock()}
        connection.execute(insert(link_keys).values(**values))


def _newest_rows(connection: Connection) -> list[Row[Any]]:
    query = select(*link_keys.c).order_by(link_keys.c.generation.desc()).limit(GENERATIONS)
    return list(connection.execute(query))
