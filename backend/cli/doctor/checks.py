"""Checks that run side by side, each for a bounded time: what hangs is told of like what fails.

This module does not know what is looked at.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from backend.errors import ServiceError


class WrongError(Exception):
    """What a check found wrong; the message says in a sentence what it is and what to do."""


@dataclass(frozen=True)
class Check:
    """Something to look at.

    look : gives a sentence when all is well, raises WrongError or a ServiceError otherwise
    seconds : how long it may take
    """

    name: str
    look: Callable[[], str]
    seconds: float = 8.0


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    name: str
    ok: bool
    message: str


@dataclass
class _Running:
    check: Check
    began: float = field(default_factory=time.monotonic)
    finding: Finding | None = None

    def start(self) -> threading.Thread:
        # A daemon, so that one that hangs does not keep the process.
        thread = threading.Thread(target=self._look, name=f"doctor-{self.check.name}", daemon=True)
        thread.start()
        return thread

    def _look(self) -> None:
        name = self.check.name
        try:
            self.finding = Finding(name, True, self.check.look())
        except WrongError as wrong:
            self.finding = Finding(name, False, str(wrong))
        except ServiceError as error:
            self.finding = Finding(name, False, error.message)
        except Exception as error:  # noqa: BLE001  # one check that fails must not take the others along
            self.finding = Finding(name, False, f"This could not be looked at: {type(error).__name__}: {error}.")


def examine(checks: Sequence[Check]) -> list[Finding]:
    """Do all checks at once; return their findings in the checks' order, at the latest when the slowest may end."""
    running = [_Running(check) for check in checks]
    threads = [one.start() for one in running]
    for one, thread in zip(running, threads, strict=True):
        thread.join(max(0.0, one.began + one.check.seconds - time.monotonic()))
    return [one.finding or _too_slow(one.check) for one in running]


def _too_slow(check: Check) -> Finding:
    seconds = f"{check.seconds:g} s"
    return Finding(check.name, False, f"There was no answer within {seconds}: see what it waits for, then look again.")
