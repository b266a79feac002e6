"""Work that follows a device call: some at once, a bounded number waiting, none that ends the threads."""

from __future__ import annotations

import logging
import threading

import pytest

from backend.runner.export_pool import ExportPool


def never() -> bool:
    return False


def test_everything_that_was_handed_over_is_done() -> None:
    pool = ExportPool(2, 4)
    done: list[int] = []
    for k in range(20):
        pool.submit(lambda k=k: done.append(k), never)  # type: ignore[misc]
    assert pool.join(20)
    pool.stop()
    assert sorted(done) == list(range(20))


def test_whoever_hands_over_too_much_waits() -> None:
    pool = ExportPool(1, 2)
    go = threading.Event()
    order: list[str] = []

    def work() -> None:
        assert go.wait(20)
        order.append("done")

    pool.submit(work, never)
    pool.submit(work, never)

    def hand_over_a_third() -> None:
        pool.submit(lambda: None, never)
        order.append("third")

    eager = threading.Thread(target=hand_over_a_third)
    eager.start()
    assert not pool.join(0.05)
    assert order == []
    go.set()
    eager.join(20)
    assert pool.join(20)
    pool.stop()
    assert order[0] == "done"
    assert "third" in order


def test_work_that_nobody_waits_for_is_dropped_while_there_is_no_room() -> None:
    pool = ExportPool(1, 1)
    go = threading.Event()
    done: list[str] = []

    def work() -> None:
        assert go.wait(20)
        done.append("first")

    pool.submit(work, never)
    pool.submit(lambda: done.append("second"), lambda: True)
    go.set()
    assert pool.join(20)
    pool.stop()
    assert done == ["first"]


def test_work_that_fails_is_logged_and_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    pool = ExportPool(1, 1)

    def fail() -> None:
        raise RuntimeError("no")

    with caplog.at_level(logging.ERROR):
        pool.submit(fail, never)
        pool.submit(fail, never)
        assert pool.join(20)
    pool.stop()
    assert len(caplog.records) == 2


def test_deferred_work_lets_everything_else_go_first() -> None:
    pool = ExportPool(1, 8)
    go, order = threading.Event(), list[str]()

    def first() -> None:
        assert go.wait(20)
        pool.defer(lambda: order.append("deferred"))
        order.append("first")

    pool.submit(first, never)
    for k in range(3):
        pool.submit(lambda k=k: order.append(f"next {k}"), never)  # type: ignore[misc]
    go.set()
    assert pool.join(20)
    pool.stop()
    assert order == ["first", "next 0", "next 1", "next 2", "deferred"]


def test_what_is_deferred_beyond_the_bound_runs_at_once() -> None:
    pool = ExportPool(1, 1)
    go, order = threading.Event(), list[str]()
    pool.submit(lambda: order.append(str(go.wait(20))), never)
    pool.defer(lambda: order.append("later"))
    pool.defer(lambda: order.append("at once"))
    go.set()
    assert pool.join(20)
    pool.stop()
    assert order == ["at once", "True", "later"]
