"""How slow the other end of a connection may be: so many bytes in every so many seconds, and all of them by an end.

This module does not know sockets; times are those of time.monotonic.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """A minimum rate, forgiving to who pauses: `step_bytes` more must come in each `step_seconds`.

    start_seconds, bytes_per_second : all of `size` bytes must have come after start + size / bytes_per_second
    """

    step_bytes: int
    step_seconds: float
    start_seconds: float
    bytes_per_second: float


class Pace:
    """Watch one transfer: `note` what was moved; after `expires` it is too slow."""

    def __init__(self, rate: Rate, size: int | None = None) -> None:
        """Begin now; size : bytes in all, None when nobody knows."""
        self._rate = rate
        self._size = size
        self._moved = 0
        self._began = self._step_began = time.monotonic()
        self._step_left = rate.step_bytes

    def note(self, count: int) -> None:
        """Count bytes that were moved."""
        self._moved += count
        self._step_left -= count
        if self._step_left <= 0:
            self._step_left = self._rate.step_bytes
            self._step_began = time.monotonic()

    @property
    def expires(self) -> float:
        """When it is too slow, unless more is moved before."""
        rate = self._rate
        # Who does not say how much there is has as long as for what came so far.
        size = self._moved if self._size is None else self._size
        end = self._began + rate.start_seconds + size / rate.bytes_per_second
        return min(end, self._step_began + rate.step_seconds)

    @property
    def is_over(self) -> bool:
        """Whether it has become too slow."""
        return time.monotonic() > self.expires
