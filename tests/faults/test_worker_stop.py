"""A worker that is told to stop, politely, twice, or by losing its parent: what it runs is finished or handed back."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.jobs.models import Status
from tests.support.faults.harness import WorkerHarness, cluster, sized, until
from tests.support.faults.report import report

pytestmark = pytest.mark.slow

PICTURES = (b"1", b"2", b"3", b"4")
SIX = tuple(b"picture %d" % number for number in range(6))
STEPS = 4
# While the device is at a step, and once so many of the six are recorded.
MOMENTS = [*(("step", number) for number in range(1, STEPS + 1)), *(("recorded", number) for number in range(6))]
SHORT_MOMENTS = [("recorded", 1)]


def test_sigterm_lets_the_batch_finish(tmp_path: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=0.5) as (made, _):
        made.worker.start()
        running, waiting = made.submit(*PICTURES), made.submit(*PICTURES)
        made.await_running()
        assert made.worker.stop() == 0
        assert [made.job(job_id).status.value for job_id in running] == ["completed"] * 4
        assert [(made.job(job_id).status.value, made.job(job_id).attempts) for job_id in waiting] == [("queued", 0)] * 4
        assert made.resources.registry.alive() == ()
        made.worker.start()
        made.await_done()
        made.expect_whole()


def test_sigterm_at_any_moment_of_a_batch_throws_nothing_away(tmp_path: Path) -> None:
    """The device is free long before six meshes are made by two threads, and Celery then ends the worker's child."""
    moments = sized(SHORT_MOMENTS, MOMENTS)
    settings: dict[str, Any] = {
        "FAKE_STEP_SECONDS": 0.5,
        "FAKE_MESH_SECONDS": 1,
        "MAX_BATCH_SIZE": len(SIX),
        "BATCH_WAIT": 0.2,
    }
    with cluster(tmp_path, **settings) as (made, _):
        for moment in moments:
            made.worker.start()
            made.await_ready()
            ids = made.submit(*SIX)
            until(partial(has_come, made, ids, *moment), f"{moment}; {made.worker.log[-3000:]}")
            assert made.worker.stop() == 0
            found = [made.job(job_id) for job_id in ids]
            assert [(job.status, job.attempts, job.fence) for job in found] == [(Status.COMPLETED, 1, 1)] * len(ids)
        made.expect_whole()
        assert "handed back" not in made.worker.log
        assert made.resources.registry.alive() == ()
    report(
        "SIGTERM at a worker",
        f"a batch of {len(SIX)}, at {len(moments)} of its moments",
        f"{len(SIX) * len(moments)} jobs: all done by the old worker, none handed back",
    )


def has_come(made: WorkerHarness, ids: list[str], stage: str, number: int) -> bool:
    """Whether all jobs run and have come as far as a moment says."""
    found = [made.job(job_id) for job_id in ids]
    if any(job.status is Status.QUEUED for job in found):
        return False
    recorded = sum(job.status is Status.COMPLETED for job in found)
    if stage == "recorded":
        # "mesh" and "export" come after the last step.
        return recorded >= number and all(not job.current_step.startswith("sample") for job in found)
    return recorded > 0 or any(job.current_step in _from_step(number) for job in found)


def _from_step(number: int) -> list[str]:
    return [*(f"sample {step}/{STEPS}" for step in range(number, STEPS + 1)), "decode", "mesh", "export"]


@pytest.mark.parametrize("second", [signal.SIGTERM, None])
def test_sigterm_hands_back_a_batch_that_takes_too_long(tmp_path: Path, second: signal.Signals | None) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=4, DRAIN_SECONDS=1) as (made, _):
        made.worker.start()
        ids = made.submit(*PICTURES)
        made.await_running()
        made.worker.send(signal.SIGTERM)
        if second is not None:
            made.worker.send(second)
        assert made.worker.wait() == 0
        assert [(made.job(job_id).status.value, made.job(job_id).attempts) for job_id in ids] == [("queued", 0)] * 4
        assert "Traceback" not in made.worker.log


def test_sigquit_ends_the_worker_without_harm_to_its_jobs(tmp_path: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=30, DRAIN_SECONDS=1) as (made, _):
        made.worker.start()
        ids = made.submit(*PICTURES)
        made.await_running()
        made.worker.send(signal.SIGQUIT)
        made.worker.wait()
        assert [(made.job(job_id).status.value, made.job(job_id).attempts) for job_id in ids] == [("queued", 0)] * 4


def test_a_child_whose_parent_died_hands_its_batch_back_and_ends(tmp_path: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=2) as (made, _):
        made.worker.start()
        ids = made.submit(*PICTURES)
        made.await_running()
        left = made.worker.kill()
        assert len(left) == 1
        psutil.wait_procs(left, timeout=30)
        assert [each for each in left if each.is_running()] == []
        assert [(made.job(job_id).status.value, made.job(job_id).attempts) for job_id in ids] == [("queued", 0)] * 4
        assert "parent process has died" in made.worker.log


def test_sigterm_to_all_processes_at_once_lets_the_batch_finish(tmp_path: Path) -> None:
    """As a terminal or a supervisor may send it; at any moment: whatever the child does, its own lease goes on."""
    with cluster(tmp_path, FAKE_STEP_SECONDS=0.2) as (made, _):
        for pause in sized((0.0, 0.02), [0.004 * number for number in range(15)]):
            made.worker.start()
            ids = made.submit(*PICTURES)
            made.await_running()
            time.sleep(pause)
            os.killpg(made.worker.pid, signal.SIGTERM)
            assert made.worker.wait() == 0
            found = [made.job(job_id) for job_id in ids]
            # The first is running; whether others had been taken in is a matter of milliseconds.
            ran = [job for job in found if job.status is Status.COMPLETED]
            assert found[0] in ran
            assert {(job.status, job.attempts) for job in found} <= {(Status.COMPLETED, 1), (Status.QUEUED, 0)}
            assert made.resources.registry.alive() == ()
        made.worker.start()
        made.await_done()
        made.expect_whole()


def test_sigterm_at_the_child_alone_lets_its_batch_finish_and_another_goes_on(tmp_path: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=0.5) as (made, _):
        made.worker.start()
        ids = made.submit(*PICTURES)
        made.await_running()
        (child,) = psutil.Process(made.worker.pid).children()
        child.send_signal(signal.SIGTERM)
        made.submit(b"5")
        psutil.wait_procs([child], timeout=30)
        assert made.job(ids[0]).status is Status.COMPLETED
        made.await_done()
        assert {job.attempts for job in made.jobs()} == {1}
        made.expect_whole()
        assert made.worker.stop() == 0


def test_a_second_sigterm_to_all_processes_hands_the_batch_back(tmp_path: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=30) as (made, _):
        made.worker.start()
        ids = made.submit(*PICTURES)
        made.await_running()
        until(lambda: made.job(ids[0]).current_step.startswith("sample"), "it samples")
        for _ in range(2):
            os.killpg(made.worker.pid, signal.SIGTERM)
            time.sleep(1)
        assert made.worker.wait() == 0
        assert [(made.job(job_id).status.value, made.job(job_id).attempts) for job_id in ids] == [("queued", 0)] * 4


def test_sigterm_ends_a_worker_that_waits_for_redis(tmp_path: Path) -> None:
    with cluster(tmp_path) as (made, redis):
        redis.kill()
        made.worker.start()
        made.await_ready()
        until(lambda: "Cannot connect to redis" in made.worker.log, "it waits")
        assert made.worker.stop() == 0
