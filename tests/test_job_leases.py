"""Who runs next, how long a worker may keep a job, and what becomes of dead runs, on every database."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.errors import LeaseLost
from backend.jobs.models import Job, Status
from backend.jobs.schema import jobs
from backend.jobs.store import JobStore
from tests.support.store_backends import (
    START,
    ManualClock,
    beat_of,
    empty_database,
    mesh_file,
    open_database,
    report_progress,
    submit,
)

LEASE = 60


def lease_ids(store: JobStore, limit: int) -> list[str]:
    return [job.id for job in store.lease("worker", limit, LEASE)]


def die(store: JobStore, clock: ManualClock, limit: int, deaths: int = 1) -> None:
    """Lease up to limit jobs for runs that are never heard of again."""
    for _ in range(deaths):
        assert store.lease("doomed", limit, LEASE)
        clock.advance(LEASE)


def test_a_lease_names_its_worker_its_end_and_a_new_fence(store: JobStore) -> None:
    submit(store, "ann")
    (job,) = store.lease("worker-7", 4, 2.5)
    assert (job.status, job.lease_owner, job.fence, job.attempts) == (Status.PROCESSING, "worker-7", 1, 1)
    assert (job.lease_expires_at, job.started_at) == (START + timedelta(seconds=2.5), START)
    assert store.get(job.id, "ann") == job
    assert store.lease("worker-8", 4, LEASE) == []


def test_one_agents_jobs_are_leased_oldest_first_up_to_the_limit(store: JobStore) -> None:
    ids = submit(store, "ann", 5)
    assert lease_ids(store, 3) == list(ids[:3])
    assert lease_ids(store, 3) == list(ids[3:])
    assert lease_ids(store, 3) == []


def test_only_jobs_that_may_run_together_share_a_lease(store: JobStore) -> None:
    first = submit(store, "ann", 1, "steps 20")
    second = submit(store, "ann", 2, "steps 50")
    third = submit(store, "ann", 2, "steps 20")
    assert lease_ids(store, 4) == [*first, *third]
    assert lease_ids(store, 4) == list(second)


def test_agents_take_turns(store: JobStore, clock: ManualClock) -> None:
    ann = submit(store, "ann", 4)
    bob = submit(store, "bob", 2)
    order = []
    for _ in range(3):
        order += lease_ids(store, 1)
        clock.advance(1)
    carl = submit(store, "carl", 1)
    for _ in range(4):
        order += lease_ids(store, 1)
        clock.advance(1)
    assert order == [ann[0], bob[0], ann[1], *carl, bob[1], ann[2], ann[3]]


def test_agents_share_the_places_of_a_batch(store: JobStore) -> None:
    ann = submit(store, "ann", 6)
    bob = submit(store, "bob", 2)
    assert lease_ids(store, 4) == [ann[0], bob[0], ann[1], bob[1]]


def test_an_agent_with_other_settings_is_not_starved(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann", 40, "steps 20")
    (bob,) = submit(store, "bob", 1, "steps 50")
    leased = []
    for _ in range(2):
        leased += lease_ids(store, 4)
        clock.advance(1)
    assert bob in leased


def test_an_agent_whose_jobs_kill_workers_still_takes_turns(store: JobStore, clock: ManualClock) -> None:
    ann = submit(store, "ann", 2)
    die(store, clock, limit=1)
    bob = submit(store, "bob", 2)
    order = []
    for _ in range(4):
        order += lease_ids(store, 1)
        clock.advance(1)
    assert order == [bob[0], ann[0], bob[1], ann[1]]


def test_the_queue_position_is_the_order_of_leasing(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann", 3)
    submit(store, "bob", 2)
    clock.advance(1)
    lease_ids(store, 1)
    submit(store, "carl", 1)
    waiting = [store.get(job.id, agent) for agent in ("ann", "bob", "carl") for job in _queued(store, agent)]
    places = {store.queue_position(job): job.id for job in waiting}
    assert sorted(places, key=str) == [1, 2, 3, 4, 5]
    clock.advance(1)
    assert [places[1], places[2], places[3]] == lease_ids(store, 3)
    assert store.queue_position(waiting[-1]) is None


def _queued(store: JobStore, agent: str) -> list[Job]:
    return [job for job in store.list_jobs(agent, None, 50).jobs if job.status is Status.QUEUED]


def test_batch_mates_may_join_a_leased_job_later(store: JobStore) -> None:
    submit(store, "ann", 1, "steps 20")
    (first,) = store.lease("worker", 4, LEASE)
    submit(store, "bob", 1, "steps 50")
    joining = submit(store, "bob", 3, "steps 20")
    mates = store.lease("worker", 2, LEASE, batch_mates_of=first)
    assert [job.id for job in mates] == list(joining[:2])


def test_heartbeats_keep_jobs_and_bring_the_wish_to_stop(store: JobStore, clock: ManualClock) -> None:
    ids = submit(store, "ann", 2)
    held = store.lease("worker", 2, LEASE)
    clock.advance(LEASE - 1)
    store.cancel(ids[1], "ann")
    beat = beat_of(store, "worker", held)
    assert [job.cancel_requested for job in beat.held] == [False, True]
    assert beat.lost == ()
    clock.advance(LEASE - 1)
    assert store.lease("other", 4, LEASE) == []
    assert beat_of(store, "worker", []).held == ()


def test_a_heartbeat_tells_which_jobs_are_lost(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann", 3)
    held = store.lease("worker", 3, LEASE)
    store.complete(held[1], mesh_file("mesh.glb"), "{}")
    store.release(held[2])
    beat = beat_of(store, "worker", held)
    assert ([job.id for job in beat.held], beat.lost) == ([held[0].id], (held[1], held[2]))
    assert beat_of(store, "someone else", held).held == ()
    clock.advance(LEASE)
    store.reclaim()
    assert beat_of(store, "worker", held).held == ()


def test_a_job_returns_when_its_lease_ends(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann")
    (late,) = store.lease("worker", 1, LEASE)
    report_progress(store, late, 70, "denoise", 3.0)
    clock.advance(LEASE - 0.000001)
    assert store.reclaim() == []
    clock.advance(0.000001)
    (returned,) = store.reclaim()
    assert (returned.status, returned.attempts, returned.progress) == (Status.QUEUED, 1, 0)
    assert (returned.lease_owner, returned.eta_seconds, returned.current_step) == (None, None, "queued")
    (again,) = store.lease("worker", 1, LEASE)
    assert (again.id, again.attempts) == (late.id, 2)
    assert again.fence > late.fence


def test_a_late_worker_cannot_overwrite_the_next_run(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann")
    (late,) = store.lease("worker", 1, LEASE)
    clock.advance(LEASE)
    (current,) = store.lease("worker", 1, LEASE)  # the same name: the fence tells them apart
    changes: list[Callable[[], object]] = [
        lambda: report_progress(store, late, 99, "export", None),
        lambda: store.complete(late, mesh_file("late.glb"), "{}"),
        lambda: store.release(late),
        lambda: store.stop_cancelled(late),
    ]
    for change in changes:
        with pytest.raises(LeaseLost) as lost:
            change()
        assert lost.value.details == {"job_id": late.id}
    assert store.complete(current, mesh_file("mesh.glb"), "{}").artifact == "mesh.glb"


def test_a_worker_that_is_late_but_not_replaced_may_finish(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann")
    (job,) = store.lease("worker", 1, LEASE)
    clock.advance(2 * LEASE)
    assert store.complete(job, mesh_file("mesh.glb"), "{}").status is Status.COMPLETED


def test_jobs_whose_runs_died_twice_run_alone(store: JobStore, clock: ManualClock) -> None:
    old = submit(store, "ann", 2)
    die(store, clock, limit=4, deaths=2)
    fresh = submit(store, "bob", 2)
    clock.advance(1)
    assert lease_ids(store, 4) == list(fresh)
    (first,) = store.lease("worker", 4, LEASE)
    (second,) = store.lease("worker", 4, LEASE)
    assert (first.id, second.id) == old
    assert first.isolated
    submit(store, "bob", 1)
    assert store.lease("worker", 4, LEASE, batch_mates_of=first) == []


def test_the_third_death_fails_the_job_and_says_why(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann")
    die(store, clock, limit=1, deaths=3)
    (failed,) = store.reclaim()
    assert (failed.status, failed.error_code, failed.attempts) == (Status.FAILED, "GENERATION_FAILED", 3)
    assert failed.error_message == "The worker died each time it ran this job."
    assert failed.finished_at == clock()
    assert store.lease("worker", 1, LEASE) == []


def test_a_job_that_kills_its_worker_takes_no_other_with_it(store: JobStore, clock: ManualClock) -> None:
    ids = submit(store, "ann", 6)
    killer = ids[2]
    runs: Counter[str] = Counter()
    for _ in range(30):
        for job in store.lease("worker", 4, LEASE):
            runs[job.id] += 1
        batch = store.list_jobs("ann", None, 10).jobs
        running = [job for job in batch if job.status is Status.PROCESSING]
        if killer in {job.id for job in running}:
            clock.advance(LEASE)
            continue
        for job in running:
            store.complete(job, mesh_file(f"{job.id}.glb"), "{}")
    states = {job.id: job.status for job in store.list_jobs("ann", None, 10).jobs}
    assert states == {job_id: Status.FAILED if job_id == killer else Status.COMPLETED for job_id in ids}
    assert runs[killer] == 3


def test_a_dead_run_that_was_asked_to_stop_is_cancelled(store: JobStore, clock: ManualClock) -> None:
    (job_id,) = submit(store, "ann")
    die(store, clock, limit=1, deaths=2)
    store.lease("doomed", 1, LEASE)
    store.cancel(job_id, "ann")
    clock.advance(LEASE)
    (stopped,) = store.reclaim()
    assert (stopped.status, stopped.error_code, stopped.finished_at) == (Status.CANCELLED, None, clock())


def test_a_run_handed_back_does_not_count(store: JobStore) -> None:
    submit(store, "ann", 2)
    for _ in range(5):
        held = store.lease("worker", 2, LEASE)
        assert [job.attempts for job in held] == [1, 1]
        for job in held:
            assert store.release(job).status is Status.QUEUED
    assert store.counts().queued == 2


def test_a_run_handed_back_after_a_wish_to_stop_is_cancelled(store: JobStore) -> None:
    submit(store, "ann")
    (job,) = store.lease("worker", 1, LEASE)
    store.cancel(job.id, "ann")
    released = store.release(job)
    assert (released.status, released.finished_at) == (Status.CANCELLED, START)


def test_workers_at_the_same_time_never_share_a_job(url: str, store: JobStore, clock: ManualClock) -> None:
    submitted = {
        job_id
        for agent in ("ann", "bob", "carl")
        for steps in ("steps 20", "steps 50")
        for job_id in submit(store, agent, 10, steps)
    }
    workers = 6
    start = threading.Barrier(workers)

    def work(number: int) -> list[str]:
        leased: list[str] = []
        with open_database(url) as own:  # connections of its own, as another process would have
            mine = JobStore(own, clock)
            start.wait()
            while mine.counts().queued:
                batch = mine.lease(f"worker-{number}", 3, LEASE)
                assert len({job.batch_key for job in batch}) <= 1
                leased += [mine.complete(job, mesh_file(f"{job.id}.glb"), "{}").id for job in batch]
        return leased

    with ThreadPoolExecutor(workers) as pool:
        leased = [job_id for done in pool.map(work, range(workers)) for job_id in done]
    assert len(leased) == len(submitted)
    assert set(leased) == submitted


def test_postgresql_passes_over_rows_that_another_worker_is_taking(tmp_path: Path, clock: ManualClock) -> None:
    with open_database(empty_database("postgresql", tmp_path)) as database:
        store = JobStore(database, clock)
        first, second = submit(store, "ann", 2)
        with database.write() as other:
            other.execute(select(jobs.c.id).where(jobs.c.id == first).with_for_update())
            assert lease_ids(store, 4) == [second]
            assert lease_ids(store, 4) == []
        assert lease_ids(store, 4) == [first]


def test_there_is_work_exactly_when_a_lease_would_find_some(store: JobStore, clock: ManualClock) -> None:
    assert not store.has_work()
    submit(store, "ann")
    assert store.has_work()
    (job,) = store.lease("w", 1, 60)
    assert not store.has_work()
    clock.advance(60)
    assert store.has_work()
    (job,) = store.lease("w", 1, 60)
    store.complete(job, mesh_file("a.glb"), "{}")
    assert not store.has_work()


def test_what_is_upcoming_is_what_the_next_lease_gives(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann", 3, "steps 20")
    submit(store, "bob", 2, "steps 50")
    submit(store, "carl", 2, "steps 20")
    for _ in range(4):
        upcoming = store.upcoming(2)
        assert {job.status for job in upcoming} == {Status.QUEUED}
        assert store.upcoming(2) == upcoming
        assert lease_ids(store, 2) == [job.id for job in upcoming]
        clock.advance(1)
    assert store.upcoming(2) == []
    assert lease_ids(store, 2) == []


def test_a_job_whose_run_died_is_not_upcoming(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann", 1)
    die(store, clock, limit=1)
    store.reclaim()
    submit(store, "ann", 1)
    assert store.upcoming(4) == []
    lease_ids(store, 1)
    submit(store, "ann", 1)
    assert len(store.upcoming(4)) == 2
