"""Waiting for jobs to change: many waiters, few questions to the job table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from backend.errors import StoreUnavailable
from backend.jobs.changes import Changes
from backend.jobs.models import Job, JobState, Report
from backend.jobs.store import JobStore
from backend.jobs.watch import JobWatch
from backend.storage.database import Database
from tests.support.store_backends import ManualClock, submit
from tests.support.workshop import TIMEOUT_SECONDS, eventually


class Room:
    """A watched store, and how often it was asked for how many jobs."""

    def __init__(self, database: Database, clock: ManualClock, poll_seconds: float = 3600.0) -> None:
        self.changes = Changes()
        self.store = JobStore(database, clock, changes=self.changes)
        self.asked: list[int] = []
        self.trouble: Exception | None = None
        states = self.store.states

        def counted(ids: Sequence[str]) -> dict[str, JobState]:
            self.asked.append(len(ids))
            if self.trouble is not None:
                raise self.trouble
            return states(ids)

        self.store.states = counted  # type: ignore[method-assign]
        self.watch = JobWatch(self.store, self.changes, poll_seconds=poll_seconds)
        self.pool = ThreadPoolExecutor(64)

    def job(self) -> Job:
        (job_id,) = submit(self.store, "ann", 1)
        return self.store.get(job_id, "ann")

    def wait(self, *jobs: Job, seconds: float = TIMEOUT_SECONDS, calm: float = 0.0) -> Future[bool]:
        before = len(self.asked)
        waiting = self.pool.submit(self.watch.wait, jobs, seconds, calm)
        eventually(lambda: len(self.asked) > before)
        return waiting


@pytest.fixture
def room(database: Database, clock: ManualClock) -> Iterator[Room]:
    made = Room(database, clock)
    yield made
    made.watch.stop()
    made.pool.shutdown()


def cancel(room: Room, job: Job) -> None:
    room.store.cancel(job.id, "ann")


def begin(room: Room, _job: Job) -> None:
    room.store.lease("w", 1, 60)


@pytest.mark.parametrize("change", [cancel, begin])
def test_a_change_of_status_ends_it_at_once(room: Room, change: Callable[[Room, Job], None]) -> None:
    job = room.job()
    waiting = room.wait(job, calm=3600.0)
    assert not waiting.done()
    change(room, job)
    assert waiting.result(TIMEOUT_SECONDS) is True


def test_steps_end_it_unless_it_is_to_be_calm(room: Room) -> None:
    room.job()
    (leased,) = room.store.lease("w", 1, 60)
    calm, lively = room.wait(leased, calm=3600.0), room.wait(leased)
    room.store.report("w", [Report(leased, 40, "sample 4/10", 6.0)], 60)
    assert lively.result(TIMEOUT_SECONDS) is True
    assert not calm.done()
    # Asked to stop, it is still running, but its agent may want to know.
    room.store.cancel(leased.id, "ann")
    assert calm.result(TIMEOUT_SECONDS) is True


def test_a_step_that_came_while_it_was_calm_ends_it_after_that(database: Database, clock: ManualClock) -> None:
    room = Room(database, clock, poll_seconds=0.05)
    room.job()
    (leased,) = room.store.lease("w", 1, 60)
    waiting = room.wait(leased, calm=0.3)
    room.store.report("w", [Report(leased, 40, "sample 4/10", 6.0)], 60)
    assert waiting.result(TIMEOUT_SECONDS) is True
    room.watch.stop()
    room.pool.shutdown()


def test_what_changed_before_it_began_to_wait_ends_it(room: Room) -> None:
    job = room.job()
    cancel(room, job)
    assert room.wait(job).result(TIMEOUT_SECONDS) is True
    room.store.remove([room.store.get(job.id, "ann")])
    assert room.wait(job).result(TIMEOUT_SECONDS) is True


def test_without_a_change_its_time_ends_it(room: Room) -> None:
    assert room.wait(room.job(), seconds=0.2).result(TIMEOUT_SECONDS) is False


def test_of_several_jobs_any_ends_it_and_of_others_none(room: Room) -> None:
    first, second, other = room.job(), room.job(), room.job()
    both, alone = room.wait(first, second), room.wait(first)
    cancel(room, other)
    asked = len(room.asked)
    cancel(room, second)
    assert both.result(TIMEOUT_SECONDS) is True
    eventually(lambda: len(room.asked) > asked)
    assert not alone.done()


def test_many_waiters_are_one_question(room: Room) -> None:
    jobs = [room.job() for _ in range(50)]
    waiting = [room.pool.submit(room.watch.wait, [job], TIMEOUT_SECONDS) for job in jobs]
    eventually(lambda: bool(room.asked) and room.asked[-1] == 50)
    before = len(room.asked)
    for job in jobs:
        cancel(room, job)
    assert all(each.result(TIMEOUT_SECONDS) for each in waiting)
    # A write may be followed by one; that many wait adds none.
    assert len(room.asked) - before <= 50


def test_what_another_process_wrote_is_found(database: Database, clock: ManualClock) -> None:
    room = Room(database, clock, poll_seconds=0.05)
    job = room.job()
    waiting = room.wait(job)
    JobStore(database, clock).cancel(job.id, "ann")
    assert waiting.result(TIMEOUT_SECONDS) is True
    room.watch.stop()
    room.pool.shutdown()


def test_a_table_that_is_away_wakes_nobody_and_comes_back(database: Database, clock: ManualClock) -> None:
    room = Room(database, clock, poll_seconds=0.05)
    job = room.job()
    room.trouble = StoreUnavailable()
    waiting = room.wait(job)
    eventually(lambda: len(room.asked) > 2)
    assert not waiting.done()
    room.trouble = None
    cancel(room, job)
    assert waiting.result(TIMEOUT_SECONDS) is True
    room.watch.stop()
    room.pool.shutdown()


def test_a_service_that_stops_keeps_nobody_waiting(room: Room) -> None:
    waiting = [room.wait(room.job()) for _ in range(3)]
    room.watch.stop()
    assert [each.result(TIMEOUT_SECONDS) for each in waiting] == [False] * 3
    assert room.watch.wait([room.job()], TIMEOUT_SECONDS) is False


def test_a_service_that_stops_waits_for_no_watch_that_has_nobody_left(room: Room) -> None:
    waiting = room.wait(room.job(), seconds=0.2)
    assert waiting.result(TIMEOUT_SECONDS) is False
    watching = room.watch._thread
    assert watching is not None
    room.watch.stop()
    assert not watching.is_alive()


def test_nobody_is_asked_for_while_nobody_waits(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.watch._IDLE_SECONDS", 0.1)
    room = Room(database, clock, poll_seconds=0.05)
    job = room.job()
    assert room.wait(job, seconds=0.1).result(TIMEOUT_SECONDS) is False
    eventually(lambda: room.watch._thread is None)
    asked = len(room.asked)
    cancel(room, job)
    time.sleep(0.2)
    assert len(room.asked) == asked
    assert room.wait(job).result(TIMEOUT_SECONDS) is True
    room.watch.stop()
    room.pool.shutdown()
