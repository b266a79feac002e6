"""Nonces that agents have used, shared by every process on one database.

This module does not know what a signature is or how long a nonce matters.
"""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from backend.errors import AuthUnavailable, StorageFull, StoreUnavailable
from backend.jobs import expiry
from backend.jobs.schema import nonces
from backend.storage.database import Database

# More than one for each nonce that comes in, so that the table shrinks to what is alive.
_CALLS_PER_PRUNING, _MOST_PRUNED = 4, 16


class SqlNonceStore:
    """Remembers each agent's nonces until they end."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert
        self._calls = itertools.count(1)

    def remember(self, agent_id: str, nonce: str, now: datetime, ttl: timedelta) -> bool:
        """Return whether this agent's nonce is new; up to and including now + ttl it is then not.

        Of any number of callers at once, in any processes, one gets True. Raises AuthUnavailable.
        """
        row = self._insert(nonces).values(agent_id=agent_id, nonce=nonce, expires_at=now + ttl)
        statement = row.on_conflict_do_update(
            index_elements=[nonces.c.agent_id, nonces.c.nonce],
            set_={"expires_at": row.excluded.expires_at},
            where=nonces.c.expires_at < now,
        ).returning(nonces.c.nonce)
        try:
            with self._database.write() as connection:
                is_new = connection.execute(statement).one_or_none() is not None
                if next(self._calls) % _CALLS_PER_PRUNING == 0:
                    _prune(connection, now, _MOST_PRUNED)
        except (StoreUnavailable, StorageFull) as error:
            raise AuthUnavailable from error
        return is_new

    def prune(self, now: datetime, limit: int) -> int:
        """Remove up to limit nonces whose time is over; return how many. Raises StoreUnavailable, StorageFull.

        Remembering does so as well; this empties the table when no more requests come.
        """
        with self._database.write() as connection:
            return _prune(connection, now, limit)


def _prune(connection: Connection, now: datetime, limit: int) -> int:
    return expiry.prune(connection, nonces, nonces.c.expires_at < now, limit)
