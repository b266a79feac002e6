"""How long stages take: learned from what was measured, asked for what was not."""

from __future__ import annotations

import pytest

from backend.jobs.progress import StagePlan
from backend.jobs.stage_times import Curve, Measured, StageTimes, Workload

STAGES = {"preprocess": 0.2, "encode": 0.1, "sample": 1.0, "decode": 0.4, "mesh": 0.1, "finish": 0.1, "export": 0.1}
WORK = Workload(steps=10, octree_resolution=128)


def curve(*points: tuple[float, float], grows: float = 2.0) -> Curve:
    made = Curve(grows)
    for size, seconds in points:
        made.note(size, seconds)
    return made


def test_what_was_measured_is_known_and_nothing_else_at_first() -> None:
    assert curve().at(128) is None
    assert curve((128, 0.5)).at(128) == 0.5


@pytest.mark.parametrize(("size", "seconds"), [(64, 0.125), (256, 2.0), (512, 8.0)])
def test_from_one_size_it_grows_as_told(size: float, seconds: float) -> None:
    assert curve((128, 0.5)).at(size) == pytest.approx(seconds)


@pytest.mark.parametrize(("size", "seconds"), [(128 * 2**0.5, 0.5 * 2**0.5), (512, 2.0), (64, 0.25)])
def test_between_and_beyond_two_sizes_it_grows_as_between_them(size: float, seconds: float) -> None:
    assert curve((128, 0.5), (256, 1.0)).at(size) == pytest.approx(seconds)


def test_noise_does_not_turn_growth_round() -> None:
    assert curve((128, 0.5), (256, 0.4)).at(512) == pytest.approx(0.4)
    assert curve((128, 0.1), (144, 5.0)).at(288) == pytest.approx(5.0 * 2**3)


def test_the_first_runs_count_alike_and_later_ones_move_it_slowly() -> None:
    made = curve((1, 1.0), (1, 3.0))
    assert made.at(1) == pytest.approx(2.0)
    made.note(1, 5.0)
    assert made.at(1) == pytest.approx(3.0)
    made.note(1, 13.0)
    assert made.at(1) == pytest.approx(6.0)


def test_a_rehearsal_counts_until_a_run_has_ended() -> None:
    made = Curve(1.0)
    made.note(1, 9.0, rehearsed=True)
    made.note(1, 3.0, rehearsed=True)
    assert made.at(1) == 3.0
    made.note(1, 1.0)
    made.note(1, 9.0, rehearsed=True)
    assert made.at(1) == 1.0


def times_with(*measured: Measured, threads: int = 2) -> StageTimes:
    times = StageTimes(default_steps=10, batch_size=4, threads=threads)
    for each in measured:
        times.note(each)
    return times


def test_before_anything_was_measured_there_are_only_proportions() -> None:
    assert StageTimes().plan(WORK) == StagePlan.unmeasured()


def test_a_job_as_one_before_takes_as_long() -> None:
    plan = times_with(Measured(WORK, {**STAGES, "queued": 9.0, "total": 2.3})).plan(WORK)
    assert plan.measured
    assert plan.seconds == pytest.approx((0.5, 0.1, 1.0, 0.4, 0.1, 0.1, 0.1))


def test_what_a_job_asks_for_decides() -> None:
    times = times_with(Measured(WORK, STAGES))
    assert times.plan(Workload(20, 128)).seconds[2] == pytest.approx(2.0)
    assert times.plan(Workload(10, 256)).seconds[3] == pytest.approx(1.6)
    assert times.plan(Workload(10, 256)).seconds[4] == pytest.approx(0.4)
    assert times.plan(Workload(10, 128, target_faces=1000)).seconds[4] == pytest.approx(0.1)
    assert max(times.plan(Workload(10, 128, target_faces=1000)).seconds[5:]) < 0.1
    assert times.plan(Workload(10, 128, acceleration="balanced")).seconds[2] == pytest.approx(0.5)


def test_decimating_has_times_of_its_own_once_it_was_seen() -> None:
    decimated = Workload(10, 128, target_faces=1000)
    times = times_with(Measured(WORK, STAGES), Measured(decimated, {**STAGES, "mesh": 0.7}))
    assert times.plan(WORK).seconds[4] == pytest.approx(0.1)
    assert times.plan(decimated).seconds[4] == pytest.approx(0.7)


def test_bare_files_have_times_of_their_own_once_they_were_seen() -> None:
    bare = Workload(10, 128, is_bare=True)
    times = times_with(Measured(WORK, STAGES))
    assert times.plan(bare).seconds[5] == pytest.approx(0.1)
    times.note(Measured(bare, {**STAGES, "finish": 0.01}))
    assert times.plan(bare).seconds[5] == pytest.approx(0.01)
    assert times.plan(WORK).seconds[5] == pytest.approx(0.1)


def test_what_the_first_run_takes_beside_its_stages_counts_until_there_is_another() -> None:
    times = times_with(Measured(WORK, {**STAGES, "total": 7.0}))
    assert times.plan(WORK).total == pytest.approx(7.0)
    for total in (2.2, 2.4):
        times.note(Measured(WORK, {**STAGES, "total": total}))
    assert times.plan(WORK).total == pytest.approx(2.3)


def test_images_that_run_together_share_a_device_and_wait_for_threads() -> None:
    times = times_with(Measured(WORK, STAGES, batch_size=4))
    assert times.plan(WORK, 4).device == pytest.approx(1.7)
    assert times.plan(WORK, 1).device == pytest.approx(1.7 / 4)
    totals = [times.plan(WORK, 4, index).total for index in range(4)]
    assert totals == pytest.approx([2.0, 2.0, 2.3, 2.3])


def test_evaluations_that_acceleration_spares_are_learned() -> None:
    faster = Workload(20, 128, acceleration="balanced")
    times = times_with(Measured(faster, {**STAGES, "sample": 0.9}, evaluations=9))
    assert times.plan(faster).seconds[2] == pytest.approx(0.9)
    assert times.plan(Workload(20, 128)).seconds[2] == pytest.approx(2.0)


def test_everybody_knows_what_one_worker_says() -> None:
    times = times_with(Measured(WORK, {**STAGES, "total": 2.5}, batch_size=2), Measured(WORK, STAGES))
    read = StageTimes.from_json(times.to_json())
    assert read is not None
    assert (read.default_steps, read.batch_size, read.threads) == (10, 4, 2)
    for work in (WORK, Workload(30, 200, 5000, "fast")):
        assert read.plan(work, 3, 2).seconds == pytest.approx(times.plan(work, 3, 2).seconds, rel=1e-3)


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "nonsense", '{"steps": 1, "batch": 1, "threads": 1}', "null"])
def test_what_another_version_says_is_as_good_as_nothing(text: str | None) -> None:
    assert StageTimes.from_json(text) is None
