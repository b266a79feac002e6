"""How long a run lasted, when the clock is set while it goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest

from backend.jobs.run_clock import RunClock
from backend.jobs.store import JobStore
from backend.storage.database import Database
from tests.support.store_backends import START, ManualClock, mesh_file, submit

HOUR = 3600


@pytest.fixture
def seconds() -> SimpleNamespace:
    """Give seconds that pass when told."""
    return SimpleNamespace(now=50.0)


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 0, 0.5])
def test_processing_time_is_what_really_passed(
    database: Database, clock: ManualClock, seconds: SimpleNamespace, jump: float
) -> None:
    store = JobStore(database, clock, monotonic=lambda: seconds.now)
    (job_id,) = submit(store, "ann")
    (leased,) = store.lease("worker", 1, 10 * HOUR)
    clock.advance(18 + jump)
    seconds.now += 18
    done = store.complete(leased, mesh_file("a.glb"), "{}")
    assert done.finished_at == clock.now
    assert done.started_at is not None
    # A clock that is half a second off was set little by little: its word is kept.
    expected = timedelta(seconds=18.5 if jump == 0.5 else 18)
    assert done.finished_at - done.started_at == expected
    assert store.get(job_id, "ann").started_at == done.started_at


def test_a_run_that_began_elsewhere_is_timed_by_its_row(database: Database, clock: ManualClock) -> None:
    here, elsewhere = JobStore(database, clock), JobStore(database, clock, monotonic=lambda: 7.0)
    submit(here, "ann")
    (leased,) = here.lease("worker", 1, HOUR)
    clock.advance(5)
    done = elsewhere.complete(leased, mesh_file("a.glb"), "{}")
    assert (done.started_at, done.finished_at) == (START, START + timedelta(seconds=5))


def test_a_second_run_of_a_job_is_timed_by_itself(
    database: Database, clock: ManualClock, seconds: SimpleNamespace
) -> None:
    store = JobStore(database, clock, monotonic=lambda: seconds.now)
    submit(store, "ann")
    (first,) = store.lease("worker", 1, HOUR)
    store.release(first)
    clock.advance(40)
    seconds.now += 40
    (second,) = store.lease("worker", 1, HOUR)
    clock.advance(2 + HOUR)
    seconds.now += 2
    assert store.started_at(second, clock()) == clock.now - timedelta(seconds=2)


def test_runs_take_bounded_room(store: JobStore) -> None:
    submit(store, "ann")
    (job,) = store.lease("worker", 1, HOUR)
    clock = RunClock(lambda: 0.0)
    for k in range(5000):
        clock.begin([replace(job, fence=k)])
    assert len(clock) == 4096
