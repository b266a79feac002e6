"""The child of a worker: which notifications it runs jobs for and passes on, and what keeps it from being ready."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from backend.config import Settings
from backend.errors import CheckpointError, DeviceLost
from backend.jobs.models import NewJob, Status
from backend.jobs.worker_registry import WorkerStatus
from backend.periodic import endless_retries
from backend.resources import Resources
from backend.runner.watchdog import Watchdog
from backend.storage.files import new_name
from backend.validation import GenerationFields, resolve
from backend.worker import child as worker_child
from backend.worker.celery_app import GRACE_SECONDS, make_celery
from backend.worker.celery_notifier import CeleryNotifier
from backend.worker.child import JobRunner, WorkerChild
from backend.worker.parent_watch import ParentWatch
from tests.support.fake_gpu import FakeCall, FakeProcessor
from tests.support.store_backends import START, ManualClock
from tests.support.workshop import eventually


class HeldLine(ParentWatch):
    """Be cut by a test."""

    def __init__(self) -> None:
        self.then: Callable[[bool], None] | None = None
        self.is_cut = False

    def ask(self) -> None:
        assert self.then is not None
        threading.Thread(target=self.then, args=[False]).start()

    def watch(self, then: Callable[[bool], None]) -> None:
        self.then = then


class Shop:
    """A runner with resources of its own, whose notifications are counted."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(
            data_dir=folder, broker_url="redis://127.0.0.1:1/0", max_batch_size=2, batch_wait_seconds=0, drain_seconds=9
        )
        self.notifications = 0
        self.notifier = CeleryNotifier(make_celery(self.settings), send=self._notify)
        self.resources = Resources.open(self.settings, self.notifier, clock=ManualClock(START))
        self.fake = FakeProcessor()
        self.runner = JobRunner(self.settings, self.resources, self.notifier, lambda: self.fake, Watchdog(1))

    def _notify(self) -> None:
        self.notifications += 1

    def notified(self) -> int:
        assert self.notifier.flush(20)
        return self.notifications

    def submit(self, count: int) -> list[str]:
        return submitted(self.resources, count)

    def states(self, ids: list[str]) -> list[Status]:
        return [self.resources.store.get(job_id, "ann").status for job_id in ids]


def submitted(resources: Resources, count: int) -> list[str]:
    """Jobs that may share a batch; their ids."""
    request = resolve(GenerationFields(quality=1), lambda: 7)
    names = [new_name("png") for _ in range(count)]
    for name in names:
        resources.images.put(name, b"picture")
    new = [NewJob(request.to_json(), request.batch_key("fake"), name) for name in names]
    return list(resources.store.submit("ann", new, queue_limit=100, agent_limit=100).job_ids)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.runner.drain(0)
    made.runner.end()


def test_a_notification_runs_one_batch_of_jobs(shop: Shop) -> None:
    ids = shop.submit(2)
    assert shop.runner.run_batch() == 2
    eventually(lambda: shop.states(ids) == [Status.COMPLETED] * 2)
    assert shop.notified() == 0


def test_the_device_runs_the_next_jobs_while_a_mesh_is_recorded(shop: Shop) -> None:
    ids = shop.submit(3)
    recording = threading.Event()
    shop.fake.before_finish = lambda _: recording.wait(20)
    assert (shop.runner.run_batch(), shop.runner.run_batch()) == (2, 1)
    assert Status.COMPLETED not in shop.states(ids)
    recording.set()
    eventually(lambda: shop.states(ids) == [Status.COMPLETED] * 3)


