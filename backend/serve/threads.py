"""Threads for what may take long: begun when there is need, never by who cannot wait, and kept a while for the next.

A thread's start waits until it runs, which takes milliseconds while others compute: the loop that accepts connections
leaves it to a thread that does nothing else. This module does not know what is run.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_IDLE_SECONDS = 10.0
_log = logging.getLogger(__name__)


class SpareThreads:
    """Threads, at most so many at once; `run` and whoever calls it never wait for one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._unfinished = self._idle = self._starting = 0
        self._wanted = threading.Semaphore(0)
        self._starter: threading.Thread | None = None

    def run(self, job: Callable[[], None]) -> bool:
        """Have a job done; return whether there is a thread for it, or soon will be."""
        with self._lock:
            if self._unfinished >= self._most:
                return False
            self._unfinished += 1
            self._jobs.put(job)
            is_short = self._jobs.qsize() > self._idle + self._starting
            self._starting += is_short
            if self._starter is None:
                self._starter = threading.Thread(target=self._start_wanted, name="starter", daemon=True)
                self._starter.start()
        if is_short:
            self._wanted.release()
        return True

    def _start_wanted(self) -> None:
        while True:
            self._wanted.acquire()
            try:
                threading.Thread(target=self._work, name="request", daemon=True).start()
            except RuntimeError:
                # The machine gives no more: those that there are take the job when they are free.
                with self._lock:
                    self._starting -= 1

    def _work(self) -> None:
        with self._lock:
            self._starting -= 1
            self._idle += 1
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._idle -= 1
                        return
                continue
            with self._lock:
                self._idle -= 1
            try:
                job()
            except Exception:  # noqa: BLE001 - the thread's edge
                _log.exception("What was given to a spare thread failed.")
            finally:
                with self._lock:
                    self._idle += 1
                    self._unfinished -= 1
