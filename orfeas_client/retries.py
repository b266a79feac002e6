"""Trying again, with pauses that grow and differ by chance: the one back-off of client and service.

Nothing but the standard library. This module does not know what is tried.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

_Result = TypeVar("_Result")


class PassingFailure(Exception):
    """A try failed in a way that may pass.

    error : what to raise when it does not; retry_after : seconds to wait at least, None when nobody asked for any
    """

    def __init__(self, error: Exception, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


@dataclass(frozen=True)
class RetryPolicy:
    """How long to keep trying.

    sleep : waits so many seconds; an Event's `wait` lets a loop be ended early
    retries : tries after the first, None = without end
    first_pause, longest_pause : seconds; each pause is `factor` times the one before
    jitter : 0–1, the part of a pause that chance may take away, so that many callers do not come back at once
    longest_asked : seconds; a failure that asks for a longer wait is final
    outage_seconds : seconds that failures may follow one another, tries and pauses together; None = without end
    on_retry : called with what failed and the seconds until the next try
    """

    sleep: Callable[[float], object] = time.sleep
    retries: int | None = 5
    first_pause: float = 0.5
    longest_pause: float = 30.0
    chance: Callable[[], float] = random.random
    on_retry: Callable[[str, float], None] | None = None
    factor: float = 2.0
    jitter: float = 0.5
    longest_asked: float = 120.0
    outage_seconds: float | None = None

    def persist(
        self,
        attempt: Callable[[], _Result],
        passing: type[Exception] | tuple[type[Exception], ...] = PassingFailure,
        may_retry: Callable[[], bool] = lambda: True,
    ) -> _Result:
        """Return what the first try gives that does not fail in passing.

        passing : the failures after which another try may help; may_retry : asked then whether one is wanted
        Raises what the last try met; of a PassingFailure, its error.
        """
        spent = 0.0
        for failures in itertools.count():
            begun = time.monotonic()
            try:
                return attempt()
            except passing as failure:
                error, asked = _evidence(failure)
                pause = self.pause(failures, asked)
                spent += time.monotonic() - begun + pause
                lasts = self.outage_seconds is not None and spent > self.outage_seconds
                if lasts or not (self._goes_on(failures, asked) and may_retry()):
                    raise error from failure.__cause__
                if self.on_retry:
                    self.on_retry(str(error), pause)
                self.sleep(pause)
        raise AssertionError("counting never ends")

    def pauses(self) -> Iterator[float]:
        """Yield the seconds to wait after each failure, for a loop that does its own waiting."""
        for failures in itertools.count() if self.retries is None else range(self.retries):
            yield self.pause(failures)

    def pause(self, failures: int, asked: float | None = None) -> float:
        """Return the seconds to wait after a failure.

        failures : how many there were before it; asked : the least that the other side asked for, never shortened
        """
        # A float's exponent ends at 1024; the pause has long reached its bound by then.
        grown = self.first_pause * self.factor ** min(failures, 64)
        pause = min(grown, self.longest_pause) * (1 - self.chance() * self.jitter)
        return pause if asked is None else asked + min(pause, 1.0)

    def _goes_on(self, failures: int, asked: float | None) -> bool:
        return (self.retries is None or failures < self.retries) and (asked or 0) <= self.longest_asked


def _evidence(failure: Exception) -> tuple[Exception, float | None]:
    return (failure.error, failure.retry_after) if isinstance(failure, PassingFailure) else (failure, None)
