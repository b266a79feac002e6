"""The queue played forward: who runs when, beside whom, on which worker."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from backend.jobs.forecast import Forecast, foresee
from backend.jobs.models import Job, Line, Status
from backend.jobs.stage_times import Measured, StageTimes, Workload
from backend.jobs.worker_registry import WorkerState, WorkerStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_SECONDS = {"preprocess": 0.0, "encode": 0.0, "sample": 10.0, "decode": 2.0, "mesh": 1.0, "finish": 0.5, "export": 0.5}


def worker(
    owner: str = "w", *, faster: float = 1.0, batch: int = 1, threads: int = 4, **changes: object
) -> WorkerState:
    """Return a worker that takes 12 s of its device for a job and 2 s after that, or a part of these."""
    times = StageTimes(default_steps=10, batch_size=batch, threads=threads)
    times.note(Measured(Workload(10, 128), {stage: seconds / faster for stage, seconds in _SECONDS.items()}))
    return replace(WorkerState(owner, WorkerStatus.READY, stage_times=times.to_json()), **changes)  # type: ignore[arg-type]


def job(number: int, key: str = "k", **changes: object) -> Job:
    made = Job(
        id=f"{number:032x}", batch_id=None, agent_id="ann", status=Status.QUEUED, request="10", batch_key=key,
        image_name="i", created_at=NOW, updated_at=NOW, started_at=None, finished_at=None, attempts=0, lease_owner=None,
        lease_expires_at=None, fence=0, progress=0, current_step="queued", eta_seconds=None, cancel_requested=False,
        artifact=None, metadata=None, error_code=None, error_message=None, label=None, filename=None, batch_index=None,
        error_details=None,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def running(number: int, step: str, eta: float | None, *, owner: str = "w", ago: float = 0.0) -> Job:
    then = NOW - timedelta(seconds=ago)
    return job(
        number, status=Status.PROCESSING, lease_owner=owner, current_step=step, eta_seconds=eta, updated_at=then,
        started_at=then, attempts=1, fence=1,
    )  # fmt: skip


def steps_of(request: str, _default: int) -> Workload | None:
    """Read a request that is nothing but its steps."""
    return Workload(int(request), 128) if request.isdecimal() else None


def look(waiting: list[Job], workers: list[WorkerState], busy: list[Job] | None = None) -> Forecast:
    return foresee(Line(tuple(busy or ()), tuple(waiting)), workers, steps_of, NOW)


def ends(forecast: Forecast, jobs: list[Job]) -> list[float]:
    return [forecast.remaining[each.id] for each in jobs]


def test_one_after_the_other_each_as_long_as_it_takes_while_meshes_are_made_beside() -> None:
    jobs = [job(1), job(2, request="20"), job(3)]
    forecast = look(jobs, [worker()])
    assert ends(forecast, jobs) == pytest.approx([14.0, 12 + 24, 12 + 22 + 14])
    assert [forecast.positions[each.id] for each in jobs] == [1, 2, 3]


def test_those_that_run_together_end_together() -> None:
    jobs = [job(1, "a"), job(2, "b"), job(3, "a"), job(4, "a"), job(5, "b")]
    # A device that takes n images takes n times as long: of one image only its time for one is known.
    assert ends(look(jobs, [worker(batch=2)]), jobs) == pytest.approx([26.0, 50.0, 26.0, 62.0, 50.0])


def test_a_job_whose_runs_died_runs_by_itself() -> None:
    jobs = [job(1, attempts=2), job(2), job(3)]
    assert ends(look(jobs, [worker(batch=3)]), jobs) == pytest.approx([14.0, 38.0, 38.0])


def test_agents_take_turns_as_they_do_when_jobs_are_leased() -> None:
    """Whoever ran beside another has had a turn, too, later than the one whose turn it was."""
    jobs = [
        job(1, "a", agent_id="ann"), job(2, "a", agent_id="bob"), job(3, "b", agent_id="cat"),
        job(4, "b", agent_id="ann"), job(5, "c", agent_id="bob"), job(6, "d", agent_id="cat"),
    ]  # fmt: skip
    turns = {"ann": None, "bob": NOW - timedelta(seconds=9), "cat": NOW - timedelta(seconds=1)}
    forecast = foresee(Line((), tuple(jobs), turns), [worker(batch=2)], steps_of, NOW)
    # ann's with bob's, then cat's with ann's, then bob, who waited longer, then cat.
    assert [round(forecast.remaining[job(k).id]) for k in (1, 2, 3, 4, 5, 6)] == [26, 26, 50, 50, 62, 74]


def test_who_was_first_in_a_batch_has_the_next_turn_before_its_mates() -> None:
    jobs = [
        job(1, "a", agent_id="bob"), job(2, "a", agent_id="ann"), job(3, "b", agent_id="ann"),
        job(4, "c", agent_id="bob"),
    ]  # fmt: skip
    forecast = foresee(Line((), tuple(jobs), {"ann": None, "bob": None}), [worker(batch=2)], steps_of, NOW)
    assert [round(forecast.remaining[job(k).id]) for k in (1, 2, 3, 4)] == [26, 26, 50, 38]


def slow_meshes(threads: int, batch: int = 1) -> WorkerState:
    """Return a worker that takes 1 s of its device for an image and 10 s of a thread for its mesh."""
    times = StageTimes(default_steps=10, batch_size=batch, threads=threads)
    times.note(Measured(Workload(10, 128), {**dict.fromkeys(_SECONDS, 0.0), "sample": 1.0, "mesh": 10.0}))
    return WorkerState("w", WorkerStatus.READY, stage_times=times.to_json())


def test_meshes_wait_for_threads_and_the_device_for_meshes() -> None:
    jobs = [job(k) for k in range(1, 6)]
    assert ends(look(jobs[:3], [slow_meshes(threads=2)]), jobs[:3]) == pytest.approx([11.0, 12.0, 21.0])
    # One is made, one more may wait: the third shape is handed over at 11 s only, when the first is done.
    assert ends(look(jobs[:4], [slow_meshes(threads=1)]), jobs[:4]) == pytest.approx([11.0, 21.0, 31.0, 41.0])
    forecast = look(jobs, [slow_meshes(threads=2)], [running(9, "mesh", 4.0), running(8, "finish", 7.0)])
    assert ends(forecast, jobs[:2]) == pytest.approx([14.0, 17.0])


def test_jobs_of_which_meshes_are_made_are_no_batch_mates_of_those_on_the_device() -> None:
    busy = [running(1, "mesh", 1.0), running(2, "starting", None)]
    assert look([], [worker(batch=4)], busy).remaining[busy[1].id] == pytest.approx(14.0)


def test_workers_share_the_queue_by_their_speed() -> None:
    jobs = [job(k) for k in range(1, 5)]
    forecast = look(jobs, [worker("slow"), worker("fast", faster=3.0)])
    assert ends(forecast, jobs) == pytest.approx([14.0, 4 + 2 / 3, 8 + 2 / 3, 12 + 2 / 3])


def test_what_runs_comes_first_and_falls_with_the_clock() -> None:
    busy = [running(1, "sample 5/10", 9.0, ago=2.0)]
    forecast = look([job(2)], [worker()], busy)
    assert forecast.remaining[busy[0].id] == pytest.approx(7.0)
    # The device is free two seconds before the running job's file is written.
    assert forecast.remaining[job(2).id] == pytest.approx(5.0 + 14.0)


@pytest.mark.parametrize("step", ["mesh", "export"])
def test_a_job_whose_mesh_is_being_made_keeps_no_device(step: str) -> None:
    assert look([job(2)], [worker()], [running(1, step, 2.0)]).remaining[job(2).id] == pytest.approx(14.0)


def test_a_run_that_has_not_reported_yet_is_as_long_as_planned() -> None:
    forecast = look([job(2)], [worker()], [running(1, "starting", None, ago=1.0)])
    assert forecast.remaining[job(1).id] == pytest.approx(13.0)
    assert forecast.remaining[job(2).id] == pytest.approx(11.0 + 14.0)


@pytest.mark.parametrize(
    "workers",
    [[], [worker(status=WorkerStatus.LOADING)], [worker(status=WorkerStatus.DRAINING)], [worker(stage_times=None)]],
)
def test_nobody_knows_how_long_a_queue_takes_that_nobody_works_on(workers: list[WorkerState]) -> None:
    forecast = look([job(1)], workers)
    assert forecast.remaining == {}
    assert forecast.positions == {job(1).id: 1}
    assert forecast.beyond(2) is None


def test_a_request_that_cannot_be_read_takes_no_time_and_is_promised_nothing() -> None:
    jobs = [job(1, request="?"), job(2)]
    forecast = look(jobs, [worker()])
    assert jobs[0].id not in forecast.remaining
    assert forecast.remaining[jobs[1].id] == pytest.approx(14.0)


def test_behind_those_that_were_played_the_pace_goes_on() -> None:
    forecast = look([job(k) for k in range(1, 5)], [worker()])
    assert forecast.beyond(8) == pytest.approx(2 * forecast.remaining[job(4).id])


def test_it_is_known_what_is_newest_before_and_beside_each() -> None:
    jobs = [job(3, "a"), job(2, "b"), job(5, "b"), job(6, "a")]
    forecast = look(jobs, [worker(batch=2)], [running(1, "encode", 1.0)])
    assert forecast.newest_before == {jobs[0].id: job(6).id, **dict.fromkeys((job(k).id for k in (2, 5, 6)), job(6).id)}
    assert forecast.newest == job(6).id
    alone = look(jobs, [worker()], [running(1, "encode", 1.0)])
    assert alone.newest_before == {job(k).id: job(newest).id for k, newest in ((3, 3), (2, 3), (5, 5), (6, 6))}
