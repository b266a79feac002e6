"""The code that opens the studio in a browser: 128 bits, good once, for ten minutes, for at most five wrong tries.

The newest is the only one. The database keeps a hash of it, so that whoever reads that cannot use it. This module does
not know what a code is exchanged for.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta

from sqlalchemy import delete, insert, select, update

from backend.errors import StudioCodeInvalid
from backend.jobs.models import Clock
from backend.jobs.schema import studio_codes
from backend.storage.database import Database

LIFETIME = timedelta(minutes=10)
MOST_TRIES = 5

_CODE_BYTES = 16
_LOCK = 0x0F_EA5_013


class StudioCodes:
    """The code of a database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Open the table."""
        self._database = database
        self._clock = clock

    def make(self) -> str:
        """Return a new code; the one before is good no more. Raises StoreUnavailable, StorageFull."""
        code = secrets.token_urlsafe(_CODE_BYTES)
        values = {"code_hash": _hash(code), "created_at": self._clock(), "tries_left": MOST_TRIES}
        with self._database.write(_LOCK) as connection:
            connection.execute(delete(studio_codes))
            connection.execute(insert(studio_codes).values(**values))
        return code

    def redeem(self, code: str) -> None:
        """Use a code up. Raises StudioCodeInvalid, StoreUnavailable."""
        if not self._is_used_up(_hash(code)):
            raise StudioCodeInvalid

    def _is_used_up(self, given: str) -> bool:
        """Use the code of this hash up; return whether it was the right one, in time."""
        with self._database.write(_LOCK) as connection:
            row = connection.execute(select(*studio_codes.c)).first()
            if row is None:
                return False
            is_right = hmac.compare_digest(row.code_hash, given)
            in_time = timedelta(0) <= self._clock() - row.created_at < LIFETIME
            if is_right or not in_time or row.tries_left <= 1:
                connection.execute(delete(studio_codes))
            else:
                connection.execute(update(studio_codes).values(tries_left=row.tries_left - 1))
            return is_right and in_time


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
