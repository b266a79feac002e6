"""When the kernel is asked to end a process whose work does not come back."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack, suppress

from backend.runner.watchdog import Watchdog


class Bench:
    """An alarm of 60 seconds, a clock moved by hand, and what was asked of the kernel."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[int] = []
        self.watchdog = Watchdog(60, set_alarm=self.asked.append, monotonic=lambda: self.now)


def test_nothing_is_asked_before_it_begins() -> None:
    bench = Bench()
    with bench.watchdog.bounded():
        assert bench.asked == []
    assert bench.asked == []


def test_work_that_runs_when_it_begins_is_bounded_too() -> None:
    bench = Bench()
    with bench.watchdog.bounded():
        bench.now += 20
        bench.watchdog.begin()
        assert bench.asked == [40]


def test_a_block_that_comes_back_is_not_bounded_any_more() -> None:
    bench = Bench()
    bench.watchdog.begin()
    with suppress(KeyError), bench.watchdog.bounded():
        assert bench.asked[-1] == 60
        raise KeyError
    assert bench.asked[-1] == 0


def test_of_several_blocks_the_oldest_counts() -> None:
    bench = Bench()
    bench.watchdog.begin()
    with ExitStack() as later:
        with bench.watchdog.bounded():
            bench.now += 25.5
            later.enter_context(bench.watchdog.bounded())
            assert bench.asked[-1] == 35
        assert bench.asked[-1] == 60


def test_blocks_may_share_one_time() -> None:
    bench = Bench()
    bench.watchdog.begin()
    deadline = bench.watchdog.deadline()
    for left in (60, 30):
        with bench.watchdog.bounded(deadline):
            assert bench.asked[-1] == left
        bench.now += 30


def test_time_that_is_over_does_not_mean_never() -> None:
    bench = Bench()
    bench.watchdog.begin()
    deadline = bench.watchdog.deadline()
    bench.now += 61
    with bench.watchdog.bounded(deadline):
        assert bench.asked[-1] == 1


def test_nothing_puts_off_the_end() -> None:
    bench = Bench()
    bench.watchdog.begin()
    with bench.watchdog.bounded():
        bench.watchdog.end_within(4.2)
    with bench.watchdog.bounded():
        bench.watchdog.begin()
    assert bench.asked == [60, 5]


def test_the_kernel_ends_a_process_that_holds_pythons_lock() -> None:
    # A regular expression that backtracks for ages never lets go of the lock.
    program = (
        "import re\nfrom backend.runner.watchdog import Watchdog\n"
        "alarm = Watchdog(1)\nalarm.begin()\n"
        "with alarm.bounded():\n    re.match('(a*)*b', 'a' * 60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)  # noqa: S603
    assert ended.returncode == -signal.SIGALRM
