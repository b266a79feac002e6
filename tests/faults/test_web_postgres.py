"""PostgreSQL restarted under load: clear refusals while it is away, nothing lost, and service again when it is back."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from benchmarks.support.postgres import PostgresCluster
from tests.support.faults.report import report
from tests.support.faults.web_harness import (
    Callers,
    Insistent,
    fake_worker,
    one_image,
    records_of,
    sized,
    until,
    web_service,
)
from tests.support.hostile_pictures import good_png
from tests.support.redis_backend import redis_server
from tests.support.running import API, RunningService

# Nonces lie in Redis in one of the two: then the job table is asked first by the call itself.
WHILE_AWAY = {"database": (503, "AUTH_UNAVAILABLE"), "redis": (503, "STORE_UNAVAILABLE")}
PASSING = {(200, ""), (202, ""), (503, "AUTH_UNAVAILABLE"), (503, "STORE_UNAVAILABLE"), (503, "GPU_BUSY")}


@pytest.mark.slow
@pytest.mark.parametrize("nonces", WHILE_AWAY)
def test_restarted_database_loses_nothing_and_makes_no_errors(tmp_path: Path, nonces: str) -> None:
    redis = redis_server()
    cluster = PostgresCluster()
    cluster.start()
    settings = {
        "DATABASE_URL": cluster.url,
        "NONCE_STORE": "database" if nonces == "database" else redis.url,
        "RATE_LIMIT_STORAGE_URL": redis.url,
        "WEB_PROCESSES": 2,
        "QUEUE_LIMIT": 100_000,
        "UNAUTHENTICATED_RATE_LIMIT": 1_000_000,
    }
    try:
        with (
            web_service(tmp_path / "service", processes=2, works=False, **settings) as service,
            records_of(service) as found,
            fake_worker(service, lease_seconds=10),
        ):
            insistent = [Insistent(service, service.agent) for _ in range(3)]
            with Callers() as callers:
                for caller in insistent:
                    callers.add_loop(lambda caller=caller: send_until_stopped(callers, caller))  # type: ignore[misc]
                callers.add(lambda: service.get("/jobs"), pause=0.05)
                callers.add(lambda: service.send("GET", f"{API}/health", {}), pause=0.05)
                for _ in range(sized(2, 10)):
                    time.sleep(2)
                    cluster.stop()
                    until(lambda: service.get("/jobs").refusal == WHILE_AWAY[nonces], "a clear refusal")
                    until(lambda: health(service) == (503, "STORE_UNAVAILABLE"), "an honest health")
                    cluster.start()
                    until(lambda: service.get("/jobs").status == 200, "service again")
                    service.wait_for_health()
            assert callers.broken == 0
            assert set(callers.refusals) <= PASSING
            assert '"level": "ERROR"' not in web_errors(service.log)
            found.wait_until_done()
            promised = {key: ids for caller in insistent for key, ids in caller.promised.items()}
            assert len(promised) > 5
            found.expect_whole(promised)
            found.sweep_later()
            assert (found.files("inputs"), found.files("artifacts"), found.rows()) == (set(), set(), {})
        report(
            f"PostgreSQL restarted under uploads, nonces in {nonces}",
            f"{sized(2, 10)} times",
            f"{len(promised)} accepted and completed; 503 meanwhile, no other error, no broken connection",
        )
    finally:
        cluster.destroy()


@pytest.mark.slow
def test_processes_that_die_while_the_database_is_away_take_no_other_with_them(tmp_path: Path) -> None:
    cluster = PostgresCluster()
    cluster.start()
    settings = {"DATABASE_URL": cluster.url, "RATE_LIMIT_STORAGE_URL": redis_server().url, "WEB_PROCESSES": 2}
    try:
        with web_service(tmp_path, processes=2, works=False, **settings) as service:
            cluster.stop()
            victim, other = service.web_processes()
            victim.kill()
            until(lambda: service.log.count("This process waits to start") == 1, "a new process that waits")
            until(lambda: health(service) == (503, "STORE_UNAVAILABLE"), "health says that the database is away")
            other.kill()
            until(lambda: service.log.count("This process waits to start") == 2, "another one")
            cluster.start()
            service.wait_for_health()
            until(lambda: service.get("/jobs").status == 200, "service again")
            assert {victim.pid, other.pid} & {each.pid for each in service.web_processes()} == set()
            # One that still waits ends in order, too.
            cluster.stop()
            service.web_processes()[0].kill()
            until(lambda: service.log.count("This process waits to start") == 3, "one that will wait for ever")
            service.stop()
    finally:
        cluster.destroy()


@pytest.mark.slow
def test_many_callers_at_once_leave_the_database_connections_for_others(tmp_path: Path) -> None:
    cluster = PostgresCluster()
    cluster.start()
    settings = {"DATABASE_URL": cluster.url, "RATE_LIMIT_STORAGE_URL": redis_server().url, "WEB_PROCESSES": 4}
    try:
        with web_service(tmp_path, processes=4, works=False, **settings) as service, ThreadPoolExecutor(120) as pool:
            answers = Counter(pool.map(lambda _: service.get("/jobs").refusal, range(sized(600, 6000))))
            with psycopg.connect(cluster.url) as connection:
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'client%'"
                ).fetchone()
        assert answers == {(200, ""): sized(600, 6000)}
        assert row is not None
        # Of the 100 that a server lets in by default.
        assert row[0] <= 4 * 8 + 1
    finally:
        cluster.destroy()


def send_until_stopped(callers: Callers, caller: Insistent) -> None:
    while not callers.stopping:
        caller.submit(one_image(good_png(), quality=1, steps=10))


def health(service: RunningService) -> tuple[int, str]:
    return service.send("GET", f"{API}/health", {}).refusal


def web_errors(log: str) -> str:
    """Return the log without the errors that report once that the store is away: janitor and reminder."""
    return "\n".join(line for line in log.splitlines() if "backend.periodic" not in line and "janitor" not in line)
