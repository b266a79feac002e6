"""Which workers are alive, and with what device and model: a table that each worker writes and everyone may read.

A web process without a device learns from it whether any worker can serve. This module does not know what workers do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from enum import Enum
from typing import Any

from sqlalchemy import RowMapping, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from backend.jobs.models import Clock
from backend.jobs.process_marks import has_ended
from backend.jobs.schema import workers
from backend.storage.database import Database

_REMOVED_AT_ONCE = 16


class WorkerStatus(Enum):
    """Whether a worker takes jobs: loading → ready → draining, or failed."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"


@dataclass(frozen=True)
class WorkerState:
    """What a worker reports of itself.

    owner : the name it leases jobs under; model : the model's name, None before it is loaded
    device_type, device_name : as torch says ("cpu", "cuda"); None before the model is loaded
    memory_total, memory_free : the device's, bytes
    error : why it failed, a sentence for the operator, None unless FAILED
    octree_resolution : cells a side that the model is for, None before it is loaded
    compiled : whether batches run compiled; None before the model is loaded
    stage_times : how long its stages take, as StageTimes.to_json writes it
    process : its mark_of_this_process
    takes_views : whether its model takes several views of an object; None before it is loaded
    """

    owner: str
    status: WorkerStatus
    model: str | None = None
    device_type: str | None = None
    device_name: str | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    error: str | None = None
    compiled: bool | None = None
    stage_times: str | None = None
    process: str | None = None
    octree_resolution: int | None = None
    takes_views: bool | None = None


class WorkerRegistry:
    """The table of workers; each method may raise StoreUnavailable, beat and remove StorageFull."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def beat(self, state: WorkerState, ttl: float) -> None:
        """Keep a worker's state for ttl seconds, in place of its report before; forget dead workers on the way."""
        now = self._clock()
        values = {**_columns_of(state), "expires_at": now + timedelta(seconds=ttl)}
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        statement = insert(workers).values(values)
        with self._database.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=[workers.c.owner], set_=values))
            # Only some at once and none that another worker is removing: two workers must not wait for each other.
            dead = select(workers.c.owner).where(workers.c.expires_at < now).limit(_REMOVED_AT_ONCE)
            # In a CTE: PostgreSQL may run a subquery that locks once a row, and pass the limit.
            picked = dead.with_for_update(skip_locked=True).cte("dead")
            connection.execute(delete(workers).where(workers.c.owner.in_(select(picked.c.owner))))

    def alive(self) -> tuple[WorkerState, ...]:
        """Return the workers whose latest report still holds, those that are ready first, then by owner.

        One of this machine whose process was killed is left out at once, without waiting for its report's end.
        """
        query = select(*workers.c).where(workers.c.expires_at > self._clock())
        with self._database.read() as connection:
            found = [_state_of(row._mapping) for row in connection.execute(query)]
        living = [state for state in found if not has_ended(state.process)]
        return tuple(sorted(living, key=lambda state: (state.status is not WorkerStatus.READY, state.owner)))

    def remove(self, owner: str) -> None:
        """Forget a worker that ended in order; unknown ones are no trouble."""
        with self._database.write() as connection:
            connection.execute(delete(workers).where(workers.c.owner == owner))


def _columns_of(state: WorkerState) -> dict[str, Any]:
    return {**asdict(state), "status": state.status.value}


def _state_of(row: RowMapping) -> WorkerState:
    values = {field.name: row[field.name] for field in fields(WorkerState)}
    return WorkerState(**{**values, "status": WorkerStatus(row["status"])})
