"""The rooms that every process shares: opened as the settings say, swept, and reminded of what waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store_backends import ManualClock, new_jobs
from workshop import eventually

from backend.config import Settings
from backend.errors import StoreUnavailable
from backend.jobs import NewJob, Status
from backend.store.files import new_name
from backend.store.job_rooms import JobRooms


class CountingBell:
    def __init__(self) -> None:
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1


def open_rooms(folder: Path, url: str, bell: CountingBell, clock: ManualClock, **settings: Any) -> JobRooms:
    given = {"data_dir": folder, "database_url": url, "sweep_seconds": 0.1, **settings}
    return JobRooms.open(Settings(**given), bell, clock=clock)


@pytest.fixture
def bell() -> CountingBell:
    return CountingBell()


@pytest.fixture
def rooms(url: str, tmp_path: Path, bell: CountingBell, clock: ManualClock) -> Any:
    """Opened rooms that nothing moves in yet."""
    opened = open_rooms(tmp_path, url, bell, clock)
    yield opened
    opened.stop()


def submit(rooms: JobRooms) -> str:
    (new,) = new_jobs(1)
    name = new_name("png")
    rooms.pictures.put(name, b"picture")
    jobs = [NewJob(new.request, new.batch_key, name)]
    return rooms.store.submit("ann", jobs, queue_limit=10, agent_limit=10).job_ids[0]


def test_nothing_is_swept_or_rung_before_the_start(rooms: JobRooms, bell: CountingBell, tmp_path: Path) -> None:
    submit(rooms)
    assert bell.rings == 0
    assert len(list((tmp_path / "inputs").iterdir())) == 1


def test_a_job_that_waits_is_reminded_of_again_and_again(rooms: JobRooms, bell: CountingBell) -> None:
    submit(rooms)
    rooms.start()
    eventually(lambda: bell.rings > 2)


def test_nobody_is_reminded_of_work_that_goes_on(rooms: JobRooms, bell: CountingBell) -> None:
    submit(rooms)
    assert len(rooms.store.lease("w", 1, 60)) == 1
    assert not rooms.store.has_work()
    rooms.reminder.start()
    rooms.reminder.stop()
    assert bell.rings == 0


def test_a_run_that_died_is_reminded_of(rooms: JobRooms, bell: CountingBell, clock: ManualClock) -> None:
    submit(rooms)
    rooms.store.lease("w", 1, 60)
    clock.advance(61)
    rooms.reminder.start()
    eventually(lambda: bell.rings > 0)


def test_what_is_over_is_cleared_away(rooms: JobRooms, clock: ManualClock, tmp_path: Path) -> None:
    job_id = submit(rooms)
    clock.advance(25 * 3600)
    rooms.start()
    eventually(lambda: rooms.store.get(job_id, "ann").status is Status.FAILED)
    eventually(lambda: list((tmp_path / "inputs").iterdir()) == [])


def test_rooms_without_a_job_table_are_not_opened(tmp_path: Path, bell: CountingBell, clock: ManualClock) -> None:
    with pytest.raises(StoreUnavailable):
        open_rooms(tmp_path, f"postgresql://orfeas@/postgres?host={tmp_path}", bell, clock)


def test_settings_say_how_often_a_job_may_die(tmp_path: Path, bell: CountingBell, clock: ManualClock) -> None:
    rooms = open_rooms(tmp_path, "", bell, clock, max_attempts=1)
    job_id = submit(rooms)
    rooms.store.lease("w", 1, 60)
    clock.advance(61)
    rooms.store.reclaim()
    assert rooms.store.get(job_id, "ann").status is Status.FAILED
    rooms.stop()
