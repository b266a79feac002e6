"""Submitting, watching, finishing and expiring jobs, on every database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypedDict

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from backend.api.statuses import status_of
from backend.errors import (
    ArtifactNotFound,
    Cancelled,
    IdempotencyConflict,
    InvalidCursor,
    JobNotFound,
    LeaseLost,
    NoSurface,
    QueueFull,
    TooManyActiveJobs,
)
from backend.jobs.models import Batch, IdempotencyKey, Job, QueueCounts, Status, Submitted
from backend.jobs.schema import idempotency_keys, jobs
from backend.jobs.store import JobStore
from backend.storage.database import Database
from tests.support.store_backends import START, ManualClock, mesh_file, new_jobs, open_database, report_progress, submit


class Bounds(TypedDict):
    """The bounds of a submission."""

    queue_limit: int
    agent_limit: int


WIDE = Bounds(queue_limit=1000, agent_limit=1000)
FIRST = IdempotencyKey("key-1", "fingerprint-1")


def run_one(store: JobStore) -> Job:
    (job,) = store.lease("worker", 1, 60)
    return job


def test_a_submitted_job_is_queued_with_what_was_given(store: JobStore) -> None:
    answer = store.submit("ann", new_jobs(1), **WIDE)
    assert answer == Submitted(answer.job_ids, None, replayed=False)
    assert store.get(answer.job_ids[0], "ann") == Job(
        id=answer.job_ids[0],
        batch_id=None,
        agent_id="ann",
        status=Status.QUEUED,
        request='{"seed": 0}',
        batch_key="demo/20/5.0/256",
        image_name="inputs/0.png",
        created_at=START,
        updated_at=START,
        started_at=None,
        finished_at=None,
        attempts=0,
        lease_owner=None,
        lease_expires_at=None,
        fence=0,
        progress=0,
        current_step="queued",
        eta_seconds=None,
        cancel_requested=False,
        artifact=None,
        metadata=None,
        error_code=None,
        error_message=None,
        label=None,
        filename=None,
        batch_index=None,
        error_details=None,
    )


def test_several_jobs_make_a_batch_in_their_order(store: JobStore) -> None:
    answer = store.submit("ann", new_jobs(10), **WIDE)
    assert answer.batch_id is not None
    batch = store.get_batch(answer.batch_id, "ann")
    assert tuple(job.id for job in batch.jobs) == answer.job_ids
    assert [job.image_name for job in batch.jobs] == [f"inputs/{k}.png" for k in range(10)]
    assert {job.batch_id for job in batch.jobs} == {answer.batch_id}


def test_a_batch_tells_the_state_of_its_jobs(store: JobStore) -> None:
    answer = store.submit("ann", new_jobs(2), **WIDE)
    assert answer.batch_id is not None

    def batch() -> Batch:
        return store.get_batch(str(answer.batch_id), "ann")

    assert (batch().status, batch().progress) == (Status.QUEUED, 0)
    store.fail(run_one(store), NoSurface())
    assert (batch().status, batch().progress) == (Status.PROCESSING, 50)
    second = run_one(store)
    report_progress(store, second, 50, "denoise", None)
    assert (batch().status, batch().progress) == (Status.PROCESSING, 75)
    store.complete(second, mesh_file("b.glb"), "{}")
    assert (batch().status, batch().progress) == (Status.COMPLETED, 100)


def test_jobs_and_batches_of_another_agent_are_not_found(store: JobStore) -> None:
    answer = store.submit("ann", new_jobs(2), **WIDE)
    for job_id in (answer.job_ids[0], "0" * 32, "../etc/passwd", ""):
        with pytest.raises(JobNotFound):
            store.get(job_id, "bob")
        with pytest.raises(JobNotFound):
            store.cancel(job_id, "bob")
    with pytest.raises(JobNotFound):
        store.get_batch(str(answer.batch_id), "bob")
    assert store.get(answer.job_ids[0], "ann").status is Status.QUEUED


def test_the_queue_bound_holds_for_all_agents_together(store: JobStore) -> None:
    store.submit("ann", new_jobs(2), queue_limit=3, agent_limit=9)
    with pytest.raises(QueueFull) as refused:
        store.submit("bob", new_jobs(2), queue_limit=3, agent_limit=9)
    assert refused.value.retry_after > 0
    assert store.counts().queued == 2
    store.submit("bob", new_jobs(1), queue_limit=3, agent_limit=9)
    run_one(store)
    store.submit("bob", new_jobs(1), queue_limit=3, agent_limit=9)


def test_the_agents_bound_counts_waiting_and_running_jobs(store: JobStore) -> None:
    store.submit("ann", new_jobs(2), queue_limit=99, agent_limit=2)
    running = run_one(store)
    with pytest.raises(TooManyActiveJobs) as refused:
        store.submit("ann", new_jobs(1), queue_limit=99, agent_limit=2)
    assert (status_of(refused.value), refused.value.code) == (429, "RATE_LIMITED")
    store.submit("bob", new_jobs(2), queue_limit=99, agent_limit=2)
    store.complete(running, mesh_file("a.glb"), "{}")
    store.submit("ann", new_jobs(1), queue_limit=99, agent_limit=2)


def test_bounds_hold_against_submissions_at_the_same_time(url: str, store: JobStore, clock: ManualClock) -> None:
    start = threading.Barrier(6)

    def submit_some(agent: int) -> int:
        accepted = 0
        with open_database(url) as own:  # connections of its own, as another process would have
            mine = JobStore(own, clock)
            start.wait()
            for _ in range(5):
                try:
                    mine.submit(f"agent-{agent % 2}", new_jobs(1), queue_limit=11, agent_limit=9)
                    accepted += 1
                except (QueueFull, TooManyActiveJobs):
                    pass
        return accepted

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(submit_some, range(6))) == 11
    assert store.counts().queued == 11


def test_a_repeated_request_gets_the_first_answer(store: JobStore, clock: ManualClock) -> None:
    first = store.submit("ann", new_jobs(2), idempotency=FIRST, **WIDE)
    clock.advance(24 * 3600 - 1)
    again = Submitted(first.job_ids, first.batch_id, replayed=True)
    # A full queue is no reason to refuse what was accepted.
    assert store.submit("ann", new_jobs(2), idempotency=FIRST, queue_limit=0, agent_limit=0) == again
    assert store.recall("ann", FIRST) == again
    assert store.counts().queued == 2


def test_another_request_under_the_same_key_conflicts(store: JobStore) -> None:
    store.submit("ann", new_jobs(1), idempotency=FIRST, **WIDE)
    other = IdempotencyKey(FIRST.key, "fingerprint-2")
    with pytest.raises(IdempotencyConflict):
        store.submit("ann", new_jobs(1), idempotency=other, **WIDE)
    with pytest.raises(IdempotencyConflict):
        store.recall("ann", other)
    assert store.counts().queued == 1


def test_idempotency_keys_belong_to_one_agent(store: JobStore) -> None:
    first = store.submit("ann", new_jobs(1), idempotency=FIRST, **WIDE)
    assert store.recall("bob", FIRST) is None
    second = store.submit("bob", new_jobs(1), idempotency=FIRST, **WIDE)
    assert not second.replayed
    assert second.job_ids != first.job_ids


def test_a_key_is_free_again_after_a_day(store: JobStore, database: Database, clock: ManualClock) -> None:
    for k in range(3):
        store.submit("ann", new_jobs(1), idempotency=IdempotencyKey(f"old-{k}", "f"), **WIDE)
    clock.advance(24 * 3600)
    assert store.recall("ann", IdempotencyKey("old-0", "f")) is None
    answer = store.submit("ann", new_jobs(1), idempotency=IdempotencyKey("old-0", "other"), **WIDE)
    assert not answer.replayed
    with database.read() as connection:
        assert connection.execute(idempotency_keys.select()).one().fingerprint == "other"


def test_a_refused_submission_leaves_its_key_free(store: JobStore) -> None:
    store.submit("bob", new_jobs(1), **WIDE)
    with pytest.raises(QueueFull):
        store.submit("ann", new_jobs(1), idempotency=FIRST, queue_limit=1, agent_limit=9)
    assert store.recall("ann", FIRST) is None
    assert not store.submit("ann", new_jobs(1), idempotency=FIRST, **WIDE).replayed


def test_of_several_first_requests_at_once_one_is_stored(store: JobStore) -> None:
    start = threading.Barrier(6)

    def send(_: int) -> Submitted:
        start.wait()
        return store.submit("ann", new_jobs(2), idempotency=FIRST, **WIDE)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(6)))
    assert len({answer.job_ids for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 5
    assert store.counts().queued == 2


def test_pages_run_from_the_newest_to_the_oldest_job_of_an_agent(store: JobStore, clock: ManualClock) -> None:
    ids: list[str] = []
    for _ in range(5):
        ids += submit(store, "ann")
        submit(store, "bob")
        clock.advance(0.4)
    seen = []
    cursor = None
    for expected in (2, 2, 1):
        page = store.list_jobs("ann", cursor, 2)
        assert len(page.jobs) == expected
        seen += [job.id for job in page.jobs]
        submit(store, "ann")  # must not shift the pages that follow
        cursor = page.next_cursor
    assert cursor is None
    assert seen == ids[::-1]


def test_a_page_that_ends_with_the_oldest_job_has_no_next(store: JobStore) -> None:
    submit(store, "ann", 2)
    assert store.list_jobs("ann", None, 2).next_cursor is None
    assert store.list_jobs("bob", None, 2).jobs == ()


@pytest.mark.parametrize("cursor", ["", "7", "Z" * 32, "0" * 33, "' OR 1=1 --"])
def test_a_made_up_cursor_is_refused(store: JobStore, cursor: str) -> None:
    with pytest.raises(InvalidCursor) as refused:
        store.list_jobs("ann", cursor, 2)
    assert (status_of(refused.value), refused.value.code) == (400, "INVALID_CURSOR")


def test_a_run_reports_progress_and_completes(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann")
    job = run_one(store)
    clock.advance(5)
    moved = report_progress(store, job, 40, "denoise", 7.5, lease_seconds=55)
    assert (moved.progress, moved.current_step, moved.eta_seconds) == (40, "denoise", 7.5)
    assert (moved.updated_at, moved.lease_expires_at) == (START + timedelta(seconds=5), job.lease_expires_at)
    clock.advance(5)
    done = store.complete(moved, mesh_file("mesh.glb"), '{"faces": 9}')
    assert (done.status, done.progress, done.current_step, done.eta_seconds) == (
        Status.COMPLETED,
        100,
        "completed",
        None,
    )
    assert (done.artifact, done.metadata, done.finished_at) == ("mesh.glb", '{"faces": 9}', clock())
    assert (done.lease_owner, done.lease_expires_at) == (None, None)
    assert store.get(job.id, "ann") == done


def test_a_failed_run_keeps_its_reason(store: JobStore) -> None:
    submit(store, "ann")
    failed = store.fail(run_one(store), NoSurface("flat"), '{"steps": 5}')
    assert (failed.status, failed.error_code, failed.error_message) == (Status.FAILED, "NO_SURFACE", "flat")
    assert failed.metadata == '{"steps": 5}'
    assert store.lease("worker", 1, 60) == []


def test_a_finished_job_cannot_be_changed(store: JobStore) -> None:
    submit(store, "ann")
    job = run_one(store)
    done = store.complete(job, mesh_file("mesh.glb"), "{}")
    for stale in (job, done):
        for change in (
            lambda j: report_progress(store, j, 1, "x", None),
            lambda j: store.complete(j, mesh_file("other.glb"), "{}"),
            lambda j: store.fail(j, Cancelled()),
            store.stop_cancelled,
            store.release,
        ):
            with pytest.raises(LeaseLost):
                change(stale)
    assert store.cancel(job.id, "ann") == done


def test_a_queued_job_is_cancelled_at_once(store: JobStore) -> None:
    (job_id,) = submit(store, "ann")
    cancelled = store.cancel(job_id, "ann")
    assert (cancelled.status, cancelled.finished_at, cancelled.current_step) == (Status.CANCELLED, START, "cancelled")
    assert store.lease("worker", 1, 60) == []
    assert store.cancel(job_id, "ann") == cancelled


def test_a_running_job_is_asked_to_stop(store: JobStore) -> None:
    submit(store, "ann")
    job = run_one(store)
    asked = store.cancel(job.id, "ann")
    assert (asked.status, asked.cancel_requested, asked.finished_at) == (Status.PROCESSING, True, None)
    assert asked.current_step == job.current_step
    assert report_progress(store, job, 10, "denoise", None).cancel_requested
    assert store.stop_cancelled(job).status is Status.CANCELLED


def test_expiry_removes_what_finished_by_then_in_bounded_numbers(store: JobStore, clock: ManualClock) -> None:
    ids = submit(store, "ann", 4)
    for k in range(3):
        store.complete(run_one(store), mesh_file(f"{k}.glb"), "{}")
        clock.advance(10)
    run_one(store)
    before = START + timedelta(seconds=10)
    oldest = store.expired(before, limit=1)
    assert [job.artifact for job in oldest] == ["0.glb"]
    assert [job.artifact for job in store.expired(before, limit=9)] == ["0.glb", "1.glb"]
    assert store.remove(oldest) == 1
    assert [store.remove(store.expired(before)), store.remove(oldest), store.remove([])] == [1, 0, 0]
    assert store.expired(before) == []
    assert [job.id for job in store.list_jobs("ann", None, 9).jobs] == [ids[3], ids[2]]
    with pytest.raises(JobNotFound):
        store.get(ids[0], "ann")
    with pytest.raises(ArtifactNotFound):
        store.files.find("0.glb", "ann")


def test_only_finished_jobs_can_be_removed(store: JobStore) -> None:
    submit(store, "ann", 2)
    running = run_one(store)
    waiting = store.list_jobs("ann", None, 1).jobs[0]
    assert store.remove([running, waiting]) == 0
    assert store.counts() == QueueCounts(queued=1, processing=1, oldest_queued_at=START)


def test_files_are_known_by_the_jobs_that_name_them(store: JobStore) -> None:
    submit(store, "ann", 2)
    store.complete(run_one(store), mesh_file("mesh.glb"), "{}")
    asked = ["inputs/0.png", "inputs/1.png", "inputs/9.png", "mesh.glb", "other.glb", ""]
    assert store.named(asked) == {"inputs/0.png", "inputs/1.png", "mesh.glb"}
    assert store.named([]) == frozenset()


def test_keys_that_ended_are_forgotten_some_at_a_time(store: JobStore, clock: ManualClock) -> None:
    for k in range(3):
        store.submit("ann", new_jobs(1), idempotency=IdempotencyKey(f"old-{k}", "f"), **WIDE)
    clock.advance(1)
    store.submit("ann", new_jobs(1), idempotency=FIRST, **WIDE)
    clock.advance(24 * 3600 - 1)
    assert [store.forget_keys(2) for _ in range(3)] == [2, 1, 0]
    assert store.recall("ann", FIRST) is not None


def test_a_cursor_outlives_its_job(store: JobStore) -> None:
    ids = submit(store, "ann", 3)
    page = store.list_jobs("ann", None, 2)
    store.cancel(ids[1], "ann")
    store.remove(store.expired(START))
    assert [job.id for job in store.list_jobs("ann", page.next_cursor, 2).jobs] == [ids[0]]


def test_a_job_that_waited_too_long_fails_as_expired(store: JobStore, clock: ManualClock) -> None:
    submit(store, "ann", 2)
    running = run_one(store)
    clock.advance(1)
    submit(store, "ann")
    (expired,) = store.expire_queued(START)
    assert (expired.status, expired.error_code, expired.finished_at) == (Status.FAILED, "EXPIRED", clock())
    assert store.counts() == QueueCounts(queued=1, processing=1, oldest_queued_at=clock())
    assert store.get(running.id, "ann").status is Status.PROCESSING


def test_runs_that_a_worker_does_not_know_of_are_handed_back(store: JobStore) -> None:
    submit(store, "ann", 3)
    (known,), (unknown,), (others,) = (store.lease(owner, 1, 60) for owner in ("worker", "worker", "other"))
    (released,) = store.release_unknown("worker", [known])
    assert (released.id, released.status, released.attempts) == (unknown.id, Status.QUEUED, 0)
    assert [store.get(job.id, "ann").status for job in (known, others)] == [Status.PROCESSING] * 2
    with pytest.raises(LeaseLost):
        store.complete(unknown, mesh_file("late.glb"), "{}")
    assert store.release_unknown("worker", [known]) == []


class CountedLosses:
    """What was lost, in its order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, Status, str | None]] = []

    def run_died(self, job: Job) -> None:
        self.told.append(("died", job.id, job.status, job.error_code))

    def wait_expired(self, job: Job) -> None:
        self.told.append(("expired", job.id, job.status, job.error_code))


