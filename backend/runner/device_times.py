"""How long the device had work, of the time in which there were jobs for it.

This module does not know what the device does, nor who asks for the numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from backend.telemetry.worker_metrics import WorkerMetrics


class DeviceTimes:
    """Count two things for every batch; used by the one thread that runs batches.

    Busy: from an image being prepared until its field is found, so from the first to the last work on the device.
    Wanted: from the batch's lease to its end, and before that for as long as both a job waited and nothing ran.
    """

    def __init__(self, metrics: WorkerMetrics, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Count from here on."""
        self._metrics = metrics
        self._monotonic = monotonic
        self._busy = 0.0
        self._busy_since: float | None = None
        self._free_since = monotonic()

    def now(self) -> float:
        """Return the present, for batch_done."""
        return self._monotonic()

    def ready(self) -> None:
        """Begin to count: before this the device could take no job."""
        self._free_since = self._monotonic()

    def begin(self) -> None:
        """Say that the device has work from now on."""
        if self._busy_since is None:
            self._busy_since = self._monotonic()

    def end(self) -> None:
        """Say that the device has no more work."""
        if self._busy_since is not None:
            self._busy += self._monotonic() - self._busy_since
            self._busy_since = None

    def batch_done(self, begun: float, waited: float) -> None:
        """Count a batch that is over.

        begun : now() before its lease; waited : seconds that its oldest job waited for that
        """
        self.end()
        now = self._monotonic()
        idle = min(max(begun - self._free_since, 0.0), max(waited, 0.0))
        self._metrics.observe_device(self._busy, now - begun + idle)
        self._busy, self._free_since = 0.0, now
