"""Turns: of many threads that wait for the network or for a job, only a few work at once.

Hundreds of threads cost little while they wait. When all of them are woken at once they would share the interpreter's
lock with every small call: one that has no turn sleeps on until another gives its own up. This module does not know
what the threads do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """So many turns, for any number of threads."""

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Work within the block: it begins when there is a turn for it."""
        with self._free:
            yield

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Wait within the block, which stands inside one of `taken`: another has the turn meanwhile."""
        self._free.release()
        try:
            yield
        finally:
            self._free.acquire()
