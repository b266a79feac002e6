"""When the stages of a run began and ended, by the wall clock, for its trace.

Stages of the device report when a part of them is done, those after it when they begin. This module does not know what
the stages are.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from backend.telemetry.tracing import Stage


class StageClock:
    """The stages of one run, in their order; the caller sees to it that one thread calls at a time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Begin now; clock : gives seconds since 1970."""
        self._clock = clock
        self.begun = self._latest = clock()
        self._stages: dict[str, tuple[float, float]] = {}
        self._goes_on: str | None = None

    def note(self, stage: str, done: int) -> None:
        """Take in that a stage begins (done = 0), or how much of it is done: it began where the one before ended."""
        now = self._clock()
        if stage in self._stages:
            self._stages[stage] = (self._stages[stage][0], now)
        else:
            if done == 0:
                self._end(now)
            self._stages[stage] = (now if done == 0 else self._latest, now)
        self._goes_on, self._latest = stage, now

    def pause(self) -> None:
        """Take in that the stage at hand is over, and nothing goes on until the next one begins."""
        self._end(self._clock())
        self._goes_on = None

    def stages(self, ended: float) -> tuple[Stage, ...]:
        """Return them all, of a run that ended then."""
        self._end(ended)
        return tuple(Stage(name, begun, until) for name, (begun, until) in self._stages.items())

    def now(self) -> float:
        """Return the present."""
        return self._clock()

    def _end(self, now: float) -> None:
        if self._goes_on is not None:
            self._stages[self._goes_on] = (self._stages[self._goes_on][0], now)
