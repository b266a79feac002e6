"""What is over is removed exactly when it is, whatever dies or fails in between, on every database."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from backend.auth.nonces_sql import SqlNonceStore
from backend.errors import ArtifactStoreUnavailable, JobNotFound, ServiceError
from backend.jobs.janitor import Janitor, Swept
from backend.jobs.models import IdempotencyKey, Job, NewFile, NewJob, Status
from backend.jobs.store import JobStore
from backend.periodic import PeriodicTask
from backend.storage.artifacts import ArtifactStore
from backend.storage.database import Database
from backend.storage.files import FileStore, LocalFiles, new_name, temporary_name
from tests.support.file_places import empty_place
from tests.support.store_backends import START, ManualClock, mesh_file, open_database

TTL = timedelta(hours=24)
MICROSECOND = timedelta(microseconds=1)
LEASE = 60


@dataclass(frozen=True)
class House:
    """A job table with its files, and what happens in it."""

    store: JobStore
    folder: Path
    clock: ManualClock

    @property
    def images(self) -> LocalFiles:
        return LocalFiles(self.folder / "inputs", self.clock)

    @property
    def artifacts(self) -> ArtifactStore:
        return ArtifactStore(LocalFiles(self.folder / "artifacts", self.clock))

    def janitor(self, limit: int = 500) -> Janitor:
        return Janitor(self.store, self.artifacts, self.images, self.clock, TTL, limit=limit)

    def submit(self, agent: str = "ann") -> str:
        image = new_name("png")
        self.images.put(image, b"picture")
        (job_id,) = self.store.submit(agent, [NewJob("{}", "key", image)], queue_limit=9999, agent_limit=9999).job_ids
        return job_id

    def run_one(self) -> Job:
        (job,) = self.store.lease("worker", 1, LEASE)
        return job

    def finish_one(self) -> Job:
        """Finish a job, with its image left where it is."""
        self.submit()
        return self.store.complete(self.run_one(), mesh_file(self.artifacts.write(b"mesh", "glb")), "{}")

    def files(self) -> set[str]:
        return {path.name for path in self.folder.glob("*/*")}

    def status(self, job_id: str) -> Status | None:
        """None when there is no such job."""
        return {job.id: job.status for job in self.store.list_jobs("ann", None, 999).jobs}.get(job_id)


class Broken:
    """Files that cannot be reached, or not after some deletions."""

    def __init__(self, files: FileStore | ArtifactStore, deletions: int = 0) -> None:
        self.files = files
        self.deletions = deletions

    def delete(self, name: str) -> None:
        if self.deletions == 0:
            raise ArtifactStoreUnavailable
        self.deletions -= 1
        self.files.delete(name)

    def older_than(self, _time: datetime) -> Iterator[str]:
        raise ArtifactStoreUnavailable


@pytest.fixture
def house(store: JobStore, tmp_path: Path, clock: ManualClock) -> House:
    return House(store, tmp_path / "house", clock)


def codes(swept: Swept) -> list[str]:
    return [failure.code for failure in swept.failures]


def test_an_empty_house_needs_no_work(house: House) -> None:
    assert house.janitor().sweep() == Swept()


def test_a_finished_job_goes_with_its_files_exactly_when_its_time_is_over(house: House) -> None:
    job = house.finish_one()
    house.clock.now = START + TTL - MICROSECOND
    assert house.janitor().sweep() == Swept()
    assert house.files() == {job.artifact, job.image_name}
    house.clock.advance(0.000001)
    assert house.janitor().sweep() == Swept(expired=1)
    assert house.files() == set()
    with pytest.raises(JobNotFound):
        house.store.get(job.id, "ann")


def test_all_files_of_a_job_go_together_and_leave_their_names(house: House) -> None:
    house.submit()
    running = house.run_one()
    files = [NewFile("mesh", end, house.artifacts.write(b"mesh", end), 4) for end in ("glb", "stl")]
    files += [NewFile("image", "png", running.image_name, 7), NewFile("shape", "npz", f"{'0' * 32}.npz", 1)]
    job = house.store.complete(running, files, "{}")
    house.clock.advance(TTL.total_seconds())
    assert house.janitor().sweep() == Swept(expired=1)
    assert (house.files(), house.store.files.of(job)) == (set(), ())
    told = [house.store.expired_at(file.name, "ann") is not None for file in files]
    assert told == [True, True, True, False]


def test_a_deletion_that_broke_off_is_ended(house: House) -> None:
    job = house.finish_one()
    assert [file.name for file in house.store.files.begin_deletion(job)] == [job.artifact]
    assert house.janitor().sweep() == Swept(deleted=1)
    assert house.files() == {job.image_name}
    assert house.janitor().sweep() == Swept()


def test_the_time_runs_from_the_end_of_a_job(house: House) -> None:
    house.submit()
    running = house.run_one()
    house.clock.advance(TTL.total_seconds() * 2)
    house.store.complete(running, mesh_file(house.artifacts.write(b"mesh", "glb")), "{}")
    assert house.janitor().sweep().expired == 0
    assert house.status(running.id) is Status.COMPLETED


def test_failed_and_cancelled_jobs_expire_as_well(house: House) -> None:
    cancelled = house.submit()
    house.store.cancel(cancelled, "ann")
    house.submit()
    house.store.fail(house.run_one(), ServiceError("no"))
    house.clock.advance(TTL.total_seconds())
    assert house.janitor().sweep() == Swept(expired=2)
    assert house.files() == set()


def test_a_job_that_waited_too_long_fails_and_expires_later(house: House) -> None:
    job_id = house.submit()
    house.clock.now = START + TTL - MICROSECOND
    assert house.janitor().sweep() == Swept()
    house.clock.advance(0.000001)
    assert house.janitor().sweep() == Swept(overdue=1)
    job = house.store.get(job_id, "ann")
    assert (job.status, job.error_code) == (Status.FAILED, "EXPIRED")
    assert house.files() == set()
    house.clock.advance(TTL.total_seconds())
    assert house.janitor().sweep() == Swept(expired=1)


def test_dead_runs_return_to_the_queue_and_the_third_death_ends_the_job(house: House) -> None:
    job_id = house.submit()
    for expected in (Swept(requeued=1), Swept(requeued=1), Swept(died=1)):
        running = house.run_one()
        assert house.janitor().sweep() == Swept()
        assert house.files() == {running.image_name}
        house.clock.advance(LEASE)
        assert house.janitor().sweep() == expected
    assert house.status(job_id) is Status.FAILED
    assert house.files() == set()


def test_nothing_that_a_job_still_needs_is_touched(house: House) -> None:
    done, waiting = house.finish_one(), house.submit()
    house.submit("bob")
    house.clock.advance(TTL.total_seconds() / 2)
    running = house.store.lease("worker", 1, TTL.total_seconds() * 9)
    before = house.files()
    assert house.janitor().sweep() == Swept()
    assert house.files() == before
    assert house.store.get(done.id, "ann") == done
    house.clock.advance(TTL.total_seconds() / 2 + 3600)  # now the files are older than any orphan may be
    assert house.janitor().sweep() == Swept(expired=1, overdue=1)
    assert house.files() == {job.image_name for job in running}
    assert house.status(waiting) is Status.FAILED


def test_files_of_nobody_are_removed_when_they_are_old(house: House) -> None:
    orphan, image = house.artifacts.write(b"mesh", "glb"), new_name("png")
    house.images.put(image, b"picture")
    half = house.folder / "artifacts" / temporary_name(new_name("glb"))
    half.write_bytes(b"half")
    os.utime(half, (START.timestamp(), START.timestamp()))
    stranger = house.folder / "artifacts" / "notes.txt"
    stranger.write_text("not ours")
    os.utime(stranger, (0, 0))
    house.clock.now = START + TTL + timedelta(minutes=59)
    assert house.janitor().sweep() == Swept()
    house.clock.advance(61)
    assert house.janitor().sweep() == Swept(orphans=3)
    assert house.files() == {"notes.txt"}
    assert orphan not in house.files()


def test_a_search_for_orphans_rests_between_rounds(house: House) -> None:
    janitor = house.janitor()
    house.artifacts.write(b"mesh", "glb")
    house.clock.now = START + TTL + timedelta(hours=1)
    assert janitor.sweep() == Swept()  # not a moment too old yet
    house.clock.advance(599)
    assert janitor.sweep() == Swept()
    house.clock.advance(1)
    assert janitor.sweep() == Swept(orphans=1)


def test_a_sweep_is_bounded_and_the_next_goes_on(house: House) -> None:
    for _ in range(5):
        house.finish_one()
        house.submit("bob")
    for _ in range(3):
        house.artifacts.write(b"orphan", "stl")
        house.images.put(new_name("png"), b"orphan")
    house.clock.advance(TTL.total_seconds() + 7200)
    janitor = house.janitor(limit=2)
    sweeps = [janitor.sweep() for _ in range(16)]
    assert [sweep.expired for sweep in sweeps][:3] == [2, 2, 1]
    assert [sweep.overdue for sweep in sweeps][:3] == [2, 2, 1]
    assert max(sweep.orphans for sweep in sweeps) == 2
    assert sum(sweep.orphans for sweep in sweeps) == 6
    assert sweeps[0].more
    assert sweeps[-1] == Swept()
    assert house.files() == set()


@pytest.mark.parametrize("deletions", [0, 1, 2, 3])
def test_a_storage_that_fails_in_between_leaves_nothing_behind_for_ever(house: House, deletions: int) -> None:
    jobs = [house.finish_one() for _ in range(3)]
    house.clock.advance(TTL.total_seconds())
    broken = Broken(house.artifacts, deletions)
    swept = Janitor(house.store, broken, house.images, house.clock, TTL).sweep()
    assert swept.expired == deletions
    assert set(codes(swept)) == {"STORAGE_UNAVAILABLE"}
    left = [job.id for job in jobs if house.status(job.id)]
    assert len(left) == 3 - deletions
    assert len(house.files()) == 2 * len(left)
    assert house.janitor().sweep() == Swept(expired=len(left))
    assert house.files() == set()


def test_one_part_that_fails_keeps_no_other_from_its_work(house: House) -> None:
    house.finish_one()
    house.submit()
    dead = house.run_one()
    house.submit("bob")
    house.clock.advance(TTL.total_seconds())
    swept = Janitor(house.store, Broken(house.artifacts), Broken(house.images), house.clock, TTL).sweep()
    assert (swept.requeued, swept.overdue, swept.expired) == (1, 2, 0)
    assert set(codes(swept)) == {"STORAGE_UNAVAILABLE"}
    assert house.status(dead.id) is Status.FAILED
    house.clock.advance(TTL.total_seconds())
    assert house.janitor().sweep().expired == 3
    assert house.files() == set()


def test_a_job_that_names_no_file_of_ours_expires(house: House) -> None:
    house.store.submit("ann", [NewJob("{}", "key", "../elsewhere.png")], queue_limit=9, agent_limit=9)
    house.store.complete(house.run_one(), mesh_file("mesh.glb"), "{}")
    house.clock.advance(TTL.total_seconds())
    assert house.janitor().sweep() == Swept(expired=1)


def test_a_job_whose_files_are_gone_expires(house: House) -> None:
    job = house.finish_one()
    house.artifacts.delete(str(job.artifact))
    house.images.delete(job.image_name)
    house.clock.advance(TTL.total_seconds())
    assert house.janitor().sweep() == Swept(expired=1)


def test_several_janitors_share_the_work(house: House, url: str) -> None:
    for _ in range(20):
        house.finish_one()
        house.submit("bob")
    house.clock.advance(TTL.total_seconds())
    start = threading.Barrier(4)

    def sweep(_: int) -> list[Swept]:
        with open_database(url) as own:  # connections of its own, as another process would have
            mine = House(JobStore(own, house.clock), house.folder, house.clock)
            start.wait()
            janitor = mine.janitor(limit=7)
            return [janitor.sweep() for _ in range(12)]

    with ThreadPoolExecutor(4) as pool:
        sweeps = [swept for some in pool.map(sweep, range(4)) for swept in some]
    assert sum(swept.expired for swept in sweeps) == 20
    assert sum(swept.overdue for swept in sweeps) == 20
    assert {failure.code for swept in sweeps for failure in swept.failures} == set()
    assert house.files() == set()


def test_what_is_remembered_for_a_time_is_forgotten_after(house: House, database: Database) -> None:
    nonces = SqlNonceStore(database)
    for k in range(5):
        nonces.remember("ann", f"nonce-{k}", START, timedelta(seconds=600))
        house.store.submit(
            "ann",
            [NewJob("{}", "key", new_name("png"))],
            queue_limit=9,
            agent_limit=9,
            idempotency=IdempotencyKey(f"key-{k}", "f"),
        )
    janitor = Janitor(house.store, house.artifacts, house.images, house.clock, 9 * TTL, prunables=[nonces], limit=3)
    house.clock.now = START + timedelta(seconds=600)
    assert janitor.sweep() == Swept()
    house.clock.advance(0.000001)
    # Nonces go once a later request was accepted: the clock alone may say anything.
    assert janitor.sweep() == Swept()
    nonces.remember("ann", "nonce-new", house.clock.now, timedelta(seconds=600))
    assert janitor.sweep() == Swept(forgotten=3, more=True)
    assert janitor.sweep() == Swept(forgotten=2)
    house.clock.now = START + TTL - MICROSECOND
    assert janitor.sweep() == Swept()
    house.clock.advance(0.000001)
    assert janitor.sweep() == Swept(forgotten=3, more=True)
    assert janitor.sweep() == Swept(forgotten=2)


@pytest.mark.parametrize("kind", ["memory", "bucket"])
def test_files_behind_a_url_are_swept_as_well(house: House, kind: str, tmp_path: Path) -> None:
    place = empty_place(kind, tmp_path)
    meshes = ArtifactStore(place.files)
    house.submit()
    meshes.write(b"orphan", "glb")
    done = house.store.complete(house.run_one(), mesh_file(meshes.write(b"mesh", "glb")), "{}")
    janitor = Janitor(house.store, meshes, house.images, house.clock, TTL)
    house.clock.now = datetime.now(house.clock.now.tzinfo) + TTL + timedelta(hours=2)  # its clock is the storage's own
    assert done.artifact in place.names()
    swept = janitor.sweep()
    assert (swept.expired, swept.orphans, place.names()) == (1, 1, set())


class Scripted(Janitor):
    """A janitor whose sweeps are written beforehand; the last one goes on and on."""

    def __init__(self, sweeps: list[Swept | Exception]) -> None:
        self.sweeps = sweeps
        self.done = 0
        self.finished = threading.Event()

    def sweep(self) -> Swept:
        outcome = self.sweeps[min(self.done, len(self.sweeps) - 1)]
        self.done += 1
        if self.done == len(self.sweeps) + 1:
            self.finished.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def run_through(janitor: Scripted, seconds: float) -> None:
    thread = PeriodicTask("janitor", seconds, janitor.run_once)
    thread.start()
    assert janitor.finished.wait(20)
    thread.stop()


def test_a_thread_sweeps_until_it_is_stopped() -> None:
    janitor = Scripted([Swept()] * 5)
    before = set(threading.enumerate())
    run_through(janitor, 0.001)
    done = janitor.done
    assert done >= 6
    assert "janitor" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_work_that_was_left_is_not_waited_for() -> None:
    run_through(Scripted([Swept(more=True)] * 5), 3600)


def test_stopping_does_not_wait_for_the_next_sweep() -> None:
    thread = PeriodicTask("janitor", 3600, Scripted([Swept()]).run_once)
    thread.start()
    thread.stop()
    PeriodicTask("janitor", 3600, Scripted([Swept()]).run_once).stop()


def test_failures_are_told_when_they_change_and_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    away = Swept(failures=(ArtifactStoreUnavailable(),))
    caplog.set_level(logging.INFO, logger="backend.jobs.janitor")
    run_through(Scripted([away, away, RuntimeError("odd"), RuntimeError("odd"), away, Swept(), Swept()]), 0.001)
    told = [(record.levelname, record.getMessage().rpartition(": ")[2]) for record in caplog.records]
    assert told == [
        ("ERROR", "The file storage cannot be reached; try again later."),
        ("ERROR", "odd"),
        ("ERROR", "The file storage cannot be reached; try again later."),
        ("INFO", "The janitor can do all of its work again."),
    ]
