"""'There is work': the signal from those who submit jobs to the worker who runs them.

A ring says nothing but that; the job table is the truth, and a ring that is lost costs only time. This module does not
know jobs, stores or workers.
"""

from __future__ import annotations

import threading
from typing import Protocol


class Notifier(Protocol):
    """What a submitter needs."""

    def notify(self) -> None:
        """Says that there may be work; returns at once and never raises."""


class LocalNotifier:
    """A bell between the threads of one process: any number ring, one waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rung = False

    def notify(self) -> None:
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


class NullNotifier:
    """Rings nowhere: for a process whose workers look by themselves."""

    def notify(self) -> None:
        """Does nothing."""


class Notifiers:
    """Several bells, rung together; none at all where workers look by themselves."""

    def __init__(self, *notifiers: Notifier) -> None:
        self._notifiers = notifiers

    def notify(self) -> None:
        """Says that there may be work, at each."""
        for notifier in self._notifiers:
            notifier.notify()
