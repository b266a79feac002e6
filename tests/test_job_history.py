"""Whatever agents, workers and time do to the job store, in any order: no job is lost, none finishes twice.

Hypothesis draws the order; a model in plain Python, written from the rules and not from the statements, says what must
be the case after each step. Workers keep every lease they ever had and go on writing under old ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from backend.errors import IdempotencyConflict, LeaseLost, NoSurface, QueueFull, TooManyActiveJobs
from backend.jobs.models import IdempotencyKey, Job, Report, Status
from backend.jobs.store import JobStore
from backend.storage.database import Database
from tests.support.store_backends import (
    BACKENDS,
    START,
    ManualClock,
    clear,
    empty_database,
    mesh_file,
    new_jobs,
    report_progress,
)

AGENTS = ("ann", "bob", "carl")
LEASE = 60
QUEUE_LIMIT = 9
AGENT_LIMIT = 6
SIZES = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Expected:
    """What must be true of one job."""

    agent: str
    key: str
    status: Status = Status.QUEUED
    attempts: int = 0
    cancel_requested: bool = False
    fence: int = 0
    lease_end: datetime = START
    started: datetime | None = None
    finished: datetime | None = None

    def finish(self, status: Status, now: datetime) -> None:
        assert not self.status.finished, "a job finished twice"
        self.status, self.finished = status, now

    def leave(self, now: datetime) -> None:
        """End the run without a result."""
        if self.cancel_requested:
            self.finish(Status.CANCELLED, now)
        else:
            self.status = Status.QUEUED


class JobHistory(RuleBasedStateMachine):
    """Drives one store and its model side by side."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        clear(database)
        self.clock = ManualClock()
        self.store = JobStore(database, self.clock)
        self.jobs: dict[str, Expected] = {}
        self.answers: dict[tuple[str, str], tuple[str, tuple[str, ...], datetime]] = {}
        self.leases: list[Job] = []

    def waiting(self) -> dict[str, Expected]:
        return {job_id: job for job_id, job in self.jobs.items() if job.status is Status.QUEUED}

    def active(self, agent: str) -> int:
        return sum(job.agent == agent and not job.status.finished for job in self.jobs.values())

    @rule(
        agent=st.sampled_from(AGENTS),
        count=st.integers(1, 3),
        key=st.sampled_from(("steps 20", "steps 50")),
        name=st.sampled_from((None, None, "name-1")),
    )
    def submit(self, agent: str, count: int, key: str, name: str | None) -> None:
        fingerprint = f"{count} of {key}"
        earlier = self.answers.get((agent, str(name)))
        if earlier is not None and earlier[2] + timedelta(hours=24) <= self.clock():
            earlier = None
        try:
            answer = self.store.submit(
                agent,
                new_jobs(count, key),
                queue_limit=QUEUE_LIMIT,
                agent_limit=AGENT_LIMIT,
                idempotency=IdempotencyKey(name, fingerprint) if name else None,
            )
        except IdempotencyConflict:
            assert earlier is not None
            assert earlier[0] != fingerprint
        except TooManyActiveJobs:
            assert self.active(agent) + count > AGENT_LIMIT
        except QueueFull:
            assert len(self.waiting()) + count > QUEUE_LIMIT
        else:
            assert answer.replayed == (earlier is not None)
            if earlier is not None:
                assert (fingerprint, answer.job_ids) == earlier[:2]
                return
            assert len(self.waiting()) + count <= QUEUE_LIMIT
            assert self.active(agent) + count <= AGENT_LIMIT
            self.jobs |= {job_id: Expected(agent, key) for job_id in answer.job_ids}
            if name:
                self.answers[agent, name] = (fingerprint, answer.job_ids, self.clock())

    @rule(worker=st.sampled_from(("w1", "w2")), limit=st.integers(1, 4))
    def lease(self, worker: str, limit: int) -> None:
        self.end_dead_runs()
        waiting = self.waiting()
        leased = self.store.lease(worker, limit, LEASE)
        ids = [job.id for job in leased]
        assert len(set(ids)) == len(ids)
        assert set(ids) <= set(waiting)
        if waiting:
            assert ids[0] == self.next_in_turn()
            first = waiting[ids[0]]
            mates = [job for job_id, job in waiting.items() if job.key == first.key and job.attempts < 2]
            assert len(ids) == (1 if first.attempts >= 2 else min(limit, len(mates)))
            assert all(waiting[job_id] in mates for job_id in ids[1:])
        for job in leased:
            expected = self.jobs[job.id]
            assert job.fence > expected.fence
            expected.status, expected.fence, expected.started = Status.PROCESSING, job.fence, self.clock()
            expected.attempts += 1
            expected.lease_end = self.clock() + timedelta(seconds=LEASE)
        self.leases += leased

    def end_dead_runs(self) -> None:
        for job in self.jobs.values():
            if job.status is Status.PROCESSING and job.lease_end <= self.clock():
                if job.attempts >= 3 and not job.cancel_requested:
                    job.finish(Status.FAILED, self.clock())
                else:
                    job.leave(self.clock())

    def next_in_turn(self) -> str:
        """Return the oldest job of the agent whose latest run began longest ago."""

        def turn(job_id: str) -> tuple[datetime, str]:
            starts = [job.started for job in self.jobs.values() if job.agent == self.jobs[job_id].agent]
            return max((start for start in starts if start is not None), default=START - timedelta(1)), job_id

        oldest = {
            agent: min((i for i, job in self.waiting().items() if job.agent == agent), default="") for agent in AGENTS
        }
        return min(filter(None, oldest.values()), key=turn)

    @rule(worker=st.sampled_from(("w1", "w2")))
    def beat(self, worker: str) -> None:
        mine = [job for job in self.leases if job.lease_owner == worker]
        reports = [Report(job, job.progress, job.current_step, job.eta_seconds) for job in mine[-8:]]
        beat = self.store.report(worker, reports, LEASE)
        assert list(beat.held) == [self.store.get(job.id, job.agent_id) for job in mine[-8:] if self.holds(job)]
        assert list(beat.lost) == [job for job in mine[-8:] if not self.holds(job)]
        for job in beat.held:
            self.jobs[job.id].lease_end = self.clock() + timedelta(seconds=LEASE)

    def holds(self, lease: Job) -> bool:
        job = self.jobs.get(lease.id)
        return job is not None and job.status is Status.PROCESSING and job.fence == lease.fence

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 99), act=st.sampled_from(("progress", "complete", "complete", "fail", "stop", "release")))
    def report(self, pick: int, act: str) -> None:
        lease = self.leases[-1 - pick % len(self.leases)]
        writes: dict[str, Callable[[], Job]] = {
            "progress": lambda: report_progress(self.store, lease, pick, "denoise", 1.5),
            "complete": lambda: self.store.complete(lease, mesh_file(f"{lease.id}.glb"), "{}"),
            "fail": lambda: self.store.fail(lease, NoSurface()),
            "stop": lambda: self.store.stop_cancelled(lease),
            "release": lambda: self.store.release(lease),
        }
        write = writes[act]
        if not self.holds(lease):
            with pytest.raises(LeaseLost):
                write()
            return
        write()
        job = self.jobs[lease.id]
        if act == "release":
            job.attempts -= 1
            job.leave(self.clock())
        elif act == "progress":
            job.lease_end = self.clock() + timedelta(seconds=LEASE)
        else:
            ends = {"complete": Status.COMPLETED, "fail": Status.FAILED, "stop": Status.CANCELLED}
            job.finish(ends[act], self.clock())

    @precondition(lambda self: self.jobs)
    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        job_id, job = list(self.jobs.items())[pick % len(self.jobs)]
        self.store.cancel(job_id, job.agent)
        if job.status is Status.QUEUED:
            job.finish(Status.CANCELLED, self.clock())
        if not job.status.finished or job.status is Status.CANCELLED:
            job.cancel_requested = True

    @rule(seconds=st.sampled_from((0.5, 30, LEASE, 3600, 86400)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.end_dead_runs()
        self.store.reclaim()

    @rule(age=st.sampled_from((30, 3600)))
    def expire(self, age: float) -> None:
        before = self.clock() - timedelta(seconds=age)
        due = {job_id for job_id, job in self.jobs.items() if job.finished is not None and job.finished <= before}
        expired = self.store.expired(before)
        assert {job.id for job in expired} == due
        assert self.store.remove(expired) == len(due)
        for job_id in due:
            del self.jobs[job_id]

    @rule(age=st.sampled_from((3600, 86400)))
    def expire_waiting(self, age: float) -> None:
        self.store.expire_queued(self.clock() - timedelta(seconds=age))
        for job_id, job in self.waiting().items():
            if self.created(job_id) <= self.clock() - timedelta(seconds=age):
                job.finish(Status.FAILED, self.clock())

    def created(self, job_id: str) -> datetime:
        return self.store.get(job_id, self.jobs[job_id].agent).created_at

    @invariant()
    def the_store_agrees(self) -> None:
        found = {job.id: job for agent in AGENTS for job in self.store.list_jobs(agent, None, 1000).jobs}
        assert set(found) == set(self.jobs)
        for job_id, expected in self.jobs.items():
            job = found[job_id]
            assert (job.status, job.attempts) == (expected.status, expected.attempts)
            assert job.agent_id == expected.agent
            assert job.finished_at == expected.finished
            if not job.status.finished:
                assert job.cancel_requested == expected.cancel_requested

    def teardown(self) -> None:
        """One worker that does its work brings every job to its end."""
        self.clock.advance(LEASE)
        for _ in range(len(self.jobs) + 1):
            known = len(self.leases)
            self.lease("last", 4)
            for job in self.leases[known:]:
                self.store.complete(job, mesh_file(f"{job.id}.glb"), "{}")
                self.jobs[job.id].finish(Status.COMPLETED, self.clock())
        self.the_store_agrees()
        assert all(job.status.finished for job in self.jobs.values())


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_history_loses_a_job_or_finishes_one_twice(backend: str, tmp_path: Path) -> None:
    database = Database.open(empty_database(backend, tmp_path))
    try:
        run_state_machine_as_test(cast(type[JobHistory], lambda: JobHistory(database)), settings=SIZES)
    finally:
        database.close()
