"""Waiting for jobs to change: any number of waiters, and one thread that asks the job table for all of them.

It asks at once when this process wrote something, and every half second for what other processes write. This module
does not know who waits, or what is answered then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backend.errors import ServiceError
from backend.jobs.changes import Changes
from backend.jobs.models import Job, JobState
from backend.jobs.store import JobStore

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_LEAST_SECONDS = 0.05
_IDLE_SECONDS = 30.0
"""After so long without a waiter the thread ends; the next one begins another."""

_STOP_SECONDS = 5.0
"""How long stopping waits for a look at the store that is under way."""


@dataclass(eq=False)
class _Waiter:
    """Who waits for which jobs, as they were seen.

    calm_until : until then, by the monotonic clock, only a change of status counts, and not every step
    wake : tells whoever waits; called on the watch's thread, again and again while the change is not taken in
    """

    seen: Mapping[str, JobState]
    calm_until: float
    wake: Callable[[], None]

    def is_met(self, now: Mapping[str, JobState], moment: float) -> bool:
        """Return whether what is known now is worth an answer."""
        for job_id, before in self.seen.items():
            state = now.get(job_id)
            if state is None or (state.status, state.cancel_requested) != (before.status, before.cancel_requested):
                return True
            if state != before and moment >= self.calm_until:
                return True
        return False


class Follower:
    """Follows some jobs until it ends; any thread may use it."""

    def __init__(self, watch: JobWatch, waiter: _Waiter) -> None:
        self._watch = watch
        self._waiter = waiter

    def note(self, jobs: Sequence[Job], calm_seconds: float) -> None:
        """Take in how the jobs are now: only what is otherwise from here on is worth waking for.

        calm_seconds : for so long a change of progress or step alone is not
        """
        self._watch.note(self._waiter, jobs, calm_seconds)

    def end(self) -> None:
        """Follow no more."""
        self._watch.forget(self._waiter)


class JobWatch:
    """Wakes those who wait for jobs of one store; any thread may wait."""

    def __init__(
        self,
        store: JobStore,
        changes: Changes,
        *,
        poll_seconds: float = _POLL_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin no thread yet. changes : hears of the store's writes."""
        self._store = store
        self._due = threading.Event()
        changes.listen(self._due.set)
        self._poll_seconds = poll_seconds
        self._monotonic = monotonic
        self._lock = threading.Condition()
        self._waiters: set[_Waiter] = set()
        self._thread: threading.Thread | None = None
        self._is_away = False
        self._is_stopping = False

    def wait(self, jobs: Sequence[Job], seconds: float, calm_seconds: float = 0.0) -> bool:
        """Wait until one of some jobs is other than given here, or is gone; return whether that came to be in time.

        seconds : at the latest; calm_seconds : for so long a change of progress or step alone is not worth an answer
        Returns at once when the service stops.
        """
        woken = threading.Event()
        waiter = _Waiter({job.id: JobState.of(job) for job in jobs}, self._monotonic() + calm_seconds, woken.set)
        if not self._begin(waiter):
            return False
        try:
            return woken.wait(seconds) and not self._is_stopping
        finally:
            self.forget(waiter)

    def follow(self, jobs: Sequence[Job], wake: Callable[[], None]) -> Follower:
        """Call `wake` whenever one of some jobs is other than given here or noted since, or is gone.

        wake : must return at once, and not raise; it is called once more when the service stops
        """
        waiter = _Waiter({job.id: JobState.of(job) for job in jobs}, 0.0, wake)
        if not self._begin(waiter):
            wake()
        return Follower(self, waiter)

    def note(self, waiter: _Waiter, jobs: Sequence[Job], calm_seconds: float) -> None:
        """Do as Follower.note does."""
        seen, calm_until = {job.id: JobState.of(job) for job in jobs}, self._monotonic() + calm_seconds
        with self._lock:
            waiter.seen, waiter.calm_until = seen, calm_until
        # What happened since the caller read them may have been looked for before.
        self._due.set()

    def forget(self, waiter: _Waiter) -> None:
        """Look no more for one that waited."""
        with self._lock:
            self._waiters.discard(waiter)

    def _begin(self, waiter: _Waiter) -> bool:
        """Look for one that waits from now on; return False when the service stops."""
        with self._lock:
            if self._is_stopping:
                return False
            self._waiters.add(waiter)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="job watch", daemon=True)
                self._thread.start()
            self._lock.notify_all()
        # What happened between the caller's reading and this may have been looked for before.
        self._due.set()
        return True

    def stop(self) -> None:
        """Wake all who wait, and let nobody wait any more."""
        with self._lock:
            self._is_stopping = True
            waiters, thread = tuple(self._waiters), self._thread
            self._lock.notify_all()
        # Without the lock: who is woken may hold one of its own while it begins to wait here.
        for waiter in waiters:
            waiter.wake()
        self._due.set()
        if thread is not None:
            # It may be reading: whoever closes the store next would have it open a connection anew.
            thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiters and not self._is_stopping:
                    self._lock.wait(_IDLE_SECONDS)
                if not self._waiters or self._is_stopping:
                    self._thread = None
                    return
            self._due.wait(self._poll_seconds)
            self._due.clear()
            self._look()
            # Several writes that follow one another are looked for together.
            time.sleep(_LEAST_SECONDS)

    def _look(self) -> None:
        with self._lock:
            waiters = tuple(self._waiters)
        ids = sorted({job_id for waiter in waiters for job_id in waiter.seen})
        try:
            now = self._store.states(ids)
        except ServiceError as error:
            if not self._is_away:
                _log.warning("Those who wait for jobs wait on: %s", error.message)
            self._is_away = True
            return
        except Exception:  # noqa: BLE001 - the thread's edge: they are answered when their time is over
            _log.exception("Those who wait for jobs could not be served.")
            return
        self._is_away = False
        moment = self._monotonic()
        for waiter in waiters:
            if waiter.is_met(now, moment):
                waiter.wake()
