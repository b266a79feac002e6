"""Turns: how many threads work at once, and that who waits keeps none."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from backend.serve.turns import Turns


def test_no_more_work_at_once_than_there_are_turns() -> None:
    turns, lock = Turns(3), threading.Lock()
    working, most = 0, 0

    def work(_: int) -> None:
        nonlocal working, most
        with turns.taken():
            for _ in range(20):
                with lock:
                    working += 1
                    most = max(most, working)
                with lock:
                    working -= 1
                with turns.given_up():
                    pass

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(work, range(50)))
    assert (most <= 3, working) == (True, 0)


def test_who_waits_keeps_nobody_from_work() -> None:
    turns, gate = Turns(1), threading.Barrier(20, timeout=30)

    def wait(_: int) -> int:
        with turns.taken(), turns.given_up():
            # All are here at once, although there is one turn.
            return gate.wait()

    with ThreadPoolExecutor(20) as pool:
        assert sorted(pool.map(wait, range(20))) == list(range(20))
