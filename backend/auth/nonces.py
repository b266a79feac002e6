"""Which nonces were used: what the guard asks of a store, the store that lives in one process, and which one to open.

The job database and Redis have stores of their own that keep the same promise. This module does not know who signed a
request or why a nonce matters.
"""

from __future__ import annotations

import heapq
import threading
from datetime import datetime, timedelta
from typing import Protocol

from backend.auth.nonces_sql import SqlNonceStore
from backend.config import Settings
from backend.storage.database import Database


class NonceStore(Protocol):
    """Remembers nonces, for all processes that share it."""

    def remember(self, agent_id: str, nonce: str, now: datetime, ttl: timedelta) -> bool:
        """Note that an agent used a nonce; False when it is already noted and its time is not over.

        now : aware; a nonce noted at t counts as used up to and including t + ttl.
        Of several calls at once with the same nonce, in any process, exactly one gives True.
        Raises AuthUnavailable when the store cannot be reached.
        """
        ...


class MemoryNonceStore:
    """Nonces of one process, forgotten when it ends: for tests and for trying things out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: set[tuple[str, str]] = set()
        self._ends: list[tuple[datetime, tuple[str, str]]] = []

    def remember(self, agent_id: str, nonce: str, now: datetime, ttl: timedelta) -> bool:
        """Note a nonce, as NonceStore says."""
        key = (agent_id, nonce)
        with self._lock:
            while self._ends and self._ends[0][0] < now:
                self._used.discard(heapq.heappop(self._ends)[1])
            if key in self._used:
                return False
            self._used.add(key)
            heapq.heappush(self._ends, (now + ttl, key))
            return True

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
