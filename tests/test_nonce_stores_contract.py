"""Every store of nonces keeps the same promise: in memory, on either database, on Redis."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from backend.auth.nonces import NonceStore
from tests.support.redis_backend import TTL, nonce_store, redis_server, remember_all
from tests.support.store_backends import START, empty_database

SHARED = ("sqlite", "postgresql", "redis")


def urls(backend: str, folder: Path) -> tuple[str, str]:
    """NONCE_STORE and DATABASE_URL for an empty store."""
    database_url = empty_database("postgresql" if backend == "postgresql" else "sqlite", folder)
    if backend == "redis":
        return redis_server().url, database_url
    return "memory" if backend == "memory" else "database", database_url


class Nonces:
    """A store, and the time it lives in."""

    def __init__(self, store: NonceStore, nonce_url: str) -> None:
        self.store = store
        self.now = START
        self._nonce_url = nonce_url

    def remember(self, agent_id: str, nonce: str) -> bool:
        return self.store.remember(agent_id, nonce, self.now, TTL)

    def advance(self, time: timedelta) -> None:
        self.now += time
        if not self._nonce_url.startswith("redis"):
            return
        with redis.Redis.from_url(self._nonce_url) as client:
            for key in client.scan_iter():
                # Not above 0 removes it, as its end would have.
                client.pexpire(key, client.pttl(key) - int(time / timedelta(milliseconds=1)))


@pytest.fixture(params=("memory", *SHARED))
def nonces(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nonces]:
    nonce_url, database_url = urls(request.param, tmp_path)
    with nonce_store(nonce_url, database_url) as store:
        yield Nonces(store, nonce_url)


def test_a_nonce_is_new_once(nonces: Nonces) -> None:
    assert [nonces.remember("ann", "n-00000001") for _ in range(3)] == [True, False, False]


def test_agents_and_letter_cases_are_told_apart(nonces: Nonces) -> None:
    pairs = [("ann", "n-00000001"), ("bob", "n-00000001"), ("ann", "N-00000001"), ("Ann", "n-00000001")]
    assert [nonces.remember(*pair) for pair in pairs] == [True] * 4
    assert [nonces.remember(*pair) for pair in pairs] == [False] * 4


def test_agent_and_nonce_never_run_into_one_another(nonces: Nonces) -> None:
    pairs = [("a", "b:c"), ("a:b", "c"), ("a", "1:b"), ("a:1", "b"), ("ab", "c"), ("a", "bc")]
    assert [nonces.remember(*pair) for pair in pairs] == [True] * 6


def test_a_nonce_is_used_while_its_time_lasts_and_new_after(nonces: Nonces) -> None:
    assert nonces.remember("ann", "n-00000001")
    nonces.advance(TTL - timedelta(seconds=60))
    assert not nonces.remember("ann", "n-00000001")
    # The refused use has not made its time longer.
    nonces.advance(timedelta(seconds=61))
    assert nonces.remember("ann", "n-00000001")
    assert not nonces.remember("ann", "n-00000001")


def test_longest_agent_and_nonce_fit(nonces: Nonces) -> None:
    assert nonces.remember("a" * 64, "n" * 128)
    assert not nonces.remember("a" * 64, "n" * 128)
    assert nonces.remember("a" * 64, "n" * 127)


def test_of_many_threads_one_uses_a_nonce(nonces: Nonces) -> None:
    with ThreadPoolExecutor(8) as pool:
        admitted = list(pool.map(lambda k: nonces.remember("ann", f"nonce-{k % 25}"), range(200)))
    assert sum(admitted) == 25


@pytest.mark.slow
@pytest.mark.parametrize("backend", SHARED)
def test_of_eight_processes_one_uses_each_nonce(backend: str, tmp_path: Path) -> None:
    where = urls(backend, tmp_path)
    names = [f"nonce-{k:03d}" for k in range(500)]
    turns = [names[k * 60 :] + names[: k * 60] for k in range(8)]
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        admitted = pool.starmap_async(remember_all, [(*where, turn) for turn in turns], chunksize=1).get(timeout=120)
    assert sorted(nonce for some in admitted for nonce in some) == names
