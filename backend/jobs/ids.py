"""Ids for jobs and batches that sort by age: UUIDs of version 7 (RFC 9562, 6.2 method 1) in 32 hex digits.

One column then serves as key, as order of the queue and as paging cursor. This module does not know what they are the
ids of.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from datetime import datetime

from backend.jobs.models import Clock

_ID = re.compile(r"[0-9a-f]{32}")
_COUNTER_LIMIT = 1 << 12


def is_job_id(text: str) -> bool:
    """Return whether the text has the form of a job's or batch's id."""
    return _ID.fullmatch(text) is not None


def lowest_id(time: datetime) -> str:
    """Return a text that no id made at or after a time is below."""
    return f"{int(time.timestamp() * 1000) << 80:032x}"


class JobIds:
    """Make ids that grow strictly within one process, even while its clock stands still or steps back."""

    def __init__(self, clock: Clock, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._clock = clock
        self._random_bits = random_bits
        self._lock = threading.Lock()
        self._milliseconds = 0
        self._counter = 0

    def __call__(self) -> str:
        """Return the next id."""
        with self._lock:
            self._advance(int(self._clock().timestamp() * 1000))
            time_and_version = self._milliseconds << 80 | 0x7 << 76 | self._counter << 64
        return f"{time_and_version | 0b10 << 62 | self._random_bits(62):032x}"

    def _advance(self, milliseconds: int) -> None:
        if milliseconds > self._milliseconds:
            self._milliseconds, self._counter = milliseconds, 0
            return
        self._counter += 1
        if self._counter == _COUNTER_LIMIT:
            self._milliseconds, self._counter = self._milliseconds + 1, 0
