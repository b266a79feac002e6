"""How far a job is and how long it takes, from how long jobs took."""

from __future__ import annotations

import pytest

from backend.jobs.progress import STAGES, StagePlan, StageTimes, batch_eta, queued_eta
from backend.jobs.worker_registry import WorkerState, WorkerStatus

MEASURED = {"preprocess": 1.0, "encode": 1.0, "sample": 6.0, "decode": 1.0, "mesh": 0.5, "export": 0.5}


def times_with(seconds: dict[str, float], kind: str = "kind") -> StageTimes:
    times = StageTimes()
    times.note(kind, seconds)
    return times


def worker(condition: WorkerStatus, seconds_per_job: float | None) -> WorkerState:
    return WorkerState("w", condition, seconds_per_job=seconds_per_job)


@pytest.mark.parametrize(
    ("stage", "done", "total", "progress", "remaining"),
    [
        ("preprocess", 0, 1, 0, 10.0),
        ("encode", 0, 1, 10, 9.0),
        ("sample", 1, 2, 50, 5.0),
        ("decode", 4, 4, 90, 1.0),
        ("export", 1, 1, 99, 0.0),
        ("sample", 5, 2, 80, 2.0),
        ("sample", 0, 0, 20, 8.0),
    ],
)
def test_progress_and_time_left_follow_what_stages_took(
    stage: str, done: int, total: int, progress: int, remaining: float
) -> None:
    plan = times_with(MEASURED).plan("kind")
    assert plan.progress(stage, done, total) == progress
    assert plan.remaining(stage, done, total) == pytest.approx(remaining)


def test_progress_rises_through_all_stages_before_anything_was_measured() -> None:
    plan = StageTimes().plan("kind")
    values = [plan.progress(stage, done, 10) for stage in STAGES for done in range(11)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0, 99)
    assert plan.remaining("sample", 1, 2) is None


def test_the_average_moves_toward_what_is_new() -> None:
    times = times_with(MEASURED)
    times.note("kind", {"sample": 16.0, "total": 99.0})
    assert times.plan("kind").seconds == pytest.approx((1.0, 1.0, 9.0, 1.0, 0.5, 0.5))


def test_each_kind_of_job_has_its_own_times_and_a_new_one_the_latest() -> None:
    times = times_with(MEASURED, "slow")
    times.note("fast", dict.fromkeys(STAGES, 0.1))
    assert times.plan("slow").remaining("preprocess", 0, 1) == pytest.approx(10.0)
    assert times.plan("new").remaining("preprocess", 0, 1) == pytest.approx(0.6)


def test_old_kinds_are_forgotten() -> None:
    times = times_with(MEASURED, "first")
    for k in range(100):
        times.note(f"kind {k}", {"sample": 1.0})
    assert times.plan("first").remaining("preprocess", 0, 1) == pytest.approx(1.0)


def test_times_of_nothing_measure_nothing() -> None:
    assert not times_with(dict.fromkeys(STAGES, 0.0)).plan("kind").measured


def test_jobs_that_ran_together_share_the_time() -> None:
    times = StageTimes()
    seen = [times.seconds_per_job]
    for seconds, count in ((8.0, 4), (12.0, 1)):
        times.note_batch(seconds, count)
        seen.append(times.seconds_per_job)
    assert seen == [None, 2.0, pytest.approx(5.0)]


@pytest.mark.parametrize("seconds", [(1.0,), (0.0,) * 6, (-1.0, 1.0, 1.0, 1.0, 1.0, 1.0)])
def test_a_plan_without_sense_is_refused(seconds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="a plan has one time"):
        StagePlan(seconds, measured=True)


def test_a_queued_job_waits_for_those_in_front_and_itself() -> None:
    assert queued_eta(3, [worker(WorkerStatus.READY, 2.0)]) == pytest.approx(6.0)


def test_workers_share_the_queue_by_their_speed() -> None:
    alive = [
        worker(WorkerStatus.READY, 2.0),
        worker(WorkerStatus.READY, 1.0),
        worker(WorkerStatus.DRAINING, 0.1),
        worker(WorkerStatus.READY, None),
    ]
    assert queued_eta(3, alive) == pytest.approx(2.0)


def test_nobody_knows_how_long_a_queue_takes_that_nobody_works_on() -> None:
    assert queued_eta(1, []) is None
    assert queued_eta(1, [worker(WorkerStatus.READY, None)]) is None


def test_a_batch_is_done_with_its_last_job() -> None:
    assert batch_eta([3.0, 5.0, 1.0]) == 5.0
    assert batch_eta([3.0, None]) is None
    assert batch_eta([]) is None
