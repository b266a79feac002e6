"""Each nonce is new once, whoever asks, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from backend.api.statuses import status_of
from backend.auth.nonces_sql import SqlNonceStore
from backend.errors import AuthUnavailable
from backend.jobs.schema import nonces
from backend.storage.database import Database
from tests.support.own_process import own_processes
from tests.support.store_backends import START, open_database, remember_all

TTL = timedelta(seconds=600)


def rows(database: Database) -> int:
    """Return how many nonces of agents are kept."""
    with database.read() as connection:
        of_agents = select(func.count()).where(nonces.c.agent_id != "")
        return connection.execute(of_agents).scalar_one()


def test_a_nonce_is_new_once_for_each_agent(database: Database) -> None:
    store = SqlNonceStore(database)
    assert store.remember("ann", "n-00000001", START, TTL)
    assert not store.remember("ann", "n-00000001", START, TTL)
    assert store.remember("bob", "n-00000001", START, TTL)
    assert store.remember("ann", "N-00000001", START, TTL)


def test_a_nonce_is_used_up_to_the_end_of_its_time_and_again_after(database: Database) -> None:
    store = SqlNonceStore(database)
    assert store.remember("ann", "nonce", START, TTL)
    assert not store.remember("ann", "nonce", START + TTL, TTL)
    after = START + TTL + timedelta(microseconds=1)
    assert store.remember("ann", "nonce", after, TTL)
    assert not store.remember("ann", "nonce", after + TTL, TTL)


def test_nonces_that_ended_are_removed(database: Database) -> None:
    store = SqlNonceStore(database)
    for k in range(12):
        store.remember("ann", f"old-{k}", START, TTL)
    later = START + 2 * TTL
    for k in range(4):
        assert store.remember("ann", f"new-{k}", later, TTL)
    assert rows(database) == 4


def test_nonces_that_ended_can_be_removed_up_to_the_newest_accepted_request(database: Database) -> None:
    store = SqlNonceStore(database)
    for k in range(4):
        store.remember("ann", f"old-{k}", START, TTL)
    after = START + TTL + timedelta(microseconds=1)
    # The clock alone may say anything.
    assert store.prune(after, 9) == 0
    store.remember("ann", "new", after, TTL)
    assert store.prune(START + TTL, 9) == 0
    assert [store.prune(after, 2) for _ in range(3)] == [2, 2, 0]
    assert store.prune(after + 2 * TTL, 9) == 0
    assert rows(database) == 1


def test_the_newest_request_s_time_is_written_once_a_second_and_never_set_back(database: Database) -> None:
    store = SqlNonceStore(database)

    def noted() -> datetime:
        with database.read() as connection:
            time = connection.execute(select(nonces.c.expires_at).where(nonces.c.agent_id == "")).scalar_one()
            assert isinstance(time, datetime)
            return time

    for k, seconds in enumerate((0, 0.9, 1, -60, 1.5, 2)):
        assert store.remember("ann", f"nonce-{k}", START + timedelta(seconds=seconds), TTL)
        assert noted() == START + timedelta(seconds=(0, 0, 1, 1, 1, 2)[k])


def test_processes_with_the_same_nonces_admit_each_once(url: str, database: Database) -> None:
    names = [f"nonce-{k}" for k in range(60)]
    with own_processes().Pool(3) as pool:
        admitted = pool.starmap(remember_all, [(url, names[k * 20 :] + names[: k * 20]) for k in range(3)])
    assert sorted(nonce for some in admitted for nonce in some) == sorted(names)
    assert rows(database) == len(names)


def test_an_unreachable_store_refuses(tmp_path: Path) -> None:
    with open_database(f"postgresql://nobody@/none?host={tmp_path}") as database:
        with pytest.raises(AuthUnavailable) as refused:
            SqlNonceStore(database).remember("ann", "nonce", START, TTL)
        assert (status_of(refused.value), refused.value.code) == (503, "AUTH_UNAVAILABLE")
