"""A thread that does one thing again and again, and outlives what goes wrong with it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from backend.errors import ServiceError

_log = logging.getLogger(__name__)


class PeriodicTask:
    """Calls a function every so many seconds on a thread of its own; what it raises is logged once for each change."""

    def __init__(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        self._name = name
        self._seconds = seconds
        self._action = action
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._trouble: str | None = None

    def start(self) -> None:
        """Begins, unless it has begun."""
        with self._lock:
            if self._thread is None:
                self._ending = threading.Event()
                self._thread = threading.Thread(target=self._run, args=[self._ending], name=self._name, daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Has the function called soon, without waiting for its time."""
        self._wake.set()

    def stop(self, timeout: float | None = None) -> None:
        """Ends after the call that is under way, and waits up to timeout seconds for that."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._ending.set()
            self._wake.set()
        if thread is not None:
            thread.join(timeout)

    def _run(self, ending: threading.Event) -> None:
        while not ending.is_set():
            self._wake.clear()
            self._call()
            if not ending.is_set():
                self._wake.wait(self._seconds)

    def _call(self) -> None:
        try:
            self._action()
        except ServiceError as error:
            self._note(error.code, error)
        except Exception as error:  # noqa: BLE001 - the thread's edge
            self._note(type(error).__name__, error)
        else:
            if self._trouble is not None:
                _log.info("%s: works again", self._name)
            self._trouble = None

    def _note(self, trouble: str, error: Exception) -> None:
        if trouble != self._trouble:
            _log.error("%s: %s", self._name, error, exc_info=None if isinstance(error, ServiceError) else error)
        self._trouble = trouble
