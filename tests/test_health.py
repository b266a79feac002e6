"""The state of the service: read seldom, told honestly."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from backend.errors import GpuBusy, StoreUnavailable
from backend.jobs.health import FRESH_SECONDS, Health, HealthReader
from backend.jobs.models import QueueCounts
from backend.jobs.worker_registry import WorkerState, WorkerStatus


class Facts:
    """A job table and a registry that count how often they are asked, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.away = False
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def counts(self) -> QueueCounts:
        self.asked += 1
        self.waiting.set()
        assert self.gate.wait(20)
        if self.away:
            raise StoreUnavailable
        return QueueCounts(self.asked, 0, None)

    def alive(self) -> tuple[WorkerState, ...]:
        return ()

    def reader(self) -> HealthReader:
        return HealthReader(self, self, monotonic=lambda: self.now)  # type: ignore[arg-type]


def health_of(*conditions: WorkerStatus) -> Health:
    states = tuple(WorkerState(f"w{k}", condition) for k, condition in enumerate(conditions))
    return Health(QueueCounts(0, 0, None), states)


def test_state_is_read_once_a_second() -> None:
    facts = Facts()
    reader = facts.reader()
    for _ in range(5):
        assert reader.read().counts.queued == 1
    facts.now += FRESH_SECONDS
    assert reader.read().counts.queued == 2


def test_store_that_is_away_is_asked_once_a_second_and_comes_back() -> None:
    facts = Facts()
    facts.away = True
    reader = facts.reader()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            reader.read()
    assert facts.asked == 1
    facts.away = False
    facts.now += FRESH_SECONDS
    assert reader.read().counts.queued == 2


def test_who_would_refuse_by_it_reads_anew_but_not_at_every_moment() -> None:
    facts = Facts()
    reader = facts.reader()
    reader.read()
    facts.now = 0.06
    assert reader.read().counts.queued == 1
    assert reader.read_anew().counts.queued == 2
    assert reader.read_anew().counts.queued == 2
    assert reader.read().counts.queued == 2


def test_others_get_what_was_known_while_one_reads() -> None:
    facts = Facts()
    reader = facts.reader()
    reader.read()
    facts.now += FRESH_SECONDS
    facts.gate.clear()
    facts.waiting.clear()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(reader.read)
        assert facts.waiting.wait(20)
        assert reader.read().counts.queued == 1
        facts.gate.set()
        assert slow.result().counts.queued == 2


def test_nobody_gets_what_was_known_long_ago() -> None:
    facts = Facts()
    reader = facts.reader()
    reader.read()
    facts.now += 3600
    facts.gate.clear()
    facts.waiting.clear()
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(reader.read)]
        assert facts.waiting.wait(20)
        found.append(pool.submit(reader.read))
        # It waits for the first one; what it must not do is to have an answer already.
        assert wait(found, timeout=0.2).done == set()
        facts.gate.set()
        assert [each.result().counts.queued for each in found] == [2, 2]


def test_many_at_once_read_once_at_the_start() -> None:
    facts = Facts()
    reader = facts.reader()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: reader.read().counts.queued, range(8)))
    assert found == [1] * 8


READY, LOADING = WorkerStatus.READY, WorkerStatus.LOADING
FAILED, DRAINING = WorkerStatus.FAILED, WorkerStatus.DRAINING


@pytest.mark.parametrize(
    ("conditions", "own_worker", "ready", "loading"),
    [
        ((), False, 0, False),
        ((), True, 0, True),
        ((LOADING,), False, 0, True),
        ((READY, LOADING), True, 1, False),
        ((READY, FAILED, READY), False, 2, False),
        ((FAILED,), True, 0, False),
        ((DRAINING,), True, 0, False),
        ((DRAINING, LOADING), False, 0, True),
    ],
)
def test_jobs_are_taken_when_a_worker_is_there_or_about_to_be(
    conditions: tuple[WorkerStatus, ...], own_worker: bool, ready: int, loading: bool
) -> None:
    health = health_of(*conditions)
    assert (len(health.ready), health.is_loading(own_worker=own_worker)) == (ready, loading)
    if ready or loading:
        health.require_worker(own_worker=own_worker)
    else:
        with pytest.raises(GpuBusy):
            health.require_worker(own_worker=own_worker)
