"""Ends this process when a call to the device, or the making of a mesh, does not come back.

What hangs in a driver, perhaps with Python's lock in its hands, can be left only with its process: the jobs it ran
count a death, and another process goes on. This module does not know what is bounded.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """Have the kernel end this process (SIGALRM) when something bounded takes too long; any thread may use it.

    A process has one alarm and so needs one Watchdog. It does nothing until begin().
    """

    def __init__(
        self,
        seconds: float,
        *,
        set_alarm: Callable[[int], object] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set no alarm yet.

        seconds : that anything bounded may take; set_alarm : has the process end after whole seconds, 0: never
        """
        self._seconds = seconds
        self._set_alarm = set_alarm or signal.alarm
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._begun = False
        self._is_last = False
        self._deadlines: dict[object, float] = {}

    def begin(self) -> None:
        """Allow this process to be ended from now on."""
        with self._lock:
            self._begun = True
            if self._deadlines:
                self._arm()

    def deadline(self) -> float:
        """Return when what begins now must have come back; for several blocks that share one time."""
        return self._monotonic() + self._seconds

    @contextmanager
    def bounded(self, deadline: float | None = None) -> Iterator[None]:
        """Bound the block by the watchdog's time, or by a deadline() asked for before; several may go on at once."""
        key = object()
        with self._lock:
            self._deadlines[key] = self.deadline() if deadline is None else deadline
            self._arm()
        try:
            yield
        finally:
            with self._lock:
                del self._deadlines[key]
                self._arm()

    def end_within(self, seconds: float) -> None:
        """End the process after so long, whatever goes on meanwhile, should it not have ended by itself."""
        with self._lock:
            self._is_last = True
            self._set_alarm(_whole(seconds))

    def _arm(self) -> None:
        if not self._begun or self._is_last:
            return
        if self._deadlines:
            self._set_alarm(_whole(min(self._deadlines.values()) - self._monotonic()))
        else:
            self._set_alarm(0)


def _whole(seconds: float) -> int:
    # Zero would mean never.
    return max(1, math.ceil(seconds))
