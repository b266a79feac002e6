"""How far a run is and how long it still takes, from what its stages are expected to take."""

from __future__ import annotations

from itertools import pairwise

import pytest

from backend.jobs.progress import STAGES, Reached, StagePlan, batch_eta, stage_of

PLAN = StagePlan((1.0, 1.0, 6.0, 1.0, 0.5, 0.25, 0.25), measured=True)
"""Of preprocess, encode, sample, decode, mesh, finish and export: 10 s."""


@pytest.mark.parametrize(
    ("stage", "done", "total", "progress", "remaining"),
    [
        ("preprocess", 0, 1, 0, 10.0),
        ("encode", 0, 1, 10, 9.0),
        ("sample", 1, 2, 50, 5.0),
        ("decode", 4, 4, 90, 1.0),
        ("decode", 1, 2, 82, 1.75),
        ("export", 1, 1, 99, 0.0),
        ("sample", 5, 2, 80, 2.0),
        ("sample", 0, 0, 80, 2.0),
    ],
)
def test_progress_and_time_left_follow_the_plan(
    stage: str, done: int, total: int, progress: int, remaining: float
) -> None:
    reached = Reached.now(PLAN, stage, done, total, at=100.0)
    assert reached.progress(100.0) == progress
    assert reached.remaining(100.0) == pytest.approx(remaining)


@pytest.mark.parametrize("stage", STAGES)
def test_both_move_with_time_in_every_stage_and_never_past_what_is_reported_next(stage: str) -> None:
    reached = Reached.now(PLAN, stage, 0, 1, at=100.0)
    planned = PLAN.seconds[STAGES.index(stage)]
    moments = [100.0 + planned * share for share in (0.0, 0.3, 0.6, 0.9, 1.5, 100.0)]
    progress = [reached.progress(moment) for moment in moments]
    left = [reached.remaining(moment) or 0.0 for moment in moments]
    assert progress == sorted(progress)
    assert left == sorted(left, reverse=True)
    assert progress[3] > progress[0]
    assert left[0] - left[2] == pytest.approx(0.6 * planned)
    following = sum(PLAN.seconds[STAGES.index(stage) + 1 :])
    assert left[-1] == pytest.approx(following + 0.05 * planned)


def test_between_two_steps_it_goes_on_nearly_to_the_next() -> None:
    reached = Reached.now(PLAN, "sample", 5, 10, at=0.0)
    assert reached.step == "sample 5/10"
    assert reached.remaining(0.0) == pytest.approx(5.0)
    assert reached.remaining(0.3) == pytest.approx(4.7)
    assert reached.remaining(60.0) == pytest.approx(5.0 - 0.95 * 0.6)


def test_the_levels_of_a_decoding_take_longer_the_finer_they_are() -> None:
    left = [Reached.now(PLAN, "decode", done, 4, at=0.0).remaining(0.0) or 0.0 for done in range(5)]
    taken = [earlier - later for earlier, later in pairwise(left)]
    assert sum(taken) == pytest.approx(1.0)
    assert [later / earlier for earlier, later in pairwise(taken)] == pytest.approx([3.0] * 3)


def test_a_stage_that_is_done_is_the_beginning_of_the_next() -> None:
    assert Reached.now(PLAN, "encode", 1, 1, at=0.0) == Reached.now(PLAN, "sample", 0, 1, at=0.0)
    assert Reached.now(PLAN, "export", 1, 1, at=0.0).stage == "export"


def test_progress_rises_through_all_stages_before_anything_was_measured() -> None:
    plan = StagePlan.unmeasured()
    values = [
        Reached.now(plan, stage, done, 10, at=0.0).progress(0.0) for stage in STAGES for done in range(10)
    ]  # fmt: skip
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0, 99)
    assert Reached.now(plan, "sample", 1, 2, at=0.0).remaining(0.0) is None


@pytest.mark.parametrize("seconds", [(1.0,), (0.0,) * 7, (-1.0, *(1.0,) * 6)])
def test_a_plan_without_sense_is_refused(seconds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="a plan has one time"):
        StagePlan(seconds, measured=True)


@pytest.mark.parametrize(
    ("step", "stage"), [("sample 3/10", "sample"), ("mesh", "mesh"), ("starting", None), ("queued", None), ("", None)]
)
def test_a_stage_is_read_from_its_step(step: str, stage: str | None) -> None:
    assert stage_of(step) == stage


def test_a_batch_is_done_with_its_last_job() -> None:
    assert batch_eta([3.0, 5.0, 1.0]) == 5.0
    assert batch_eta([3.0, None]) is None
    assert batch_eta([]) is None
