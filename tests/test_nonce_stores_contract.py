"""Every store of nonces keeps the same promise: in memory, on either database, on Redis."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from backend.auth.clock_jumps import SignedAt
from backend.auth.nonces import NonceStore
from backend.auth.nonces_sql import SqlNonceStore
from backend.errors import AuthExpired
from tests.support.own_process import own_processes
from tests.support.redis_backend import TTL, nonce_store, redis_server, remember_all
from tests.support.store_backends import START, empty_database

TOLERANCE = timedelta(seconds=300)
SHARED = ("sqlite", "postgresql", "redis")


def urls(backend: str, folder: Path) -> tuple[str, str]:
    """NONCE_STORE and DATABASE_URL for an empty store."""
    database_url = empty_database("postgresql" if backend == "postgresql" else "sqlite", folder)
    if backend == "redis":
        return redis_server().url, database_url
    return "memory" if backend == "memory" else "database", database_url


class Nonces:
    """A store, and the time it lives in."""

    def __init__(self, store: NonceStore) -> None:
        self.store = store
        self.now = START

    def remember(self, agent_id: str, nonce: str) -> bool:
        return self.store.remember(agent_id, nonce, self.now, TTL)

    def remember_signed(self, nonce: str, age: timedelta) -> bool:
        """Show a nonce with a request that was signed so long ago."""
        return self.store.remember("ann", nonce, self.now, TTL, SignedAt(self.now - age, TOLERANCE))

    def advance(self, time: timedelta) -> None:
        self.now += time


@pytest.fixture(params=("memory", *SHARED))
def nonces(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nonces]:
    nonce_url, database_url = urls(request.param, tmp_path)
    with nonce_store(nonce_url, database_url) as store:
        yield Nonces(store)


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


def test_a_clock_that_jumps_ahead_and_back_lets_no_request_in_again(nonces: Nonces) -> None:
    assert nonces.remember_signed("captured", timedelta())
    nonces.advance(timedelta(hours=1))
    # More requests than any store forgets nonces by at once; nobody sends one that was signed an hour ago.
    assert all(nonces.remember_signed(f"nonce-{k}", timedelta()) for k in range(20))
    nonces.advance(timedelta(hours=-1))
    with pytest.raises(AuthExpired) as refused:
        nonces.remember_signed("captured", timedelta())
    earliest = START + timedelta(hours=1) - TOLERANCE
    assert refused.value.details == {"server_time": int(earliest.timestamp()) + 1, "tolerance_seconds": 300}
    with pytest.raises(AuthExpired):
        nonces.remember_signed("another", timedelta())
    nonces.advance(timedelta(hours=1))
    assert nonces.remember_signed("later", timedelta())


def test_a_clock_that_jumps_ahead_and_back_with_no_request_between_forgets_nothing(nonces: Nonces) -> None:
    assert nonces.remember_signed("captured", timedelta())
    nonces.advance(timedelta(hours=1))
    if isinstance(nonces.store, SqlNonceStore):
        assert nonces.store.prune(nonces.now, 99) == 0
    nonces.advance(timedelta(hours=-1))
    assert not nonces.remember_signed("captured", timedelta())
    assert nonces.remember_signed("another", timedelta())


def test_after_a_small_jump_back_only_what_is_too_old_for_the_time_before_is_refused(nonces: Nonces) -> None:
    assert nonces.remember_signed("nonce-1", timedelta())
    nonces.advance(timedelta(seconds=-60))
    assert nonces.remember_signed("nonce-2", timedelta(seconds=239))
    with pytest.raises(AuthExpired):
        nonces.remember_signed("nonce-3", timedelta(seconds=241))
    assert nonces.remember_signed("nonce-4", timedelta(seconds=-300))


def test_clocks_a_few_seconds_apart_are_no_jump(nonces: Nonces) -> None:
    assert nonces.remember_signed("nonce-1", timedelta())
    nonces.advance(timedelta(seconds=-5))
    assert nonces.remember_signed("nonce-2", timedelta(seconds=299))


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
    with own_processes().Pool(8) as pool:
        admitted = pool.starmap_async(remember_all, [(*where, turn) for turn in turns], chunksize=1).get(timeout=120)
    assert sorted(nonce for some in admitted for nonce in some) == names