def test_a_child_that_ends_waits_for_what_is_being_recorded(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    (job_id,) = shop.submit(1)
    recording = threading.Event()
    shop.fake.before_finish = lambda _: recording.wait(20)
    assert shop.runner.run_batch() == 1
    threading.Timer(0.2, recording.set).start()
    shop.runner.end()
    resources = Resources.open(shop.settings, shop.notifier)
    assert resources.store.get(job_id, "ann").status is Status.COMPLETED
    resources.stop()


def test_meshes_have_what_is_left_of_a_drain_when_celery_ends_the_child(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    ids = shop.submit(2)
    recording = threading.Event()
    shop.fake.before_finish = lambda _: recording.wait(20)
    assert shop.runner.run_batch() == 2
    # As Celery does it at SIGTERM: the child is told to drain, and as the device is free, to end at once.
    shop.runner.drain(9)
    threading.Timer(1.5, recording.set).start()
    shop.runner.end()
    resources = Resources.open(shop.settings, shop.notifier)
    found = [resources.store.get(job_id, "ann") for job_id in ids]
    assert [(job.status, job.attempts, job.fence) for job in found] == [(Status.COMPLETED, 1, 1)] * 2
    resources.stop()


def test_a_drain_is_made_shorter_by_another_and_never_longer(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    ids = shop.submit(1)
    recording = threading.Event()
    shop.fake.before_finish = lambda _: recording.wait(20)
    assert shop.runner.run_batch() == 1
    shop.runner.drain(0)
    shop.runner.drain(3600)
    eventually(lambda: shop.states(ids) == [Status.QUEUED])
    recording.set()
    shop.runner.end()


def test_a_notification_with_nothing_to_do_ends_there(shop: Shop) -> None:
    assert shop.runner.run_batch() == 0
    assert shop.notified() == 0


def test_more_than_a_batch_is_passed_on_before_it_runs(shop: Shop) -> None:
    shop.submit(5)
    at_the_call: list[int] = []
    shop.fake.before_call = lambda _: at_the_call.append(shop.notified())
    assert shop.runner.run_batch() == 2
    assert at_the_call == [1]
    assert shop.notified() == 1


def test_jobs_that_came_while_a_batch_ran_are_passed_on_after_it(shop: Shop) -> None:
    shop.submit(2)

    def one_more(_: FakeCall) -> None:
        shop.submit(1)

    shop.fake.before_call = one_more
    assert shop.runner.run_batch() == 2
    assert shop.notified() == 1


def test_a_notification_that_comes_to_a_draining_worker_is_for_another(shop: Shop) -> None:
    ids = shop.submit(1)
    shop.runner.drain(0)
    assert shop.runner.run_batch() == 0
    assert shop.states(ids) == [Status.QUEUED]
    assert shop.notified() == 1


def test_a_lost_device_calls_for_another_worker(shop: Shop) -> None:
    shop.submit(1)

    def break_device(_: FakeCall) -> None:
        shop.fake.lost = True
        raise RuntimeError("device-side assert triggered")

    shop.fake.before_call = break_device
    with pytest.raises(DeviceLost):
        shop.runner.run_batch()
    assert shop.notified() == 1


def test_a_job_table_that_is_away_costs_only_the_notification(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.submit(1)
    (database,) = shop.settings.data_dir.glob("orfeas.sqlite3")
    shop.resources.database.close()
    kept = database.read_bytes()
    for path in shop.settings.data_dir.glob("orfeas.sqlite3*"):
        path.unlink()
    database.mkdir()
    assert shop.runner.run_batch() == 0
    assert "No jobs can be run now" in caplog.text
    database.rmdir()
    database.write_bytes(kept)
    assert shop.runner.run_batch() == 1


class Child:
    """A child in this process, on a held parent watch."""

    def __init__(self, folder: Path, open_processor: Callable[[], Any]) -> None:
        self.settings = Settings(
            data_dir=folder, broker_url="redis://127.0.0.1:1/0", drain_seconds=9, sweep_seconds=3600
        )
        self.line = HeldLine()
        self.child = WorkerChild(self.settings, self.line, open_processor)

    def cut(self, orphaned: bool = False) -> None:
        assert self.line.then is not None
        self.line.then(orphaned)


@pytest.fixture
def watchdogs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """When the kernel was asked to end the process."""
    asked: list[int] = []
    monkeypatch.setattr(signal, "alarm", asked.append)
    monkeypatch.setattr(worker_child, "_START_RETRIES", endless_retries(0.01, 30.0))
    return asked


def test_a_model_that_cannot_be_loaded_is_tried_again_until_it_can(tmp_path: Path, watchdogs: list[int]) -> None:
    failures: list[Exception] = [CheckpointError("The weights are cut short."), RuntimeError("CUDA is busy")]

    def open_processor() -> FakeProcessor:
        if failures:
            raise failures.pop(0)
        return FakeProcessor()

    made = Child(tmp_path, open_processor)
    made.child.begin()
    resources = Resources.open(made.settings, CeleryNotifier(make_celery(made.settings), send=lambda: None))
    # A child that failed at first must not be taken for a failed one for ever.
    eventually(lambda: [each.status for each in resources.registry.alive()] == [WorkerStatus.READY])
    made.cut()
    made.child.end()
    assert resources.registry.alive() == ()
    resources.stop()
    assert watchdogs == [9 + GRACE_SECONDS]


def test_a_child_that_is_told_to_stop_loads_no_more(tmp_path: Path, watchdogs: list[int]) -> None:
    def open_processor() -> FakeProcessor:
        made.cut(orphaned=True)
        raise CheckpointError("There is no model.")

    made = Child(tmp_path, open_processor)
    made.child.begin()
    made.child.work()
    made.child.end()
    # Whose parent has died gives nothing any time; no notification puts off the end.
    assert watchdogs == [GRACE_SECONDS]


def test_a_child_that_was_stopped_before_it_could_open_anything_ends(tmp_path: Path, watchdogs: list[int]) -> None:
    made = Child(tmp_path, FakeProcessor)
    (tmp_path / "orfeas.sqlite3").mkdir()
    told: list[str] = []

    def wait(_seconds: float) -> bool:
        told.append("rests")
        made.cut()
        return True

    made.child._ending.wait = wait  # type: ignore[method-assign, assignment]
    made.child.begin()
    made.child.work()
    made.child.end()
    assert told == ["rests"]
    assert watchdogs == [9 + GRACE_SECONDS]


def test_a_batch_that_hangs_is_bounded(tmp_path: Path, watchdogs: list[int]) -> None:
    made = Child(tmp_path, lambda: processor)
    at_the_call: list[list[int]] = []
    processor = FakeProcessor(before_call=lambda _: at_the_call.append(list(watchdogs)))
    made.child.begin()
    assert watchdogs == []
    resources = Resources.open(made.settings, CeleryNotifier(make_celery(made.settings), send=lambda: None))
    submitted(resources, 1)
    made.child.work()
    assert at_the_call == [[made.settings.batch_seconds]]
    made.cut()
    made.child.end()
    resources.stop()
    assert watchdogs[-1] == 9 + GRACE_SECONDS
    assert 0 in watchdogs


@pytest.fixture
def celery_s_handler() -> Iterator[None]:
    """Celery's answer to SIGTERM in a child."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(number - 256)

    before = signal.signal(signal.SIGTERM, leave)
    yield
    signal.signal(signal.SIGTERM, before)


def sigterm(times: int) -> Callable[[FakeCall], None]:
    """Send this process so many SIGTERMs when the device is called."""

    def send(_: FakeCall) -> None:
        for _time in range(times):
            signal.raise_signal(signal.SIGTERM)

    return send


@pytest.mark.parametrize("parent_ends", [True, False])
@pytest.mark.usefixtures("watchdogs", "celery_s_handler")
def test_sigterm_lets_the_batch_finish_and_ends_the_child_after_it(tmp_path: Path, parent_ends: bool) -> None:
    made = Child(tmp_path, lambda: processor)
    processor = FakeProcessor(before_call=sigterm(1))
    made.child.begin()
    resources = Resources.open(made.settings, CeleryNotifier(make_celery(made.settings), send=lambda: None))
    first, *_ = submitted(resources, 2)
    made.line.is_cut = parent_ends
    with nullcontext() if parent_ends else pytest.raises(SystemExit):
        made.child.work()
    made.child.end()
    assert resources.store.get(first, "ann").status is Status.COMPLETED
    assert resources.registry.alive() == ()
    resources.stop()


@pytest.mark.usefixtures("watchdogs", "celery_s_handler")
def test_a_second_sigterm_hands_the_batch_back(tmp_path: Path) -> None:
    made = Child(tmp_path, lambda: processor)
    processor = FakeProcessor(before_call=sigterm(2))
    made.child.begin()
    resources = Resources.open(made.settings, CeleryNotifier(make_celery(made.settings), send=lambda: None))
    ids = submitted(resources, 2)
    with pytest.raises(SystemExit):
        made.child.work()
    made.child.end()
    found = [resources.store.get(job_id, "ann") for job_id in ids]
    assert [(job.status, job.attempts) for job in found] == [(Status.QUEUED, 0)] * 2
    resources.stop()
