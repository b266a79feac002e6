"""How far runs are, written for all of a worker's jobs at once, and read without writing; on every database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from backend.errors import NoSurface
from backend.jobs.models import Heartbeat, Report, Status
from backend.jobs.store import JobStore
from backend.storage.database import Database
from tests.support.store_backends import BACKENDS, ManualClock, empty_database, open_database, submit


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with open_database(empty_database(request.param, tmp_path)) as opened:
        yield opened


@pytest.fixture
def store(database: Database, clock: ManualClock) -> JobStore:
    return JobStore(database, clock)


def test_a_report_notes_each_run_and_extends_its_lease(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann", 3)
    first, second, third = store.lease("worker", 3, 60)
    clock.advance(30)
    reports = [Report(first, 40, "sample 4/10", 6.5), Report(second, 90, "mesh", None), Report(third, 90, "mesh", None)]
    beat = store.report("worker", reports, 60)
    assert beat.lost == ()
    assert {job.id for job in beat.held} == {first.id, second.id, third.id}
    seen = [store.get(job.id, "ann") for job in (first, second, third)]
    assert [(job.progress, job.current_step, job.eta_seconds) for job in seen] == [
        (40, "sample 4/10", 6.5),
        (90, "mesh", None),
        (90, "mesh", None),
    ]
    assert {job.lease_expires_at for job in seen} == {clock.now + timedelta(seconds=60)}


def test_a_report_says_what_was_cancelled_and_what_is_lost(store: JobStore) -> None:
    submit(store, "ann", 2)
    kept, lost = store.lease("worker", 2, 60)
    store.cancel(kept.id, "ann")
    store.release(lost)
    (taken,) = store.lease("other", 1, 60)
    beat = store.report("worker", [Report(kept, 10, "encode", None), Report(lost, 10, "encode", None)], 60)
    assert [(job.id, job.cancel_requested) for job in beat.held] == [(kept.id, True)]
    assert beat.lost == (lost,)
    assert store.get(taken.id, "ann") == taken


def test_a_report_of_nothing_is_nothing(store: JobStore) -> None:
    assert store.report("worker", [], 60) == Heartbeat((), ())


def test_a_poll_shows_what_is_still_held_and_changes_nothing(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann", 3)
    held, lost, done = store.lease("worker", 3, 60)
    store.release(lost)
    store.fail(done, NoSurface())
    clock.advance(5)
    assert store.poll([held, lost, done]) == [held]
    assert store.poll([]) == []
    assert store.get(held.id, "ann").status is Status.PROCESSING
