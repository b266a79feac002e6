"""Thirty hours of traffic with a moved clock: rows, files and nonces stay bounded, and expiry is exact.

A model in plain Python says after each step what must be there. The day is not a quiet one: workers die between the
file and the row, agents cancel, and for three hours no worker comes at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import Table, func, select

from backend.auth.nonces_sql import SqlNonceStore
from backend.errors import NoSurface
from backend.jobs.janitor import Janitor, Swept
from backend.jobs.models import IdempotencyKey, Job, NewJob, Status
from backend.jobs.schema import idempotency_keys, jobs, nonces, tombstones
from backend.jobs.store import JobStore
from backend.storage.artifacts import ArtifactStore
from backend.storage.database import Database
from backend.storage.files import LocalFiles, new_name
from tests.support.faults.report import report
from tests.support.faults.web_harness import sized
from tests.support.store_backends import BACKENDS, START, ManualClock, empty_database, mesh_file, open_database

STEP = timedelta(minutes=sized(30, 10))
TTL = timedelta(hours=2)
ORPHAN_AGE = TTL + timedelta(hours=1)
NONCE_TTL = timedelta(seconds=600)
KEY_TTL = timedelta(hours=24)
NAME_TTL = timedelta(days=7)
DAY = timedelta(hours=24)
AGENTS = ("ann", "bob")
BATCH = sized(5, 10)
POLLS = sized(4, 10)
HOURS = 30
WORKER_AWAY = range(5, 8)


@dataclass
class Day:
    """The service's stores, its traffic, and what must be in them."""

    store: JobStore
    database: Database
    folder: Path
    clock: ManualClock
    unfinished: dict[str, Job] = field(default_factory=dict)
    finished: dict[str, Job] = field(default_factory=dict)
    orphans: dict[str, datetime] = field(default_factory=dict)
    images_left: dict[str, str] = field(default_factory=dict)
    keys: list[datetime] = field(default_factory=list)
    submitted: list[tuple[str, datetime]] = field(default_factory=list)
    names_left: dict[str, datetime] = field(default_factory=dict)
    runs: int = 0
    dead: set[str] = field(default_factory=set)
    statuses: set[tuple[Status, str | None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.images = LocalFiles(self.folder / "inputs", self.clock)
        self.artifacts = ArtifactStore(LocalFiles(self.folder / "artifacts", self.clock))
        self.nonces = SqlNonceStore(self.database)
        self.janitor = Janitor(
            self.store, self.artifacts, self.images, self.clock, TTL, prunables=[self.nonces], limit=100
        )

    def submit(self, agent: str) -> None:
        """Submit a batch under an idempotency key, and cancel its last job at once."""
        names = [new_name("png") for _ in range(BATCH)]
        for name in names:
            self.images.put(name, b"picture")
        key = IdempotencyKey(f"{self.clock().isoformat()}", "fingerprint")
        answer = self.store.submit(
            agent,
            [NewJob("{}", "key", name) for name in names],
            queue_limit=1000,
            agent_limit=1000,
            idempotency=key,
        )
        self.keys.append(self.clock())
        self.submitted += [(agent, self.clock())] * BATCH
        batch = self.store.get_batch(str(answer.batch_id), agent)
        self.unfinished |= {job.id: job for job in batch.jobs}
        self.images_left |= {job.id: job.image_name for job in batch.jobs}
        self.note_finished(self.store.cancel(answer.job_ids[-1], agent))

    def poll(self, agent: str, times: int) -> None:
        for k in range(times):
            assert self.nonces.remember(agent, f"{self.clock().isoformat()}-{k}", self.clock(), NONCE_TTL)

    def work(self) -> None:
        """Run all that waits; some runs die after writing their file, some fail."""
        for job in self.store.lease("worker", 1000, 60):
            self.runs += 1
            if self.runs % 25 == 0:
                self.orphans[self.artifacts.write(b"mesh", "glb")] = self.clock()
                self.dead.add(job.id)
                continue
            if self.runs % 25 == 1:
                done = self.store.fail(job, NoSurface())
            else:
                done = self.store.complete(job, mesh_file(self.artifacts.write(b"mesh", "glb")), "{}")
            self.images.delete(self.images_left.pop(job.id))
            self.note_finished(done)

    def note_finished(self, job: Job) -> None:
        del self.unfinished[job.id]
        self.finished[job.id] = job
        self.statuses.add((job.status, job.error_code))

    def sweep(self) -> None:
        now = self.clock()
        while True:
            swept = self.janitor.sweep()
            assert swept.failures == ()
            if not swept.more:
                break
        old = [job for job in self.unfinished.values() if job.created_at <= now - TTL]
        for job in [job for job in old if job.id not in self.dead]:  # a dead run holds its job for its lease
            late = self.store.get(job.id, job.agent_id)
            assert (late.error_code, late.finished_at) == ("EXPIRED", now)
            del self.images_left[job.id]
            self.note_finished(late)
        for job in [job for job in self.finished.values() if job.finished_at and job.finished_at <= now - TTL]:
            del self.finished[job.id]
            self.images_left.pop(job.id, None)
            names = (job.id, job.batch_id, job.artifact)
            self.names_left |= {name: now for name in names if name is not None}
        self.orphans = {name: written for name, written in self.orphans.items() if written >= now - ORPHAN_AGE}
        self.keys = [given for given in self.keys if given > now - KEY_TTL]
        self.names_left = {name: at for name, at in self.names_left.items() if at > now - NAME_TTL}
        self.submitted = [(agent, at) for agent, at in self.submitted if at > now - DAY]

    def check(self) -> None:
        with self.database.read() as connection:
            ids = set(connection.execute(select(jobs.c.id)).scalars())
            names = set(connection.execute(select(tombstones.c.name)).scalars())
        assert ids == {*self.unfinished, *self.finished}
        assert names == self.names_left.keys()
        for agent in AGENTS:
            assert self.store.usage(agent).daily == sum(who == agent for who, _ in self.submitted)
        meshes = {job.artifact for job in self.finished.values() if job.artifact}
        there = {path.name for path in self.folder.glob("*/*")}
        assert there == {*self.orphans, *self.images_left.values(), *meshes}
        assert self.count(idempotency_keys) == len(self.keys)

    def count(self, table: Table) -> int:
        """Rows that belong to agents."""
        query = select(func.count()).where(table.c.agent_id != "")
        with self.database.read() as connection:
            return connection.execute(query).scalar_one()

    def disk(self) -> int:
        """Bytes of a SQLite database with its log; 0 of another."""
        return sum(path.stat().st_size for path in self.folder.parent.glob("jobs.sqlite3*"))


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory where there is one: tens of thousands of flushes to a disk would take minutes."""
    fast = Path("/dev/shm")  # noqa: S108
    with TemporaryDirectory(dir=fast if fast.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture(params=BACKENDS)
def day(request: pytest.FixtureRequest, memory_folder: Path, clock: ManualClock) -> Iterator[Day]:
    with open_database(empty_database(request.param, memory_folder)) as database:
        yield Day(JobStore(database, clock), database, memory_folder / "files", clock)


@pytest.mark.slow
def test_a_long_day_leaves_nothing_behind(day: Day, clock: ManualClock) -> None:
    steps_an_hour = timedelta(hours=1) // STEP
    submitted, disk_after_a_day, most_rows = 0, 0, 0
    for step in range(HOURS * steps_an_hour):
        for agent in AGENTS:
            day.submit(agent)
            day.poll(agent, POLLS)
            submitted += BATCH
        day.dead.clear()
        if step // steps_an_hour not in WORKER_AWAY:
            day.work()
        day.sweep()
        day.check()
        # Those of this step, and those of the one before, which end in this very moment.
        assert day.count(nonces) <= 2 * len(AGENTS) * POLLS
        most_rows = max(most_rows, day.count(jobs))
        if step == 24 * steps_an_hour:
            disk_after_a_day = day.disk()
        clock.advance(STEP.total_seconds())
    assert submitted == HOURS * steps_an_hour * len(AGENTS) * BATCH
    assert most_rows <= 2 * (TTL // STEP + 1) * len(AGENTS) * BATCH
    assert day.disk() <= 1.1 * disk_after_a_day
    assert day.statuses == {
        (Status.COMPLETED, None),
        (Status.CANCELLED, None),
        (Status.FAILED, "EXPIRED"),
        (Status.FAILED, "NO_SURFACE"),
    }
    calm_down(day)
    with day.database.read() as connection:
        backend = connection.dialect.name
    report(
        f"{HOURS} h of traffic in fast-forward ({backend})",
        f"{submitted:,} jobs",
        f"rows, files, keys and names of what expired as a model says after each of {HOURS * steps_an_hour} steps; "
        f"at most {most_rows} rows; expiry exact, and nothing but the last requests' nonces left at the end",
    )


def calm_down(day: Day) -> None:
    """No more requests come, and no worker: all goes, each thing at its time."""
    while day.keys or day.finished or day.unfinished or day.orphans or day.submitted:
        day.dead.clear()
        day.sweep()
        day.check()
        day.clock.advance(STEP.total_seconds())
        assert day.clock() < START + timedelta(hours=HOURS) + KEY_TTL + STEP
    assert day.names_left
    day.clock.advance((NAME_TTL - KEY_TTL + 2 * TTL + STEP).total_seconds())
    day.sweep()
    day.check()
    assert not day.names_left
    assert [day.count(table) for table in (jobs, idempotency_keys)] == [0, 0]
    # Those stay that ended with the last step or begin with it: that their time is over is the clock's word alone.
    assert day.count(nonces) == (1 + NONCE_TTL // STEP) * len(AGENTS) * POLLS
    assert list(day.folder.glob("*/*")) == []
    assert day.janitor.sweep() == Swept()
