"""A worker on bad days: jobs taken over, storage full or away, devices and processes lost; nothing is done twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from backend.errors import ArtifactStoreUnavailable, CheckpointNotFound, DeviceLost, StorageFull, StoreUnavailable
from backend.jobs.models import Heartbeat, Job, NewFile, Report, Status
from backend.jobs.store import JobStore
from backend.jobs.worker_registry import WorkerStatus
from backend.periodic import endless_retries
from backend.storage.artifacts import ArtifactStore
from backend.storage.files import LocalFiles
from tests.support.fake_gpu import FakeCall, FakeProcessor
from tests.support.store_backends import START, empty_database, mesh_file, open_database
from tests.support.workshop import FailingFiles, Workshop, eventually, workshop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    url = empty_database("sqlite", tmp_path)
    with open_database(url) as database, workshop(tmp_path, database) as made:
        yield made


class CutOff(JobStore):
    """A job table that hears no heartbeats while it is told so."""

    cut_off: bool

    def report(self, owner: str, reports: Sequence[Report], lease_seconds: float) -> Heartbeat:
        if self.cut_off:
            raise StoreUnavailable
        return super().report(owner, reports, lease_seconds)

    def poll(self, held: Sequence[Job]) -> list[Job]:
        if self.cut_off:
            raise StoreUnavailable
        return super().poll(held)


def test_a_run_that_was_taken_over_stops_and_changes_nothing(shop: Workshop) -> None:
    store = CutOff(shop.database, shop.clock)
    store.cut_off = True
    job_id = shop.submit()
    taken: list[Job] = []

    def take_over(step: int) -> None:
        if step == 2:
            shop.clock.advance(shop.settings.lease_seconds + 1)
            taken.extend(shop.store.lease("other", 1, 1000))
            store.cut_off = False
            eventually(lambda: shop.counts.outcomes["LEASE_LOST"] == 1)

    shop.fake.at_step = take_over
    shop.worker(store=store).run_once()
    assert shop.fake.calls[0].steps_done == 1
    assert [shop.job(job_id)] == taken
    assert (shop.files("artifacts"), len(shop.files("inputs"))) == ([], 1)


def test_a_worker_that_was_cut_off_keeps_a_job_that_nobody_took(shop: Workshop) -> None:
    store = CutOff(shop.database, shop.clock)
    store.cut_off = True
    job_id = shop.submit()

    def come_back(step: int) -> None:
        if step == 2:
            shop.clock.advance(shop.settings.lease_seconds + 1)
            store.cut_off = False
            eventually(lambda: shop.job(job_id).current_step == "sample 1/4")

    shop.fake.at_step = come_back
    shop.worker(store=store).run_once()
    assert (shop.job(job_id).status, shop.job(job_id).attempts) == (Status.COMPLETED, 1)


class TakenOver(ArtifactStore):
    """Files whose job is taken over and finished by another worker while they are written."""

    shop: Workshop

    def write(self, data: bytes, fmt: str) -> str:
        name = super().write(data, fmt)
        store = self.shop.store
        if fmt != "glb":
            return name
        self.shop.clock.advance(self.shop.settings.lease_seconds + 1)
        (job,) = store.lease("other", 1, 1000)
        store.complete(job, mesh_file(super().write(b"theirs", fmt)), "{}")
        return name


def test_a_late_result_is_thrown_away_with_its_file(shop: Workshop) -> None:
    job_id = shop.submit()
    artifacts = TakenOver(LocalFiles(shop.folder / "artifacts"))
    artifacts.shop = shop
    store = CutOff(shop.database, shop.clock)
    store.cut_off = True  # it beats too late
    assert shop.worker(artifacts=artifacts, store=store).run_once() == 1
    job = shop.job(job_id)
    assert (job.status, job.fence) == (Status.COMPLETED, 2)
    assert shop.files("artifacts") == [job.artifact] == shop.kept(job_id)
    assert job.artifact is not None
    assert (shop.folder / "artifacts" / job.artifact).read_bytes() == b"theirs"
    assert shop.counts.outcomes == {"LEASE_LOST": 1}


def test_a_full_disk_fails_the_job_by_name_and_leaves_no_file(shop: Workshop) -> None:
    files = FailingFiles(shop.folder / "artifacts", [StorageFull()])
    worker = shop.worker(artifacts=ArtifactStore(files))
    first = shop.submit()
    worker.run_once()
    assert (shop.job(first).status, shop.job(first).error_code) == (Status.FAILED, "STORAGE_FULL")
    assert shop.files("artifacts") == []
    second = shop.submit()
    worker.run_once()
    assert shop.job(second).status is Status.COMPLETED


class FillsUp(LocalFiles):
    """A folder whose disk is full from the second file of a job on."""

    written = 0

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        self.written += 1
        if self.written == 2:
            raise StorageFull
        super().put(name, data)


def test_a_disk_that_fills_between_two_formats_leaves_neither(shop: Workshop) -> None:
    job_id = shop.submit(formats=("glb", "stl"))
    shop.worker(artifacts=ArtifactStore(FillsUp(shop.folder / "artifacts"))).run_once()
    assert (shop.job(job_id).status, shop.job(job_id).error_code) == (Status.FAILED, "STORAGE_FULL")
    assert (shop.files("artifacts"), shop.kept(job_id)) == ([], [])


class Cancels(LocalFiles):
    """A folder whose job is cancelled while the second of its files is written."""

    shop: Workshop
    job_id = ""

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        super().put(name, data)
        if name.endswith(".stl"):
            self.shop.store.cancel(self.job_id, "ann")
            eventually(lambda: self.shop.job(self.job_id).status is Status.CANCELLED)


def test_a_job_cancelled_between_two_files_leaves_none(shop: Workshop) -> None:
    files = Cancels(shop.folder / "artifacts")
    files.shop, files.job_id = shop, shop.submit(formats=("glb", "stl", "ply"))
    shop.worker(artifacts=ArtifactStore(files)).run_once()
    assert shop.job(files.job_id).status is Status.CANCELLED
    assert shop.files("artifacts") == shop.files("inputs") == []


def test_a_file_is_written_when_its_storage_is_back(shop: Workshop) -> None:
    files = FailingFiles(shop.folder / "artifacts", [ArtifactStoreUnavailable()])
    job_id = shop.submit()
    shop.worker(artifacts=ArtifactStore(files)).run_once()
    assert shop.job(job_id).status is Status.COMPLETED


class Flaky(JobStore):
    """A job table that cannot be reached when it is told: before a write, or right after."""

    before: list[Exception]
    after: list[Exception]

    def lease(self, owner: str, limit: int, lease_seconds: float, *, batch_mates_of: Job | None = None) -> list[Job]:
        if self.before:
            raise self.before.pop()
        return super().lease(owner, limit, lease_seconds, batch_mates_of=batch_mates_of)

    def complete(self, job: Job, files: Sequence[NewFile], metadata: str) -> Job:
        done = super().complete(job, files, metadata)
        if self.after:
            raise self.after.pop()
        return done


def test_a_result_that_was_written_as_the_connection_broke_stays(shop: Workshop) -> None:
    store = Flaky(shop.database, shop.clock)
    store.before, store.after = [], [StoreUnavailable()]
    job_id = shop.submit()
    shop.worker(store=store).run_once()
    job = shop.job(job_id)
    assert job.status is Status.COMPLETED
    assert job.artifact in shop.kept(job_id)
    assert shop.files("artifacts") == shop.kept(job_id)
    assert shop.counts.outcomes == {"COMPLETED": 1}


def test_the_worker_outlives_a_job_table_that_is_away_full_or_odd(shop: Workshop) -> None:
    store = Flaky(shop.database, shop.clock)
    store.before, store.after = [RuntimeError("odd"), StorageFull(), StoreUnavailable()], []
    job_id = shop.submit()
    shop.worker(store=store).start()
    eventually(lambda: shop.job(job_id).status is Status.COMPLETED)
    assert store.before == []


def test_a_caller_of_run_once_learns_that_nothing_could_be_leased(shop: Workshop) -> None:
    store = Flaky(shop.database, shop.clock)
    store.before, store.after = [StoreUnavailable()], []
    with pytest.raises(StoreUnavailable):
        shop.worker(store=store).run_once()


def test_draining_finishes_what_runs_and_takes_nothing_new(shop: Workshop) -> None:
    worker = shop.worker()
    first = shop.submit(b"first")
    later: list[str] = []

    def drain(step: int) -> None:
        if step == 2:
            later.append(shop.submit(b"later"))
            worker.drain(60)

    shop.fake.at_step = drain
    worker.start()
    eventually(lambda: shop.job(first).status is Status.COMPLETED)
    worker.stop(60)
    assert (shop.job(later[0]).status, len(shop.fake.calls)) == (Status.QUEUED, 1)
    assert shop.registry.alive() == ()
    assert worker.run_once() == 0


def test_draining_hands_back_what_takes_too_long(shop: Workshop) -> None:
    worker = shop.worker()
    job_id = shop.submit()
    begun = threading.Event()

    def dawdle(step: int) -> None:
        if step == 2:
            begun.set()
            eventually(lambda: shop.job(job_id).status is Status.QUEUED)

    shop.fake.at_step = dawdle
    worker.start()
    assert begun.wait(20)
    worker.stop(0)
    assert (shop.job(job_id).status, shop.job(job_id).attempts) == (Status.QUEUED, 0)
    assert (shop.fake.calls[0].steps_done, shop.files("artifacts")) == (1, [])
    assert len(shop.files("inputs")) == 1
    assert shop.counts.outcomes == {"RELEASED": 1}
    shop.fake.at_step = lambda _: None
    shop.worker().run_once()
    assert shop.job(job_id).status is Status.COMPLETED


def test_a_worker_that_is_ended_in_mid_run_hands_its_jobs_back(shop: Workshop) -> None:
    def end(_: int) -> None:
        raise KeyboardInterrupt

    shop.fake.at_step = end
    ids = [shop.submit(bytes([k])) for k in range(2)]
    with pytest.raises(KeyboardInterrupt):
        shop.worker().run_once()
    assert [(shop.job(job_id).status, shop.job(job_id).attempts) for job_id in ids] == [(Status.QUEUED, 0)] * 2


class Interrupted(JobStore):
    """A job table at which a signal strikes when a lease is given, and nobody has it yet."""

    def lease(self, owner: str, limit: int, lease_seconds: float, *, batch_mates_of: Job | None = None) -> list[Job]:
        leased = super().lease(owner, limit, lease_seconds, batch_mates_of=batch_mates_of)
        if batch_mates_of is not None:
            raise SystemExit
        return leased


def test_jobs_that_were_leased_in_the_moment_of_the_end_are_handed_back(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(3)]
    with pytest.raises(SystemExit):
        shop.worker(store=Interrupted(shop.database, shop.clock)).run_once()
    assert [(shop.job(job_id).status, shop.job(job_id).attempts) for job_id in ids] == [(Status.QUEUED, 0)] * 3
    assert shop.fake.calls == []


def lose_device(shop: Workshop) -> None:
    def die(call: FakeCall) -> None:
        if b"poison" in call.images:
            shop.fake.lost = True
            raise RuntimeError("device-side assert triggered")

    shop.fake.before_call = die


def test_a_lost_device_costs_its_batch_one_attempt_and_ends_the_worker(shop: Workshop) -> None:
    lose_device(shop)
    broken = threading.Event()
    poison, other = shop.submit(b"poison"), shop.submit(b"other", steps=50)
    shop.worker(on_broken=broken.set).start()
    assert broken.wait(20)
    assert (shop.job(poison).status, shop.job(poison).attempts) == (Status.PROCESSING, 1)
    assert shop.job(other).status is Status.QUEUED
    eventually(lambda: [state.status for state in shop.registry.alive()] == [WorkerStatus.FAILED])


def test_a_picture_that_loses_the_device_each_time_fails_after_three_runs_and_nobody_else_does(shop: Workshop) -> None:
    lose_device(shop)
    ids = [shop.submit(image) for image in (b"a", b"poison", b"c")]
    deaths = 0
    for _ in range(10):  # each a new process
        shop.fake.lost = False
        worker = shop.worker()
        try:
            worker.run_once()
        except DeviceLost:
            deaths += 1
        worker.stop(0)
        shop.clock.advance(shop.settings.lease_seconds + 1)
    jobs = [shop.job(job_id) for job_id in ids]
    assert deaths == 3
    assert [job.status for job in jobs] == [Status.COMPLETED, Status.FAILED, Status.COMPLETED]
    assert (jobs[1].attempts, jobs[1].error_code) == (3, "GENERATION_FAILED")


def test_the_registry_says_whether_the_worker_can_serve(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.batch_processor._LOAD_RETRIES", endless_retries(0.3, 60.0))
    let_load = threading.Event()
    failures = [CheckpointNotFound()]

    def open_processor() -> FakeProcessor:
        assert let_load.wait(20)
        if failures:
            raise failures.pop()
        return shop.fake

    def said() -> list[tuple[WorkerStatus, str | None]]:
        return [(state.status, state.error) for state in shop.registry.alive()]

    worker = shop.worker(open_processor=open_processor, owner="worker-7")
    worker.start()
    eventually(lambda: said() == [(WorkerStatus.LOADING, None)])
    let_load.set()
    eventually(lambda: said() == [(WorkerStatus.FAILED, CheckpointNotFound().message)])
    eventually(lambda: said() == [(WorkerStatus.READY, None)])
    (state,) = shop.registry.alive()
    assert (state.owner, state.model, state.device_type, state.device_name) == ("worker-7", "fake model", "cpu", "fake")
    assert (state.memory_total, state.memory_free) == (8 << 30, 6 << 30)
    assert worker.status is WorkerStatus.READY
    worker.stop()
    assert shop.registry.alive() == ()


def test_a_model_that_cannot_be_loaded_is_told_to_a_caller_of_run_once(shop: Workshop) -> None:
    def open_processor() -> FakeProcessor:
        raise CheckpointNotFound

    worker = shop.worker(open_processor=open_processor)
    with pytest.raises(CheckpointNotFound):
        worker.load()
    eventually(lambda: [state.status for state in shop.registry.alive()] == [WorkerStatus.FAILED])


def run_in_a_process_of_its_own(folder: Path, now: datetime) -> None:
    """One worker's life until nothing waits, in which the picture `poison` kills it."""

    def die(call: FakeCall) -> None:
        if b"poison" in call.images:
            os.kill(os.getpid(), signal.SIGKILL)

    with open_database(f"sqlite:///{folder / 'jobs.sqlite3'}") as database, workshop(folder, database) as shop:
        shop.clock.now = now
        shop.fake.before_call = die
        shop.work_off()


