"""Spare threads: as many as are wanted and no more, begun by none who cannot wait, and used again."""

from __future__ import annotations

import threading

import pytest

from backend.serve.threads import SpareThreads
from tests.support.workshop import eventually


def test_all_jobs_run_at_once_up_to_the_bound() -> None:
    threads, gate = SpareThreads(20), threading.Barrier(21, timeout=30)

    def wait() -> None:
        gate.wait()

    taken = [threads.run(wait) for _ in range(20)]
    assert taken == [True] * 20
    assert not threads.run(lambda: None)
    gate.wait()
    eventually(lambda: threads.run(lambda: None))


def test_a_thread_that_is_free_is_used_again() -> None:
    threads, done = SpareThreads(20), threading.Semaphore(0)
    names: set[int] = set()

    def note() -> None:
        names.add(threading.get_ident())
        done.release()

    for _ in range(50):
        assert threads.run(note)
        assert done.acquire(timeout=30)
        eventually(lambda: threads._idle == len(names))
    assert len(names) == 1


def test_a_job_that_fails_is_logged_and_costs_no_room(caplog: pytest.LogCaptureFixture) -> None:
    threads = SpareThreads(1)

    def fail() -> None:
        raise ZeroDivisionError

    for _ in range(3):
        eventually(lambda: threads.run(fail))
    eventually(lambda: threads._unfinished == 0)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError] * 3
