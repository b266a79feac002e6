"""How slow the other end may be: steps, an end by size, and who is honest but pauses."""

from __future__ import annotations

import pytest

from backend.serve import pace as pace_module
from backend.serve.pace import Pace, Rate

RATE = Rate(step_bytes=100, step_seconds=10, start_seconds=60, bytes_per_second=50)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace_module, "time", made)
    return made


def test_each_step_must_come_within_its_time(clock: Clock) -> None:
    pace = Pace(RATE, 100_000)
    assert pace.expires == 1010
    clock.now = 1009
    pace.note(99)
    assert pace.expires == 1010
    pace.note(1)
    assert pace.expires == 1019
    clock.now = 1019
    assert not pace.is_over
    clock.now = 1019.1
    assert pace.is_over


def test_a_drip_does_not_buy_time(clock: Clock) -> None:
    pace = Pace(RATE, 100_000)
    for _ in range(11):
        assert not pace.is_over
        clock.now += 1
        pace.note(1)
    assert pace.is_over


def test_all_must_come_by_an_end_that_its_size_sets(clock: Clock) -> None:
    pace = Pace(RATE, 1000)
    while clock.now < 1000 + 60 + 1000 / 50:
        assert not pace.is_over
        pace.note(100)
        clock.now += 9
    assert pace.is_over


def test_what_comes_without_a_length_has_as_long_as_what_came(clock: Clock) -> None:
    pace = Pace(RATE)
    for _ in range(100):
        clock.now += 1
        pace.note(100)
        assert not pace.is_over
    assert pace.expires == 1110
