"""Which nonces were used: what the guard asks of a store, the store that lives in one process, and which one to open.

The job database and Redis have stores of their own that keep the same promise. This module does not know who signed a
request or why a nonce matters.
"""

from __future__ import annotations

import heapq
import threading
from datetime import datetime, timedelta
from typing import Protocol

from backend.auth.clock_jumps import SignedAt, forgettable, require_no_jump_back
from backend.auth.nonces_sql import SqlNonceStore
from backend.config import Settings
from backend.storage.database import Database


class NonceStore(Protocol):
    """Remembers nonces, for all processes that share it."""

    def remember(
        self, agent_id: str, nonce: str, now: datetime, ttl: timedelta, signed: SignedAt | None = None
    ) -> bool:
        """Note that an agent used a nonce; False when it is already noted and its time is not over.

        now : aware; a nonce noted at t counts as used up to and including t + ttl.
        Of several calls at once with the same nonce, in any process, exactly one gives True.
        Raises AuthExpired as clock_jumps says, AuthUnavailable when the store cannot be reached.
        """
        ...


class MemoryNonceStore:
    """Nonces of one process, forgotten when it ends: for tests and for trying things out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[tuple[str, str], datetime] = {}
        self._ends: list[tuple[datetime, tuple[str, str]]] = []
        self._newest: datetime | None = None

    def remember(
        self, agent_id: str, nonce: str, now: datetime, ttl: timedelta, signed: SignedAt | None = None
    ) -> bool:
        """Note a nonce, as NonceStore says."""
        key = (agent_id, nonce)
        with self._lock:
            require_no_jump_back(now, self._newest, signed)
            if key in self._used and self._used[key] >= now:
                return False
            self._used[key] = now + ttl
            heapq.heappush(self._ends, (now + ttl, key))
            self._newest = max(now, self._newest or now)
            self._forget(forgettable(now, self._newest))
            return True

    def _forget(self, before: datetime) -> None:
        while self._ends and self._ends[0][0] < before:
            end, key = heapq.heappop(self._ends)
            # One that was used again since ends later.
            if self._used.get(key) == end:
                del self._used[key]

    def __len__(self) -> int:
        """Return how many nonces are held."""
        return len(self._used)


def open_nonce_store(settings: Settings, database: Database) -> NonceStore:
    """Return the store that NONCE_STORE names; it opens no connection yet. Raises ConfigurationError."""
    if settings.nonce_store == "memory":
        return MemoryNonceStore()
    if settings.nonce_store == "database":
        return SqlNonceStore(database)
    from backend.auth.nonces_redis import RedisNonceStore

    return RedisNonceStore(settings.nonce_store)
