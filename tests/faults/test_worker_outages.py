"""Redis or PostgreSQL going away under a working worker: no job is lost, and it goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.support.postgres import PostgresCluster
from benchmarks.support.redis import RedisServer
from tests.support.faults.harness import WorkerHarness, cluster, sized, until
from tests.support.faults.report import report
from tests.support.store_backends import postgres_cluster

pytestmark = pytest.mark.slow

PICTURES = (b"1", b"2", b"3", b"4")
GOES_ON_SECONDS = 60.0


@contextmanager
def busy(folder: Path) -> Iterator[tuple[WorkerHarness, RedisServer]]:
    """Give a worker in the middle of a batch, with more to do; at the end all must be whole."""
    with cluster(folder, FAKE_STEP_SECONDS=0.3, MAX_ATTEMPTS=100) as (made, redis):
        made.worker.start()
        made.submit(*PICTURES, *PICTURES)
        made.await_running()
        yield made, redis
        made.await_done()
        made.expect_whole()
        assert set(made.outcomes()) == {"completed"}
        assert made.worker.stop() == 0


def seconds_until_more_is_done(made: WorkerHarness) -> float:
    """Submit more; return how long it takes until all of it is made."""
    begun = time.monotonic()
    more = made.submit(*PICTURES)
    until(lambda: {made.job(job_id).status.value for job_id in more} == {"completed"}, made.worker.log[-3000:])
    return time.monotonic() - begun


@pytest.mark.parametrize("away", [0.0, 8.0])
def test_redis_killed_and_started_again_loses_no_job(tmp_path: Path, away: float) -> None:
    found: list[float] = []
    with busy(tmp_path) as (made, redis):
        for _ in range(sized(1, 5)):
            redis.kill()
            # Nobody hears of these until Redis is back.
            made.submit(*PICTURES)
            time.sleep(away)
            redis.start()
            found.append(seconds_until_more_is_done(made))
        assert max(found) <= GOES_ON_SECONDS
        # Which of the two is said hangs on whether Redis is back before the worker has looked for it.
        assert any(said in made.worker.log for said in ("Cannot connect to redis", "Connection to broker lost"))
        assert "CPendingDeprecationWarning" not in made.worker.log
    report("Redis killed and started again", f"{len(found)} times, away for {away:.0f} s", figure(found))


def test_a_flushed_redis_loses_no_job(tmp_path: Path) -> None:
    found: list[float] = []
    with busy(tmp_path) as (made, redis):
        for _ in range(sized(1, 5)):
            made.submit(*PICTURES)
            redis.flush()
            found.append(seconds_until_more_is_done(made))
        assert max(found) <= GOES_ON_SECONDS
    report("Redis flushed", f"{len(found)} times", figure(found))


def test_a_hanging_redis_loses_no_job(tmp_path: Path) -> None:
    with busy(tmp_path) as (made, redis):
        redis.pause()
        made.submit(*PICTURES)
        time.sleep(3)
        redis.resume()
        seconds = seconds_until_more_is_done(made)
        assert seconds <= GOES_ON_SECONDS
    report("Redis hangs", "3 s", figure([seconds]))


def test_a_worker_that_starts_before_redis_waits_for_it(tmp_path: Path) -> None:
    with cluster(tmp_path) as (made, redis):
        redis.kill()
        made.worker.start()
        made.submit(*PICTURES)
        until(lambda: "Cannot connect to redis" in made.worker.log, "it says so")
        redis.start()
        made.await_done()
        made.expect_whole()
        assert made.worker.stop() == 0


@pytest.mark.parametrize("away", [0.0, 6.0])
def test_postgresql_started_again_under_load_loses_no_job(tmp_path: Path, away: float) -> None:
    server = postgres_cluster()
    found: list[float] = []
    with busy(tmp_path) as (made, _):
        for _ in range(sized(1, 5)):
            restart(server, away)
            found.append(seconds_until_more_is_done(made))
        assert max(found) <= GOES_ON_SECONDS
    report("PostgreSQL started again under load", f"{len(found)} times, away for {away:.0f} s", figure(found))


def test_a_child_that_starts_while_postgresql_is_away_waits_for_it(tmp_path: Path) -> None:
    server = postgres_cluster()
    with busy(tmp_path) as (made, _):
        server.stop()
        made.worker.kill_child()
        until(lambda: "The worker is not ready" in made.worker.log, "it says so")
        server.start()


def restart(server: PostgresCluster, away: float) -> None:
    server.stop()
    time.sleep(away)
    server.start()


def figure(seconds: list[float]) -> str:
    return f"0 lost; new jobs done {max(seconds):.1f} s after it was back, at most"
