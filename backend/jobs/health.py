"""The service's state as it was at most a second ago: who can serve, how much waits, what the device has.

Read from the job table and the workers' own reports, never from a device. This module does not know HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from backend.errors import GpuBusy, ServiceError
from backend.jobs.models import QueueCounts
from backend.jobs.store import JobStore
from backend.jobs.worker_registry import WorkerRegistry, WorkerState, WorkerStatus

FRESH_SECONDS = 1.0
_MOMENT_SECONDS = 0.05
_OLD_SECONDS = 5.0


@dataclass(frozen=True)
class Health:
    """The state at one moment; workers : those that are alive, ready ones first; disk_full : whether ours is."""

    counts: QueueCounts
    workers: tuple[WorkerState, ...]
    disk_full: bool = False

    @property
    def ready(self) -> tuple[WorkerState, ...]:
        """The workers that take jobs now."""
        return tuple(state for state in self.workers if state.status is WorkerStatus.READY)

    @property
    def octree_resolution(self) -> int | None:
        """Cells a side that the model is for, as a worker says that takes jobs; None where none does."""
        return next((state.octree_resolution for state in self.ready if state.octree_resolution), None)

    @property
    def takes_views(self) -> bool | None:
        """Whether the model takes several views of an object, as a worker says that is ready; None where none is."""
        return next((state.takes_views for state in self.ready if state.takes_views is not None), None)

    def is_loading(self, *, own_worker: bool) -> bool:
        """Return whether a worker is about to be ready, and none is yet.

        own_worker : this process has a worker, which may not have reported anything so far
        """
        loading = any(state.status is WorkerStatus.LOADING for state in self.workers)
        return not self.ready and (loading or (own_worker and not self.workers))

    def require_worker(self, *, own_worker: bool) -> None:
        """See that somebody is there to run a job, now or in a moment. Raises GpuBusy.

        own_worker : as for is_loading
        """
        if not self.ready and not self.is_loading(own_worker=own_worker):
            raise GpuBusy("No worker is running that could take this job; try again later.")


class HealthReader:
    """Reads the state, for many threads, at most once a second."""

    def __init__(
        self,
        store: JobStore,
        registry: WorkerRegistry,
        monotonic: Callable[[], float] = time.monotonic,
        disk_full: Callable[[], bool] = bool,
    ) -> None:
        """monotonic : seconds since any moment; disk_full : asked at each reading."""
        self._store = store
        self._registry = registry
        self.disk_full = disk_full
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._found: Health | ServiceError | None = None

    def require_worker(self, *, own_worker: bool) -> None:
        """See that somebody is there to run a job, now or in a moment. Raises GpuBusy, StoreUnavailable.

        own_worker : as for Health.is_loading
        """
        try:
            self.read().require_worker(own_worker=own_worker)
        except GpuBusy:
            # One may have come since: nobody is turned away by what was true a second ago.
            self.read_anew().require_worker(own_worker=own_worker)

    def read(self) -> Health:
        """Return the state. Raises StoreUnavailable, also for a second after the store could not be reached.

        While one thread reads, the others get what was found before, unless nobody has asked for a while.
        """
        found, age = self._found, self._monotonic() - self._read_at
        if found is None or age >= FRESH_SECONDS:
            found = self._refresh(FRESH_SECONDS, wait=found is None or age >= _OLD_SECONDS)
        return _raised(found)

    def read_anew(self) -> Health:
        """Return the state as it was a moment ago at most, to refuse a request by. Raises StoreUnavailable."""
        return _raised(self._refresh(_MOMENT_SECONDS, wait=True))

    def _refresh(self, seconds: float, *, wait: bool) -> Health | ServiceError:
        held = self._lock.acquire(blocking=wait)
        try:
            found = self._found
            if found is None or (held and self._monotonic() - self._read_at >= seconds):
                found = self._found = self._query()
                self._read_at = self._monotonic()
            return found
        finally:
            if held:
                self._lock.release()

    def _query(self) -> Health | ServiceError:
        try:
            return Health(self._store.counts(), self._registry.alive(), self.disk_full())
        except ServiceError as error:
            return error


def _raised(found: Health | ServiceError) -> Health:
    if isinstance(found, ServiceError):
        # The same object raised twice would grow a traceback without end.
        raise type(found)(found.message)
    return found
