"""A thread that goes on whatever goes wrong, and says so once."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from itertools import islice

import pytest

from backend.errors import StoreUnavailable
from backend.periodic import PeriodicTask, endless_retries


class Script:
    """An action that does what it is told, one thing a call, then nothing; `over` is set at the call after."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.over = threading.Event()

    def __call__(self) -> None:
        if not self.failures:
            self.over.set()
            return
        failure = self.failures.pop(0)
        if failure is not None:
            raise failure


def run(script: Script) -> None:
    task = PeriodicTask("the task", 0.001, script)
    task.start()
    assert script.over.wait(20)
    task.stop()


def test_it_goes_on_after_a_failure_and_logs_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    away, odd = StoreUnavailable(), ValueError("odd")
    with caplog.at_level(logging.INFO):
        run(Script(away, away, odd, odd, None, away))
    messages = [record.getMessage() for record in caplog.records if record.name == "backend.periodic"]
    assert messages == [
        f"the task: {away}",
        "the task: odd",
        "the task: works again",
        f"the task: {away}",
        "the task: works again",
    ]


def test_it_is_woken_before_its_time() -> None:
    script = Script(None, None)
    task = PeriodicTask("the task", 3600, script)
    task.start()
    while not script.over.is_set():
        task.wake()
    task.stop()
    assert script.failures == []


def test_it_stops_at_once_and_begins_again() -> None:
    script = Script()
    task = PeriodicTask("the task", 3600, script)
    task.stop()
    for _ in range(2):
        script.over.clear()
        task.start()
        task.start()
        assert script.over.wait(20)
        task.stop()


def test_work_that_was_left_is_done_at_once() -> None:
    left = [True, True, False]
    over = threading.Event()

    def work() -> bool:
        more = left.pop(0)
        if not left:
            over.set()
        return more

    task = PeriodicTask("the task", 3600, work)
    task.start()
    assert over.wait(20)
    task.stop()


def test_pauses_are_doubled_up_to_the_longest() -> None:
    assert list(islice(endless_retries(0.5, 3.0).pauses(), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_failure_is_final_once_no_more_tries_are_wanted() -> None:
    slept: list[float] = []
    wanted = [True, True, False]
    policy = replace(endless_retries(0.5, 3.0), sleep=slept.append)

    def fail() -> None:
        raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        policy.persist(fail, StoreUnavailable, lambda: wanted.pop(0))
    assert (slept, wanted) == ([0.5, 1.0], [])
