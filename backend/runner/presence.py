"""A worker's entry in the registry, kept fresh from a thread of its own.

This module does not know what the worker does.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from backend.errors import ServiceError
from backend.jobs.process_marks import mark_of_this_process
from backend.jobs.stage_times import StageTimes
from backend.jobs.worker_registry import WorkerRegistry, WorkerState, WorkerStatus
from backend.periodic import PeriodicTask
from backend.runner.processor_protocol import ShapeProcessor

_log = logging.getLogger(__name__)
BEAT_SECONDS = 2.0
ALIVE_SECONDS = 8.0
"""As long as a worker on another machine is believed to be there after it was killed: three beats may be lost."""


class Presence:
    """Report a worker's status: at once when it changes, and every few seconds."""

    def __init__(self, registry: WorkerRegistry, owner: str, times: StageTimes) -> None:
        self._registry = registry
        self._owner = owner
        self._times = times
        self._process = mark_of_this_process()
        self._status = WorkerStatus.LOADING
        self._error: str | None = None
        self._processor: ShapeProcessor | None = None
        self._beats = PeriodicTask("worker registry", BEAT_SECONDS, self.beat)

    @property
    def status(self) -> WorkerStatus:
        """The status that is reported."""
        return self._status

    def start(self) -> None:
        """Begin to report."""
        self._beats.start()

    def loading(self) -> None:
        """Report that the model is being loaded."""
        self._change(WorkerStatus.LOADING)

    def ready(self, processor: ShapeProcessor) -> None:
        """Report that jobs are taken."""
        self._processor = processor
        self._change(WorkerStatus.READY)

    def failed(self, error: Exception) -> None:
        """Report that no jobs are taken, because of this error."""
        self._processor = None
        known = isinstance(error, ServiceError)
        self._change(WorkerStatus.FAILED, str(error) if known else f"The model failed: {type(error).__name__}.")

    def draining(self) -> None:
        """Report that no new jobs are taken."""
        self._change(WorkerStatus.DRAINING)

    def stop(self) -> None:
        """End the thread and remove the entry."""
        self._beats.stop(ALIVE_SECONDS)
        try:
            self._registry.remove(self._owner)
        except ServiceError as error:  # it ends by itself
            _log.warning("the worker's entry stays until it ends: %s", error)

    def beat(self) -> None:
        """Write the entry. Raises StoreUnavailable, StorageFull, and what a device raises that no longer answers."""
        state = WorkerState(self._owner, self._status, error=self._error, process=self._process)
        processor = self._processor
        if processor is not None:
            device = processor.device_state()
            state = replace(
                state,
                model=processor.name,
                device_type=device.type,
                device_name=device.name,
                memory_total=device.memory_total,
                memory_free=device.memory_free,
                octree_resolution=processor.defaults.octree_resolution,
                takes_views=processor.takes_views,
                compiled=processor.compiled,
                stage_times=self._times.to_json(),
            )
        self._registry.beat(state, ALIVE_SECONDS)

    def _change(self, status: WorkerStatus, error: str | None = None) -> None:
        self._status, self._error = status, error
        self._beats.wake()
