"""Nonces that agents have used, shared by every process on one database.

This module does not know what a signature is or how long a nonce matters.
"""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from backend.auth.clock_jumps import JUMP, SignedAt, forgettable, require_no_jump_back
from backend.errors import AuthUnavailable, StorageFull, StoreUnavailable
from backend.jobs import expiry
from backend.jobs.schema import nonces
from backend.storage.database import Database

# A row of the table that is no agent's: its time is the newest accepted request's.
_NOBODY, _NEWEST = "", "newest"
_STEP = timedelta(seconds=1)
"""How far that time moves at once: written for each request, the one row would be everyone's queue."""

# More than one for each nonce that comes in, so that the table shrinks to what is alive.
_CALLS_PER_PRUNING, _MOST_PRUNED = 4, 16


class SqlNonceStore:
    """Remembers each agent's nonces until they end."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert
        self._calls = itertools.count(1)

    def remember(
        self, agent_id: str, nonce: str, now: datetime, ttl: timedelta, signed: SignedAt | None = None
    ) -> bool:
        """Return whether this agent's nonce is new; up to and including now + ttl it is then not.

        Of any number of callers at once, in any processes, one gets True. Raises AuthExpired as clock_jumps says,
        AuthUnavailable.
        """
        row = self._insert(nonces).values(agent_id=agent_id, nonce=nonce, expires_at=now + ttl)
        statement = self._unless_later(row, now).returning(nonces.c.nonce)
        try:
            with self._database.write() as connection:
                newest = _newest(connection)
                require_no_jump_back(now, newest, signed)
                is_new = connection.execute(statement).one_or_none() is not None
                if is_new and (newest is None or now >= newest + _STEP):
                    self._note_newest(connection, now)
                if next(self._calls) % _CALLS_PER_PRUNING == 0:
                    _prune(connection, now, _MOST_PRUNED)
        except (StoreUnavailable, StorageFull) as error:
            raise AuthUnavailable from error
        return is_new

    def refuse_before(self, time: datetime, tolerance: timedelta) -> None:
        """Refuse requests that were signed before a time, whose nonces were lost: as if the clock had been set back.

        tolerance : how far from the present a request's timestamp may be. Raises StoreUnavailable, StorageFull.
        """
        newest = time + tolerance + JUMP
        with self._database.write() as connection:
            self._note_newest(connection, newest)

    def prune(self, now: datetime, limit: int) -> int:
        """Remove up to limit nonces whose time is over; return how many. Raises StoreUnavailable, StorageFull.

        Remembering does so as well; those of the last requests stay while no more come.
        """
        with self._database.write() as connection:
            return _prune(connection, now, limit)

    def _note_newest(self, connection: Connection, now: datetime) -> None:
        row = self._insert(nonces).values(agent_id=_NOBODY, nonce=_NEWEST, expires_at=now)
        connection.execute(self._unless_later(row, now))

    @staticmethod
    def _unless_later(row: sqlite.Insert | postgresql.Insert, now: datetime) -> sqlite.Insert | postgresql.Insert:
        """Let a row take the place of one that has ended, and leave one that has not."""
        return row.on_conflict_do_update(
            index_elements=[nonces.c.agent_id, nonces.c.nonce],
            set_={"expires_at": row.excluded.expires_at},
            where=nonces.c.expires_at < now,
        )


def _newest(connection: Connection) -> datetime | None:
    """Return when a request was last accepted, to a second; None when none was."""
    query = select(nonces.c.expires_at).where(nonces.c.agent_id == _NOBODY, nonces.c.nonce == _NEWEST)
    found: datetime | None = connection.execute(query).scalar_one_or_none()
    return found


def _prune(connection: Connection, now: datetime, limit: int) -> int:
    newest = _newest(connection)
    if newest is None:
        return 0
    return expiry.prune(connection, nonces, nonces.c.expires_at < forgettable(now, newest), limit)
