"""'There is work': the signal from those who submit jobs to the worker who runs them.

A ring says nothing but that; the job table is the truth, and a ring that is lost costs only time. This module does not
know jobs, stores or workers.
"""

from __future__ import annotations

import threading
from typing import Protocol


class Doorbell(Protocol):
    """What a submitter needs."""

    def ring(self) -> None:
        """Says that there may be work; returns at once and never raises."""


class LocalDoorbell:
    """A bell between the threads of one process: any number ring, one waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rung = False

    def ring(self) -> None:
        """Says that there may be work; rings before the next wait count as one."""
        with self._changed:
            self._rung = True
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Waits up to timeout seconds for a ring, also one since the last wait; says whether there was one."""
        with self._changed:
            rung = self._changed.wait_for(lambda: self._rung, timeout)
            self._rung = False
        return rung


class SilentDoorbell:
    """Rings nowhere: for a process whose workers look by themselves."""

    def ring(self) -> None:
        """Does nothing."""


class Doorbells:
    """Several bells, rung together; none at all where workers look by themselves."""

    def __init__(self, *bells: Doorbell) -> None:
        self._bells = bells

    def ring(self) -> None:
        """Says that there may be work, at each."""
        for bell in self._bells:
            bell.ring()
