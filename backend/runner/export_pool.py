"""Threads for what follows a device call, with a bound on how much may wait for them.

This module does not know what the work is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2


class ExportPool:
    """Run functions on threads; whoever submits more than fits waits, so that finished work can't pile up."""

    def __init__(self, threads: int, backlog: int) -> None:
        """Make the pool; its threads start with the first work.

        threads : functions that run at once; backlog : how many may run or wait at most
        """
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="export")
        self._changed = threading.Condition()
        self._backlog = backlog
        self._unfinished = 0
        self._waiting = 0
        self._deferred = 0

    def submit(self, work: Callable[[], None], given_up: Callable[[], bool]) -> None:
        """Run a function soon, with the caller's context variables.

        While the backlog is full this waits, and drops the function once given_up() is true.
        """
        with self._changed:
            while self._unfinished >= self._backlog:
                if given_up():
                    return
                self._changed.wait(_POLL_SECONDS)
            self._unfinished += 1
            self._waiting += 1
        self._executor.submit(copy_context().run, self._run, work)

    def defer(self, work: Callable[[], None]) -> None:
        """Run a function once nothing that was submitted waits for a thread, with the caller's context variables.

        Never waits: when as much is deferred as may be, the function runs at once, on the caller's thread.
        """
        with self._changed:
            full = self._deferred >= self._backlog
            self._deferred += 1
        if full:
            self._run_deferred(work)
        else:
            self._submit_deferred(work, copy_context())

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs or waits; return whether that came to be."""
        with self._changed:
            return self._changed.wait_for(lambda: self._unfinished + self._deferred == 0, timeout)

    def stop(self) -> None:
        """Take no more; what was submitted still runs."""
        self._executor.shutdown(wait=False)

    def _run(self, work: Callable[[], None]) -> None:
        with self._changed:
            self._waiting -= 1
        try:
            work()
        except Exception:  # noqa: BLE001 - the thread's edge
            _log.exception("a finished shape could not be recorded")
        finally:
            with self._changed:
                self._unfinished -= 1
                self._changed.notify_all()

    def _submit_deferred(self, work: Callable[[], None], context: Context) -> None:
        try:
            self._executor.submit(self._give_way, work, context)
        except RuntimeError:  # it is stopping; the work is one that may be left undone
            self._drop_deferred()

    def _give_way(self, work: Callable[[], None], context: Context) -> None:
        """Run deferred work, or put it behind what was submitted since."""
        if self._waiting:
            self._submit_deferred(work, context)
        else:
            context.run(self._run_deferred, work)

    def _run_deferred(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - the thread's edge
            _log.exception("what was to follow a recorded result failed")
        finally:
            self._drop_deferred()

    def _drop_deferred(self) -> None:
        with self._changed:
            self._deferred -= 1
            self._changed.notify_all()
