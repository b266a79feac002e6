"""kill -9 of the processes that run jobs, in mid-batch: nothing is lost, nothing finishes twice, all goes on soon."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.auth.agents_file import add_agent
from backend.errors import WorkerDied
from tests.support.faults.fake_worker import DEVICE_LOSER, HANGER, KILLER, LATE_KILLER
from tests.support.faults.harness import FAKE_SERVICE, LEASE_SECONDS, WorkerHarness, cluster, sized, worker_harness
from tests.support.faults.report import report
from tests.support.faults.web_harness import until

pytestmark = pytest.mark.slow

PICTURES = (b"1", b"2", b"3", b"4")
RESUMED_SECONDS = LEASE_SECONDS + 30
# A job that has bad luck again and again is not to fail here.
PATIENT: dict[str, Any] = {"MAX_ATTEMPTS": 100, "FAKE_STEP_SECONDS": 0.1}
SOON_KILLED: dict[str, Any] = {"FAKE_STEP_SECONDS": 0.02, "BATCH_SECONDS": 10}


def lives(process: psutil.Process) -> bool:
    """Whether a process still does anything; one that has ended may wait for whoever reaps it."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def expect_resumed(made: WorkerHarness, what: str, kills: int) -> None:
    """Nothing lost or doubled, everything completed, and each ended run made up for in time."""
    made.await_done()
    made.expect_whole()
    assert set(made.outcomes()) == {"completed"}
    pauses = made.events.pauses(made.kills)
    assert pauses
    assert max(pauses) <= RESUMED_SECONDS
    report(
        what,
        f"{kills} kills in mid-batch",
        f"{len(made.submitted)} jobs, {len(pauses)} runs ended: 0 lost, 0 finished twice; resumed after "
        f"{max(pauses):.1f} s at most, {sum(pauses) / len(pauses):.1f} s on average (lease {LEASE_SECONDS} s)",
    )


def in_mid_batch(made: WorkerHarness, chance: random.Random) -> None:
    """Lets some jobs be done since the last kill, and waits for a moment within a batch."""
    made.submit(*PICTURES)
    made.await_running()
    time.sleep(chance.uniform(0, 2))
    if made.resources.store.counts().queued < len(PICTURES):
        made.submit(*PICTURES)
    made.await_running()
    time.sleep(chance.uniform(0, 0.3))


def test_killed_workers_lose_no_job(tmp_path: Path) -> None:
    kills, chance = sized(4, 100), random.Random(4)
    with cluster(tmp_path, **PATIENT) as (made, _):
        made.worker.start()
        left: list[psutil.Process] = []
        for number in range(kills):
            in_mid_batch(made, chance)
            made.note_kill()
            if number % 2:
                left += made.worker.kill()
                made.worker.start()
            else:
                made.worker.kill_child()
        expect_resumed(made, "worker (PostgreSQL, Redis, Celery)", kills)
        until(lambda: not any(map(lives, left)), "what dead parents left behind ends")
        # What dead parents left may have done the last jobs, before this one knows what a signal asks of it.
        until(lambda: bool(made.worker.children()), "the last worker has come up")
        assert made.worker.stop() == 0


def test_a_killed_service_of_one_process_loses_no_job(tmp_path: Path) -> None:
    kills, chance = sized(3, 100), random.Random(5)
    add_agent(tmp_path / "agents.json", "ann")
    with worker_harness(tmp_path, FAKE_SERVICE, AGENTS_FILE=tmp_path / "agents.json", PORT=0, **PATIENT) as made:
        made.worker.start()
        for number in range(kills):
            in_mid_batch(made, chance)
            made.note_kill()
            if number % 2:
                made.worker.kill_all()
                made.worker.start()
            else:
                made.worker.kill_child()
        expect_resumed(made, "one process (SQLite, gunicorn)", kills)
        assert made.worker.stop() == 0


@pytest.mark.parametrize("killer", [KILLER, LATE_KILLER, DEVICE_LOSER, *sized([], [HANGER])], ids=bytes.decode)
def test_a_picture_that_kills_its_worker_fails_alone(tmp_path: Path, killer: bytes) -> None:
    with cluster(tmp_path, **SOON_KILLED) as (made, _):
        expect_it_fails_alone(made, killer, "PostgreSQL, Redis, Celery")


@pytest.mark.parametrize("killer", [HANGER, *sized([], [KILLER, LATE_KILLER, DEVICE_LOSER])], ids=bytes.decode)
def test_a_picture_that_kills_the_service_of_one_process_fails_alone(tmp_path: Path, killer: bytes) -> None:
    add_agent(tmp_path / "agents.json", "ann")
    with worker_harness(tmp_path, FAKE_SERVICE, AGENTS_FILE=tmp_path / "agents.json", PORT=0, **SOON_KILLED) as made:
        expect_it_fails_alone(made, killer, "one process")


def expect_it_fails_alone(made: WorkerHarness, killer: bytes, where: str) -> None:
    """Whatever dies with it, the guilty job fails with its reason after three runs, and nobody else does."""
    first = made.submit(*PICTURES)
    (guilty,) = made.submit(killer)
    others = first + made.submit(*PICTURES, *PICTURES)
    made.worker.start()
    made.await_done()
    made.expect_whole()
    failed = made.job(guilty)
    assert (failed.status.value, failed.error_message, failed.attempts) == ("failed", WorkerDied().message, 3)
    neighbours = [made.job(job_id) for job_id in others]
    assert [job.status.value for job in neighbours] == ["completed"] * len(others)
    # Two deaths beside it, and then a run alone.
    assert max(job.attempts for job in neighbours) <= 3
    runs = sum(event.job_id == guilty and event.after == "processing" for event in made.events.read())
    assert runs == 3
    report(
        "a picture that kills its worker",
        f"{where}, among {len(others)} others: {killer.decode()}",
        f"{runs} runs, then failed with its reason; all others completed",
    )
