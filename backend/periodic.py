"""Things that are done again: on a thread every so many seconds, or after a failure until they work.

This module does not know what is done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from backend.errors import ServiceError
from orfeas_client.retries import RetryPolicy

_log = logging.getLogger(__name__)


utc_now: Callable[[], datetime] = partial(datetime.now, UTC)
"""Returns the present by this machine's clock."""


def endless_retries(first_pause: float, longest_pause: float) -> RetryPolicy:
    """Return a policy that never gives up and whose pauses, in seconds, are doubled from the one to the other."""
    return RetryPolicy(retries=None, first_pause=first_pause, longest_pause=longest_pause, jitter=0.0)


class PeriodicTask:
    """Call a function every so many seconds on a thread of its own, whatever it raises.

    A failure is logged when it is another than the time before, and so is its end.
    """

    def __init__(self, name: str, seconds: float, action: Callable[[], bool | None]) -> None:
        """Keep what is to be done; `start` begins it.

        name : of the thread, and of the task in the log
        action : returns True when it left work that should not wait for the next time
        """
        self._name = name
        self._seconds = seconds
        self._action = action
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._trouble: str | None = None

    def start(self) -> None:
        """Begin, unless it has begun."""
        with self._lock:
            if self._thread is None:
                self._ending = threading.Event()
                self._thread = threading.Thread(target=self._run, args=[self._ending], name=self._name, daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Have the function called soon, without waiting for its time."""
        self._wake.set()

    def stop(self, timeout: float | None = None) -> None:
        """End after the call that is under way, and wait up to timeout seconds for that."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._ending.set()
            self._wake.set()
        if thread is not None:
            thread.join(timeout)

    def _run(self, ending: threading.Event) -> None:
        while not ending.is_set():
            self._wake.clear()
            more = self._call()
            if not more and not ending.is_set():
                self._wake.wait(self._seconds)

    def _call(self) -> bool:
        try:
            more = self._action()
        except ServiceError as error:
            self._note(error.code, error)
        except Exception as error:  # noqa: BLE001 - the thread's edge
            self._note(type(error).__name__, error)
        else:
            if self._trouble is not None:
                _log.info("%s: works again", self._name)
            self._trouble = None
            return bool(more)
        return False

    def _note(self, trouble: str, error: Exception) -> None:
        if trouble != self._trouble:
            _log.error("%s: %s", self._name, error, exc_info=None if isinstance(error, ServiceError) else error)
        self._trouble = trouble
