"""Redis away, hanging and back: closed where nonces lie there, never open and never an error where limits do."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.support.redis import RedisServer
from tests.support.faults.report import report
from tests.support.faults.web_harness import Callers, sized, until, web_service
from tests.support.redis_backend import redis_server
from tests.support.running import API

AWAY = (503, "AUTH_UNAVAILABLE")
UNSIGNED = (401, "AUTH_MISSING")
TROUBLES = {"killed": RedisServer.kill, "hanging": RedisServer.pause}


def mend(server: RedisServer) -> None:
    server.resume()
    server.start()


@pytest.mark.slow
@pytest.mark.parametrize("name", TROUBLES)
def test_requests_are_refused_while_nonces_cannot_be_noted(tmp_path: Path, name: str) -> None:
    trouble, server = TROUBLES[name], redis_server()
    settings = {"NONCE_STORE": server.url, "RATE_LIMIT_STORAGE_URL": server.url, "WEB_PROCESSES": 2}
    with web_service(tmp_path, processes=2, works=False, **settings) as service:
        seconds: list[float] = []

        def ask() -> tuple[int, str]:
            began = time.monotonic()
            answer = service.get("/jobs")
            seconds.append(time.monotonic() - began)
            if answer.refusal == AWAY:
                assert int(answer.headers["Retry-After"]) > 0
            return answer.refusal

        try:
            assert ask() == (200, "")
            trouble(server)
            seconds.clear()
            with ThreadPoolExecutor(4) as pool:
                assert Counter(pool.map(lambda _: ask(), range(24))) == {AWAY: 24}
            # The promise is 2 s; a crowded machine may miss it now and then.
            assert statistics.median(seconds) < 2
            figure = f"503 AUTH_UNAVAILABLE after {max(seconds):.2f} s at most; taken again by itself"
            service.wait_for_health()
            mend(server)
            until(lambda: ask() == (200, ""), "requests are taken again")
        finally:
            mend(server)
    report(f"Redis {name}, nonces in it", "24 requests", figure)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_limits_fall_back_to_shares_and_never_open(tmp_path: Path, trouble: Callable[[RedisServer], None]) -> None:
    server = redis_server()
    settings = {"RATE_LIMIT_STORAGE_URL": server.url, "WEB_PROCESSES": 2, "UNAUTHENTICATED_RATE_LIMIT": 40}
    with web_service(tmp_path, processes=2, works=False, **settings) as service:
        agent = service.add_agent(rate_limit=100)

        def ask() -> tuple[int, str]:
            return service.get("/jobs", agent=agent).refusal

        def ask_unsigned() -> tuple[int, str]:
            return service.send("GET", f"{API}/jobs", {}).refusal

        try:
            assert ask() == (200, "")
            trouble(server)
            with ThreadPoolExecutor(8) as pool:
                signed = Counter(pool.map(lambda _: ask(), range(300)))
                unsigned = Counter(pool.map(lambda _: ask_unsigned(), range(120)))
            # How the system shares connections out says how much of its half each process used.
            assert set(signed) == {(200, ""), (429, "RATE_LIMITED")}
            assert 50 <= signed[200, ""] <= 100
            assert set(unsigned) == {UNSIGNED, (429, "RATE_LIMITED")}
            assert 20 <= unsigned[UNSIGNED] <= 40
            mend(server)
            server.flush()
            fresh = service.add_agent(rate_limit=1_000_000)
            until(lambda: service.get("/jobs", agent=fresh).status == 200 and counted(server), "counted on Redis again")
        finally:
            mend(server)


@pytest.mark.slow
def test_redis_that_comes_and_goes_under_load_makes_no_errors(tmp_path: Path) -> None:
    server = redis_server()
    settings = {"NONCE_STORE": server.url, "RATE_LIMIT_STORAGE_URL": server.url, "WEB_PROCESSES": 2}
    with web_service(tmp_path, processes=2, works=False, **settings) as service:
        try:
            with Callers() as callers:
                for _ in range(6):
                    callers.add(lambda: service.get("/jobs"), pause=0.02)
                for turn in range(sized(4, 20)):
                    time.sleep(0.5)
                    (server.kill, server.flush, server.pause)[turn % 3]()
                    time.sleep(0.5)
                    mend(server)
                until(lambda: service.get("/jobs").status == 200, "requests are taken again")
            assert callers.broken == 0
            assert set(callers.refusals) == {(200, ""), AWAY}
            assert '"level": "ERROR"' not in service.log
        finally:
            mend(server)


def counted(server: RedisServer) -> bool:
    with server.client() as client:
        return any("orfeas" in key.lower() or "LIMIT" in key for key in client.scan_iter())
