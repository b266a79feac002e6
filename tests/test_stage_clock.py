"""When the stages of a run began and ended, by what was reported of them."""

from __future__ import annotations

from backend.runner.stage_clock import StageClock
from backend.telemetry.tracing import Stage


def test_stages_follow_one_another_as_they_are_reported() -> None:
    now = [100.0]
    clock = StageClock(lambda: now[0])

    def at(time: float) -> None:
        now[0] = time

    clock.note("preprocess", 0)
    at(101)
    clock.note("preprocess", 1)
    at(102)
    clock.note("encode", 1)
    at(103)
    clock.note("sample", 5)
    at(104)
    clock.note("sample", 10)
    at(105)
    clock.pause()
    # What waits for a thread is no stage.
    at(107)
    clock.note("mesh", 0)
    at(109)
    clock.note("finish", 0)
    at(110)
    assert clock.stages(110) == (
        Stage("preprocess", 100, 101),
        Stage("encode", 101, 102),
        Stage("sample", 102, 105),
        Stage("mesh", 107, 109),
        Stage("finish", 109, 110),
    )


def test_a_run_of_which_nothing_was_reported_has_no_stages() -> None:
    assert StageClock(lambda: 1.0).stages(2.0) == ()