def test_what_no_worker_is_left_to_tell_is_told(database: Database, clock: ManualClock) -> None:
    observer = CountedLosses()
    store = JobStore(database, clock, max_attempts=2, observer=observer)
    job_id, waiting = submit(store, "ann", 2)
    run_one(store)
    clock.advance(60)
    (again,) = store.lease("worker", 1, 60, batch_mates_of=None)
    assert again.id == job_id
    assert observer.told == [("died", job_id, Status.QUEUED, None)]
    clock.advance(60)
    store.reclaim()
    store.reclaim()
    assert observer.told[1:] == [("died", job_id, Status.FAILED, "GENERATION_FAILED")]
    store.expire_queued(clock())
    assert observer.told[2:] == [("expired", waiting, Status.FAILED, "EXPIRED")]


def test_counts_tell_what_waits_and_runs(store: JobStore, clock: ManualClock) -> None:
    assert store.counts() == QueueCounts(0, 0, None)
    submit(store, "ann", 2)
    clock.advance(3)
    submit(store, "bob", 2)
    run_one(store)
    assert store.counts() == QueueCounts(queued=3, processing=1, oldest_queued_at=START)


def test_a_file_is_found_by_the_agent_it_was_made_for(store: JobStore) -> None:
    submit(store, "ann")
    done = store.complete(run_one(store), mesh_file("mesh.glb"), "{}")
    assert store.files.find("mesh.glb", "ann").job_id == done.id
    for name, agent in (("mesh.glb", "bob"), ("other.glb", "ann"), ("../mesh.glb", "ann")):
        with pytest.raises(ArtifactNotFound):
            store.files.find(name, agent)


def test_the_tables_refuse_rows_in_impossible_states(store: JobStore, database: Database) -> None:
    (job_id,) = submit(store, "ann")
    for values in (
        {"status": Status.PROCESSING},
        {"status": Status.COMPLETED, "finished_at": START},
        {"status": Status.FAILED, "finished_at": START},
        {"finished_at": START},
        {"lease_owner": "w"},
        {"progress": 101},
    ):
        with pytest.raises(IntegrityError), database.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(values))
