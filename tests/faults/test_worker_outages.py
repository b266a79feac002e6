"""Redis or PostgreSQL going away under a working worker: no job is lost, and it goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.support.postgres import PostgresCluster
from benchmarks.support.redis import RedisServer
from tests.support.faults.harness import Yard, cluster, sized, until
from tests.support.faults.report import report
from tests.support.store_backends import postgres_cluster

pytestmark = pytest.mark.slow

PICTURES = (b"1", b"2", b"3", b"4")
GOES_ON_SECONDS = 60.0


@contextmanager
def busy(folder: Path) -> Iterator[tuple[Yard, RedisServer]]:
    """Give a worker in the middle of a batch, with more to do; at the end all must be whole."""
    with cluster(folder, FAKE_STEP_SECONDS=0.3, MAX_ATTEMPTS=100) as (yard, redis):
        yard.worker.start()
        yard.submit(*PICTURES, *PICTURES)
        yard.await_running()
        yield yard, redis
        yard.await_done()
        yard.expect_whole()
        assert set(yard.outcomes()) == {"completed"}
        assert yard.worker.stop() == 0


def seconds_until_more_is_done(yard: Yard) -> float:
    """Submit more; return how long it takes until all of it is made."""
    begun = time.monotonic()
    more = yard.submit(*PICTURES)
    until(lambda: {yard.job(job_id).status.value for job_id in more} == {"completed"}, yard.worker.log[-3000:])
    return time.monotonic() - begun


@pytest.mark.parametrize("away", [0.0, 8.0])
def test_redis_killed_and_started_again_loses_no_job(tmp_path: Path, away: float) -> None:
    found: list[float] = []
    with busy(tmp_path) as (yard, redis):
        for _ in range(sized(1, 5)):
            redis.kill()
            # Nobody hears of these until Redis is back.
            yard.submit(*PICTURES)
            time.sleep(away)
            redis.start()
            found.append(seconds_until_more_is_done(yard))
        assert max(found) <= GOES_ON_SECONDS
        assert yard.worker.log.count("Cannot connect to redis") > 0
        assert "CPendingDeprecationWarning" not in yard.worker.log
    report("Redis killed and started again", f"{len(found)} times, away for {away:.0f} s", figure(found))


def test_a_flushed_redis_loses_no_job(tmp_path: Path) -> None:
    found: list[float] = []
    with busy(tmp_path) as (yard, redis):
        for _ in range(sized(1, 5)):
            yard.submit(*PICTURES)
            redis.flush()
            found.append(seconds_until_more_is_done(yard))
        assert max(found) <= GOES_ON_SECONDS
    report("Redis flushed", f"{len(found)} times", figure(found))


def test_a_hanging_redis_loses_no_job(tmp_path: Path) -> None:
    with busy(tmp_path) as (yard, redis):
        redis.pause()
        yard.submit(*PICTURES)
        time.sleep(3)
        redis.resume()
        seconds = seconds_until_more_is_done(yard)
        assert seconds <= GOES_ON_SECONDS
    report("Redis hangs", "3 s", figure([seconds]))


def test_a_worker_that_starts_before_redis_waits_for_it(tmp_path: Path) -> None:
    with cluster(tmp_path) as (yard, redis):
        redis.kill()
        yard.worker.start()
        yard.submit(*PICTURES)
        until(lambda: "Cannot connect to redis" in yard.worker.log, "it says so")
        redis.start()
        yard.await_done()
        yard.expect_whole()
        assert yard.worker.stop() == 0


@pytest.mark.parametrize("away", [0.0, 6.0])
def test_postgresql_started_again_under_load_loses_no_job(tmp_path: Path, away: float) -> None:
    server = postgres_cluster()
    found: list[float] = []
    with busy(tmp_path) as (yard, _):
        for _ in range(sized(1, 5)):
            restart(server, away)
            found.append(seconds_until_more_is_done(yard))
        assert max(found) <= GOES_ON_SECONDS
    report("PostgreSQL started again under load", f"{len(found)} times, away for {away:.0f} s", figure(found))


def test_a_child_that_starts_while_postgresql_is_away_waits_for_it(tmp_path: Path) -> None:
    server = postgres_cluster()
    with busy(tmp_path) as (yard, _):
        server.stop()
        yard.worker.kill_child()
        until(lambda: "The worker is not ready" in yard.worker.log, "it says so")
        server.start()


def restart(server: PostgresCluster, away: float) -> None:
    server.stop()
    time.sleep(away)
    server.start()


def figure(seconds: list[float]) -> str:
    return f"0 lost; new jobs done {max(seconds):.1f} s after it was back, at most"
