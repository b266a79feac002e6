"""A worker that is told to stop, politely, twice, or by losing its parent: what it runs is finished or handed back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.faults.harness import cluster, until

pytestmark = pytest.mark.slow

PICTURES = (b"1", b"2", b"3", b"4")


def test_sigterm_lets_the_batch_finish(tmp_path: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=0.5) as (yard, _):
        yard.worker.start()
        running, waiting = yard.submit(*PICTURES), yard.submit(*PICTURES)
        yard.await_running()
        assert yard.worker.stop() == 0
        assert [yard.job(job_id).status.value for job_id in running] == ["completed"] * 4
        assert [(yard.job(job_id).status.value, yard.job(job_id).attempts) for job_id in waiting] == [("queued", 0)] * 4
        assert yard.resources.registry.alive() == ()
        yard.worker.start()
        yard.await_done()
        yard.expect_whole()


@pytest.mark.parametrize("second", [signal.SIGTERM, None])
def test_sigterm_hands_back_a_batch_that_takes_too_long(tmp_path: Path, second: signal.Signals | None) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=4, DRAIN_SECONDS=1) as (yard, _):
        yard.worker.start()
        ids = yard.submit(*PICTURES)
        yard.await_running()
        yard.worker.send(signal.SIGTERM)
        if second is not None:
            yard.worker.send(second)
        assert yard.worker.wait() == 0
        assert [(yard.job(job_id).status.value, yard.job(job_id).attempts) for job_id in ids] == [("queued", 0)] * 4
        assert "Traceback" not in yard.worker.log


def test_sigquit_ends_the_worker_without_harm_to_its_jobs(tmp_path: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=30, DRAIN_SECONDS=1) as (yard, _):
        yard.worker.start()
        ids = yard.submit(*PICTURES)
        yard.await_running()
        yard.worker.send(signal.SIGQUIT)
        yard.worker.wait()
        assert [(yard.job(job_id).status.value, yard.job(job_id).attempts) for job_id in ids] == [("queued", 0)] * 4


def test_a_child_whose_parent_died_hands_its_batch_back_and_ends(tmp_path: Path) -> None:
    with cluster(tmp_path, FAKE_STEP_SECONDS=2) as (yard, _):
        yard.worker.start()
        ids = yard.submit(*PICTURES)
        yard.await_running()
        left = yard.worker.kill()
        assert len(left) == 1
        psutil.wait_procs(left, timeout=30)
        assert [each for each in left if each.is_running()] == []
        assert [(yard.job(job_id).status.value, yard.job(job_id).attempts) for job_id in ids] == [("queued", 0)] * 4
        assert "parent process has died" in yard.worker.log


def test_sigterm_to_all_processes_at_once_hands_the_batch_back(tmp_path: Path) -> None:
    """As systemd sends it."""
    with cluster(tmp_path, FAKE_STEP_SECONDS=2) as (yard, _):
        yard.worker.start()
        ids = yard.submit(*PICTURES)
        yard.await_running()
        os.killpg(yard.worker.pid, signal.SIGTERM)
        assert yard.worker.wait() == 0
        assert [(yard.job(job_id).status.value, yard.job(job_id).attempts) for job_id in ids] == [("queued", 0)] * 4
        assert yard.resources.registry.alive() == ()


def test_sigterm_ends_a_worker_that_waits_for_redis(tmp_path: Path) -> None:
    with cluster(tmp_path) as (yard, redis):
        redis.kill()
        yard.worker.start()
        yard.await_ready()
        until(lambda: "Cannot connect to redis" in yard.worker.log, "it waits")
        assert yard.worker.stop() == 0
