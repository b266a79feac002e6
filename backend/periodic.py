"""Things that are done again: on a thread every so many seconds, or after a failure until they work.

This module does not know what is done.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from backend.errors import ServiceError

_log = logging.getLogger(__name__)
_Out = TypeVar("_Out")


def utc_now() -> datetime:
    """Return the present by this machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class RetryPolicy:
    """How long to pause between two tries: `first` seconds, then `factor` times the pause before, up to `longest`.

    give_up_after : seconds from the first try after which `run` tries no more
    """

    first: float
    longest: float
    factor: float = 2.0
    give_up_after: float = math.inf

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.longest and self.factor >= 1 and self.give_up_after >= 0):
            raise ValueError("pauses are above 0 and never get shorter")

    def pauses(self) -> Iterator[float]:
        """Yield the seconds before the second try, the third and so on, without end."""
        pause = self.first
        while True:
            yield pause
            pause = min(self.factor * pause, self.longest)

    def run(
        self,
        action: Callable[[], _Out],
        retry_on: type[Exception] | tuple[type[Exception], ...],
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        may_retry: Callable[[Exception], bool] = lambda _error: True,
    ) -> _Out:
        """Return what the action returns, trying again after each of these errors.

        may_retry : asked after each failure whether another try is wanted; clock : seconds since any moment
        Raises the latest error when it is not, or when the time is over.
        """
        until = clock() + self.give_up_after
        pauses = self.pauses()
        while True:
            try:
                return action()
            except retry_on as error:
                if clock() >= until or not may_retry(error):
                    raise
                sleep(next(pauses))


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
