"""The resources that every process shares: opened as the settings say, swept, and reminded of what waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.config import Settings
from backend.errors import StoreUnavailable
from backend.jobs.models import NewJob, Status
from backend.resources import Resources
from backend.storage.files import new_name
from tests.support.store_backends import ManualClock, new_jobs
from tests.support.workshop import eventually


class CountingNotifier:
    def __init__(self) -> None:
        self.notifications = 0

    def notify(self) -> None:
        self.notifications += 1


def open_resources(
    folder: Path, url: str, notifier: CountingNotifier, clock: ManualClock, **settings: Any
) -> Resources:
    given = {"data_dir": folder, "database_url": url, "sweep_seconds": 0.1, **settings}
    return Resources.open(Settings(**given), notifier, clock=clock)


@pytest.fixture
def notifier() -> CountingNotifier:
    return CountingNotifier()


@pytest.fixture
def resources(url: str, tmp_path: Path, notifier: CountingNotifier, clock: ManualClock) -> Any:
    """Open resources whose threads do not run yet."""
    opened = open_resources(tmp_path, url, notifier, clock)
    yield opened
    opened.stop()


def submit(resources: Resources) -> str:
    (new,) = new_jobs(1)
    name = new_name("png")
    resources.images.put(name, b"picture")
    jobs = [NewJob(new.request, new.batch_key, name)]
    return resources.store.submit("ann", jobs, queue_limit=10, agent_limit=10).job_ids[0]


def test_nothing_is_swept_or_notified_before_the_start(
    resources: Resources, notifier: CountingNotifier, tmp_path: Path
) -> None:
    submit(resources)
    assert notifier.notifications == 0
    assert len(list((tmp_path / "inputs").iterdir())) == 1


def test_a_job_that_waits_is_reminded_of_again_and_again(resources: Resources, notifier: CountingNotifier) -> None:
    submit(resources)
    resources.start()
    eventually(lambda: notifier.notifications > 2)


def test_nobody_is_reminded_of_work_that_goes_on(resources: Resources, notifier: CountingNotifier) -> None:
    submit(resources)
    assert len(resources.store.lease("w", 1, 60)) == 1
    assert not resources.store.has_work()
    resources.reminder.start()
    resources.reminder.stop()
    assert notifier.notifications == 0


def test_a_run_that_died_is_reminded_of(resources: Resources, notifier: CountingNotifier, clock: ManualClock) -> None:
    submit(resources)
    resources.store.lease("w", 1, 60)
    clock.advance(61)
    resources.reminder.start()
    eventually(lambda: notifier.notifications > 0)


def test_what_is_over_is_cleared_away(resources: Resources, clock: ManualClock, tmp_path: Path) -> None:
    job_id = submit(resources)
    clock.advance(25 * 3600)
    resources.start()
    eventually(lambda: resources.store.get(job_id, "ann").status is Status.FAILED)
    eventually(lambda: list((tmp_path / "inputs").iterdir()) == [])


def test_resources_without_a_job_table_are_not_opened(
    tmp_path: Path, notifier: CountingNotifier, clock: ManualClock
) -> None:
    with pytest.raises(StoreUnavailable):
        open_resources(tmp_path, f"postgresql://orfeas@/postgres?host={tmp_path}", notifier, clock)


def test_settings_say_how_often_a_job_may_die(tmp_path: Path, notifier: CountingNotifier, clock: ManualClock) -> None:
    resources = open_resources(tmp_path, "", notifier, clock, max_attempts=1)
    job_id = submit(resources)
    resources.store.lease("w", 1, 60)
    clock.advance(61)
    resources.store.reclaim()
    assert resources.store.get(job_id, "ann").status is Status.FAILED
    resources.stop()
