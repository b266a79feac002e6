"""What comes very often, reported once and then summed: a flood must not turn a log over.

This module does not know what is counted, or how it is reported.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

MANY = "many"
"""In a sum's place for the address, when so many call that they are not told apart."""

What = TypeVar("What")


@dataclass
class _Sum(Generic[What]):
    """The first of its kind, when its time is over, and how many came after it."""

    first: What
    ends: float
    count: int = 0


class Sums(Generic[What]):
    """Counts by kind; any thread may use it."""

    def __init__(self, seconds: float, most_kinds: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Count nothing yet.

        seconds : from the first of a kind until the next that is reported by itself; monotonic : seconds since any time
        """
        self._seconds = seconds
        self._most_kinds = most_kinds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._sums: dict[Hashable, _Sum[What]] = {}

    def is_first(self, kind: Hashable, what: What, other: What) -> bool:
        """Count one; return whether it is the first of its kind, which is to be reported by itself.

        other : stands for all that are of any further kind once there are as many kinds as may be
        """
        with self._lock:
            if kind not in self._sums and len(self._sums) >= self._most_kinds:
                kind, what = None, other
            found = self._sums.get(kind)
            if found is None:
                self._sums[kind] = _Sum(what, self._monotonic() + self._seconds)
                return True
            found.count += 1
            return False

    def take(self, *, all_of_them: bool = False) -> list[tuple[What, int]]:
        """Return the first of each kind whose time is over, with how many came after it, and begin anew with those.

        Kinds of which only the first came are left out.
        """
        if not self._sums:
            return []
        now = self._monotonic()
        with self._lock:
            over = [kind for kind, found in self._sums.items() if all_of_them or found.ends <= now]
            sums = [self._sums.pop(kind) for kind in over]
        return [(found.first, found.count) for found in sums if found.count]
