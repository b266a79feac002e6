"""Idempotency keys: an agent's name for a request, and the first answer that it got, for 24 hours.

Works inside the caller's transaction, so that a key stays exactly when its jobs do. This module does not know what a
request is for: it compares fingerprints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from backend.errors import IdempotencyConflict, StoreUnavailable
from backend.jobs import expiry
from backend.jobs.models import IdempotencyKey, Submitted
from backend.jobs.schema import idempotency_keys as keys

LIFETIME = timedelta(hours=24)
# More than one for each key that comes in, so that the table shrinks to what is alive.
_PRUNED_PER_CLAIM = 4


def recall(connection: Connection, agent_id: str, idempotency: IdempotencyKey, now: datetime) -> Submitted | None:
    """Return the first answer to this request, None when the key is new or has ended.

    Raises IdempotencyConflict when the key was another request's.
    """
    query = select(keys).where(keys.c.agent_id == agent_id, keys.c.key == idempotency.key, keys.c.expires_at > now)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.fingerprint != idempotency.fingerprint:
        raise IdempotencyConflict
    return Submitted(tuple(row.job_ids.split()), row.batch_id, replayed=True)


def claim(
    connection: Connection, agent_id: str, idempotency: IdempotencyKey, answer: Submitted, now: datetime
) -> Submitted:
    """Keep the answer under the key and return it, or return the one that is there already.

    Of two callers at once, the one keeps its answer and the other gets it.

    Raises IdempotencyConflict when the key was another request's, StoreUnavailable.
    """
    prune(connection, now, _PRUNED_PER_CLAIM)
    upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    values = {
        "fingerprint": idempotency.fingerprint,
        "job_ids": " ".join(answer.job_ids),
        "batch_id": answer.batch_id,
        "expires_at": now + LIFETIME,
    }
    statement = (
        upsert(keys)
        .values(agent_id=agent_id, key=idempotency.key, **values)
        .on_conflict_do_update(
            index_elements=[keys.c.agent_id, keys.c.key], set_=values, where=keys.c.expires_at <= now
        )
        .returning(keys.c.key)
    )
    if connection.execute(statement).one_or_none() is not None:
        return answer
    first = recall(connection, agent_id, idempotency, now)
    if first is None:  # it ended between the two statements; the next try finds a free key
        raise StoreUnavailable
    return first


def prune(connection: Connection, now: datetime, limit: int) -> int:
    """Remove up to limit keys that have ended; return how many it were."""
    return expiry.prune(connection, keys, keys.c.expires_at <= now, limit)


def fingerprint(operation: str, fields: BaseModel, digests: Sequence[str]) -> str:
    """Return a digest of all that makes a request, SHA-256 in hex: the same request in another envelope has the same.

    fields : those that were given count; digests : of the images' bytes as they came, in order, or the job it is about
    """
    given = fields.model_dump(mode="json", by_alias=True, exclude_unset=True)
    parts = [operation, given, list(digests)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
