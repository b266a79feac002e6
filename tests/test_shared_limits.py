"""Limits counted on Redis: exact over processes, never open and never an error while it is away, back by themselves."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from limits.storage import RedisStorage

from backend.errors import ConfigurationError
from benchmarks.support.redis import RedisServer
from tests.support.own_process import own_processes
from tests.support.redis_backend import Door, count_admitted, redis_server


@pytest.fixture
def server() -> RedisServer:
    return redis_server()


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Give the time that passes between two checks for a storage that is away."""
    moment = SimpleNamespace(seconds=time.time())
    monkeypatch.setattr("flask_limiter._extension.time", SimpleNamespace(time=lambda: moment.seconds))
    return moment


@pytest.mark.slow
def test_four_processes_admit_exactly_the_limit(server: RedisServer) -> None:
    with own_processes().Pool(4) as pool:
        work = [(server.url, "a1", 100, 600)] * 4
        admitted = pool.starmap_async(count_admitted, work, chunksize=1).get(timeout=55)
    assert sum(admitted) == 100


def test_killed_redis_leaves_each_process_its_share(server: RedisServer) -> None:
    doors = [Door(server.url) for _ in range(4)]
    assert sum(door.count("a1", 100, 10) for door in doors) == 40
    server.kill()
    assert [door.count("a1", 100, 40) for door in doors] == [25, 25, 25, 25]


def test_redis_is_used_again_when_it_is_back(server: RedisServer, minutes: SimpleNamespace) -> None:
    doors = [Door(server.url) for _ in range(2)]
    server.kill()
    assert [door.count("a1", 8, 4) for door in doors] == [2, 2]
    server.start()
    minutes.seconds += 2
    assert [door.count("a1", 8, 6) for door in doors] == [6, 2]


def test_redis_is_checked_at_least_every_forty_seconds(
    server: RedisServer, minutes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[float] = []
    monkeypatch.setattr(RedisStorage, "check", lambda _: checks.append(minutes.seconds))
    door = Door(server.url)
    server.kill()
    for _ in range(600):
        minutes.seconds += 1
        door.is_admitted("a1", 100)
    gaps = [later - earlier for earlier, later in itertools.pairwise(checks)]
    assert len(gaps) > 10
    assert max(gaps) <= 40


def test_flushed_redis_counts_anew(server: RedisServer) -> None:
    doors = [Door(server.url) for _ in range(2)]
    assert [door.count("a1", 8, 6) for door in doors] == [6, 2]
    server.flush()
    assert [door.count("a1", 8, 6) for door in doors] == [6, 2]


def test_hanging_redis_holds_nobody_up_for_ever_and_lets_no_more_in(server: RedisServer) -> None:
    door = Door(server.url)
    assert door.count("a1", 40, 1) == 1
    server.pause()
    with ThreadPoolExecutor(16) as pool:
        admitted = list(pool.map(lambda _: door.is_admitted("a1", 40), range(64)))
    server.resume()
    assert sum(admitted) == 10


@pytest.mark.parametrize("trouble", [RedisServer.kill, RedisServer.pause])
def test_threads_that_meet_the_trouble_together_get_an_answer(
    server: RedisServer, trouble: Callable[[RedisServer], None]
) -> None:
    door = Door(server.url)
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(door.is_admitted, f"a{k % 50}", 1000) for k in range(200)]
        trouble(server)
        answers += [pool.submit(door.is_admitted, f"a{k % 50}", 1000) for k in range(200)]
        assert all(answer.result() for answer in answers)


def test_redis_that_cannot_write_leaves_the_share(server: RedisServer) -> None:
    door = Door(server.url)
    with server.client() as client:
        client.config_set("maxmemory", "1")
        try:
            assert door.count("a1", 100, 40) == 25
        finally:
            client.config_set("maxmemory", "0")


def test_unreadable_address_stops_the_start_and_is_not_told() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Door("redis://:sesame@host:port/0")
    assert raised.value.message == "RATE_LIMIT_STORAGE_URL must be memory:// or redis://HOST:PORT/DB."
    assert raised.value.__cause__ is None
