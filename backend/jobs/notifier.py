"""'There is work': the signal from those who submit jobs to the worker who runs them.

A notification says nothing but that; the job table is the truth, and a notification that is lost costs only time. This
module does not know jobs, stores or workers.
"""

from __future__ import annotations

import threading
from typing import Protocol


class Notifier(Protocol):
    """What a submitter needs."""

    def notify(self) -> None:
        """Say that there may be work; returns at once and never raises."""


class LocalNotifier:
    """Notify between the threads of one process: any number notify, one waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._notified = False

    def notify(self) -> None:
        """Say that there may be work; several times before the next wait count as one."""
        with self._changed:
            self._notified = True
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait up to timeout seconds until notified, also since the last wait; return whether that came to be."""
        with self._changed:
            notified = self._changed.wait_for(lambda: self._notified, timeout)
            self._notified = False
        return notified


class NullNotifier:
    """Notify nobody: for a process whose workers poll by themselves."""

    def notify(self) -> None:
        """Do nothing."""


class Notifiers:
    """Several notifiers as one; none at all where workers poll by themselves."""

    def __init__(self, *notifiers: Notifier) -> None:
        self._notifiers = notifiers

    def notify(self) -> None:
        """Say that there may be work, with each."""
        for notifier in self._notifiers:
            notifier.notify()
