"""What is said of jobs' future: from one reading of the queue, and kept to unless something new comes in front."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backend.jobs.changes import Changes
from backend.jobs.health import Health
from backend.jobs.models import QueueCounts, Report
from backend.jobs.outlook import Outlook, Outlooks
from backend.jobs.stage_times import Measured, StageTimes, Workload
from backend.jobs.store import JobStore
from backend.jobs.worker_registry import WorkerState, WorkerStatus
from backend.storage.database import Database
from tests.support.store_backends import ManualClock, mesh_file, submit

_STAGES = {"preprocess": 0.0, "encode": 0.0, "sample": 8.0, "decode": 1.0, "mesh": 0.5, "finish": 0.3, "export": 0.2}


class Scene:
    """A store with a clock that time passes on by hand, and one worker that takes 10 s for a job."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.changes = Changes()
        self.clock = clock
        self.store = JobStore(database, clock, changes=self.changes)
        self.read = 0
        self.workers = [self.worker("w")]
        self._begun = clock.now
        line = self.store.line

        def counted(limit: int) -> object:
            self.read += 1
            return line(limit)

        self.store.line = counted  # type: ignore[method-assign,assignment]
        self.outlooks = Outlooks(self.store, self.health, self.workload, self.changes, clock, self.monotonic)

    def worker(self, owner: str, seconds: float = 10.0) -> WorkerState:
        times = StageTimes(default_steps=10, batch_size=1)
        times.note(Measured(Workload(10, 128), {stage: part * seconds / 10 for stage, part in _STAGES.items()}))
        return WorkerState(owner, WorkerStatus.READY, stage_times=times.to_json())

    def monotonic(self) -> float:
        return (self.clock.now - self._begun).total_seconds()

    def health(self) -> Health:
        return Health(QueueCounts(0, 0, None), tuple(self.workers))

    @staticmethod
    def workload(_request: str, default_steps: int) -> Workload:
        return Workload(default_steps, 128)

    def of(self, *ids: str) -> list[Outlook]:
        jobs = [self.store.get(job_id, "ann") for job_id in ids]
        found = self.outlooks.of(jobs)
        return [found[job_id] for job_id in ids]

    def eta(self, job_id: str) -> float | None:
        return self.of(job_id)[0].eta_seconds


@pytest.fixture
def scene(database: Database, clock: ManualClock) -> Scene:
    return Scene(database, clock)


def test_many_jobs_take_one_reading(scene: Scene) -> None:
    ids = submit(scene.store, "ann", 3)
    assert scene.of(*ids) == [Outlook(1, 10.0), Outlook(2, 19.0), Outlook(3, 28.0)]
    assert scene.read == 1
    assert scene.of(*ids)[2] == Outlook(3, 28.0)
    assert scene.read == 1


def test_time_left_falls_with_the_clock_and_the_queue_is_read_anew_each_second(scene: Scene) -> None:
    (job_id,) = submit(scene.store, "ann", 1)
    assert scene.eta(job_id) == 10.0
    scene.clock.advance(0.6)
    assert scene.eta(job_id) == pytest.approx(9.4)
    assert scene.read == 1
    scene.clock.advance(0.6)
    scene.eta(job_id)
    assert scene.read == 2


def test_what_this_process_writes_is_seen_at_once(scene: Scene) -> None:
    first, second = submit(scene.store, "ann", 2)
    assert scene.of(second) == [Outlook(2, 19.0)]
    scene.store.cancel(first, "ann")
    assert scene.of(second) == [Outlook(1, 10.0)]


def test_a_job_that_another_process_has_put_in_is_found(scene: Scene, database: Database) -> None:
    (first,) = submit(scene.store, "ann", 1)
    scene.eta(first)
    scene.clock.advance(0.1)
    (second,) = submit(JobStore(database, scene.clock), "ann", 1)
    scene.clock.advance(0.1)
    assert scene.of(second)[0].queue_position == 2


def test_a_running_job_is_as_its_worker_reported_less_the_time_since(scene: Scene) -> None:
    submit(scene.store, "ann", 1)
    (leased,) = scene.store.lease("w", 1, 60)
    scene.store.report("w", [Report(leased, 40, "sample 4/10", 6.0)], 60)
    assert scene.of(leased.id) == [Outlook(None, 6.0)]
    scene.clock.advance(2.5)
    assert scene.of(leased.id) == [Outlook(None, 3.5)]
    scene.clock.advance(60)
    assert scene.eta(leased.id) == 0.0


def test_nothing_is_foreseen_of_what_has_finished(scene: Scene) -> None:
    submit(scene.store, "ann", 1)
    (leased,) = scene.store.lease("w", 1, 60)
    scene.store.complete(leased, mesh_file("mesh.glb"), "{}")
    (outlook,) = scene.of(leased.id)
    assert (outlook.queue_position, outlook.eta_seconds) == (None, None)
    assert scene.read == 0


def slower(scene: Scene) -> None:
    scene.workers = [scene.worker("w", seconds=40.0)]


def another_came(scene: Scene) -> None:
    slower(scene)
    submit(scene.store, "bob", 1)


@pytest.mark.parametrize(("put_off", "said"), [(slower, 20.9), (another_came, 112.0)])
def test_time_left_rises_by_little_unless_something_new_came_in_front(
    scene: Scene, put_off: Callable[[Scene], None], said: float
) -> None:
    second = submit(scene.store, "ann", 2)[1]
    assert scene.eta(second) == 19.0
    put_off(scene)
    scene.clock.advance(1)
    assert scene.eta(second) == pytest.approx(said)


def test_it_does_not_creep_up_in_small_steps(scene: Scene) -> None:
    (job_id,) = submit(scene.store, "ann", 1)
    assert scene.eta(job_id) == 10.0
    for seconds in (20.0, 40.0, 80.0):
        scene.workers = [scene.worker("w", seconds=seconds)]
        scene.clock.advance(1)
        assert scene.eta(job_id) == 11.0


def test_a_worker_that_went_or_a_run_that_died_may_put_it_off(scene: Scene) -> None:
    scene.workers = [scene.worker("w"), scene.worker("v")]
    second = submit(scene.store, "ann", 2)[1]
    assert scene.eta(second) == 10.0
    scene.workers = [scene.worker("w")]
    scene.clock.advance(1)
    assert scene.eta(second) == 19.0
    for _ in range(2):
        (leased,) = scene.store.lease("w", 1, 60)
        scene.store.report("w", [Report(leased, 90, "mesh", 0.5)], 60)
        assert scene.eta(leased.id) == 0.5
        scene.store.release(leased)
    (leased,) = scene.store.lease("w", 1, 60)
    assert (scene.eta(leased.id) or 0.0) > 5.0


def test_behind_the_jobs_that_are_played_position_decides(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.jobs.outlook._PLAYED", 2)
    ids = submit(scene.store, "ann", 4)
    assert scene.of(*ids) == [Outlook(1, 10.0), Outlook(2, 19.0), Outlook(3, 28.5), Outlook(4, 38.0)]


def test_only_the_latest_promises_are_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.jobs.outlook._REMEMBERED", 1)
    first, second = submit(scene.store, "ann", 2)
    scene.of(first, second)
    slower(scene)
    scene.clock.advance(1)
    assert scene.eta(second) == pytest.approx(20.9)
    assert scene.eta(first) == 40.0
