"""Who is alive, told to everyone, on every database."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from sqlalchemy import func, select

from backend.jobs.schema import workers
from backend.jobs.worker_registry import WorkerRegistry, WorkerState, WorkerStatus
from backend.storage.database import Database
from tests.support.own_process import own_processes
from tests.support.store_backends import ManualClock, open_database
from tests.support.workshop import eventually

READY = WorkerState(
    owner="gpu-1",
    status=WorkerStatus.READY,
    model="demo",
    device_type="cuda",
    device_name="NVIDIA H100",
    memory_total=85_000_000_000,
    memory_free=60_000_000_000,
    compiled=True,
    stage_times='{"steps": 50}',
    octree_resolution=128,
)


@pytest.fixture
def registry(database: Database, clock: ManualClock) -> WorkerRegistry:
    return WorkerRegistry(database, clock)


def test_a_worker_is_read_as_it_said(registry: WorkerRegistry) -> None:
    assert registry.alive() == ()
    registry.beat(READY, 20)
    assert registry.alive() == (READY,)


def test_the_latest_word_of_a_worker_counts(registry: WorkerRegistry) -> None:
    registry.beat(READY, 20)
    failed = WorkerState("gpu-1", WorkerStatus.FAILED, error="No checkpoint.")
    registry.beat(failed, 20)
    assert registry.alive() == (failed,)


def test_a_silent_worker_is_gone_when_its_time_is_over(registry: WorkerRegistry, clock: ManualClock) -> None:
    registry.beat(READY, 20)
    clock.advance(19.999)
    assert registry.alive() == (READY,)
    clock.advance(0.001)
    assert registry.alive() == ()


def test_a_worker_of_this_machine_that_was_killed_is_gone_at_once(registry: WorkerRegistry) -> None:
    program = "from backend.jobs.process_marks import mark_of_this_process as m; print(m(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # noqa: S603
        assert child.stdout is not None
        registry.beat(replace(READY, process=child.stdout.readline().decode().strip()), 3600)
        assert [state.owner for state in registry.alive()] == ["gpu-1"]
        child.kill()
        eventually(lambda: registry.alive() == ())


def test_workers_that_are_ready_come_first(registry: WorkerRegistry) -> None:
    names = {"a": WorkerStatus.LOADING, "c": WorkerStatus.READY, "b": WorkerStatus.READY}
    for owner, status in names.items():
        registry.beat(replace(READY, owner=owner, status=status), 20)
    assert [state.owner for state in registry.alive()] == ["b", "c", "a"]


def test_a_worker_that_ended_in_order_is_forgotten(registry: WorkerRegistry) -> None:
    registry.beat(READY, 20)
    registry.remove("gpu-1")
    registry.remove("gpu-1")
    assert registry.alive() == ()


def test_the_dead_do_not_pile_up(registry: WorkerRegistry, database: Database, clock: ManualClock) -> None:
    for k in range(10):
        registry.beat(replace(READY, owner=f"dead-{k}"), 20)
    clock.advance(21)
    registry.beat(READY, 20)
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(workers)).scalar_one() == 1


def beat_many(url: str, name: str) -> None:
    with open_database(url) as database:
        registry = WorkerRegistry(database, ManualClock())
        for _ in range(20):
            registry.beat(replace(READY, owner=name), 20)


def test_workers_in_many_processes_beat_at_once(url: str, registry: WorkerRegistry) -> None:
    names = [f"gpu-{k}" for k in range(4)]
    with own_processes().Pool(4) as pool:
        pool.starmap(beat_many, [(url, name) for name in names])
    assert [state.owner for state in registry.alive()] == names
