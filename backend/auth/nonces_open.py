"""Which store remembers the nonces: NONCE_STORE's word made an object.

This module does not know what a nonce is for.
"""

from __future__ import annotations

from backend.auth.nonces import MemoryNonceStore, NonceStore
from backend.auth.nonces_sql import SqlNonceStore
from backend.config import Settings
from backend.storage.database import Database


def open_nonce_store(settings: Settings, database: Database) -> NonceStore:
    """The store that the settings name; opens no connection yet. Raises ConfigurationError."""
    if settings.nonce_store == "memory":
        return MemoryNonceStore()
    if settings.nonce_store == "database":
        return SqlNonceStore(database)
    from backend.auth.nonces_redis import RedisNonceStore

    return RedisNonceStore(settings.nonce_store)