def test_no_mesh_is_being_drawn_beside_a_job_that_must_run_alone(shop: Workshop) -> None:
    doomed = [shop.submit(image) for image in (b"one", b"two")]
    for _ in range(2):
        assert len(shop.store.lease("doomed", 4, 60)) == 2
        shop.clock.advance(60)
    late = shop.submit(b"late", steps=50)
    other = shop.submit(b"zero", agent_id="bob")  # whose turn it is first
    done_before: dict[bytes, int] = {}

    def look(call: FakeCall) -> None:
        jobs = [shop.store.get(other, "bob"), *map(shop.job, [*doomed, late])]
        done_before[call.images[0]] = sum(job.status.finished for job in jobs)

    shop.fake.before_call = look
    shop.fake.before_finish = lambda _: time.sleep(0.3)
    shop.work_off()
    assert done_before == {b"zero": 0, b"one": 1, b"two": 2, b"late": 3}


@pytest.mark.slow
def test_a_picture_that_kills_its_worker_costs_only_its_own_job(shop: Workshop) -> None:
    ids = [shop.submit(image) for image in (b"a", b"poison", b"c")]
    spawn = multiprocessing.get_context("spawn")
    codes = []
    for life in range(4):
        now = START + timedelta(seconds=life * (shop.settings.lease_seconds + 1))
        process = spawn.Process(target=run_in_a_process_of_its_own, args=(shop.folder, now))
        process.start()
        process.join(60)
        codes.append(process.exitcode)
    jobs = [shop.job(job_id) for job_id in ids]
    assert [job.status for job in jobs] == [Status.COMPLETED, Status.FAILED, Status.COMPLETED]
    assert (jobs[1].attempts, jobs[1].error_code) == (3, "GENERATION_FAILED")
    assert codes.count(-signal.SIGKILL) == 3
    assert shop.files("artifacts") == shop.kept(*ids)
