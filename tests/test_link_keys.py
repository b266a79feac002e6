"""The keys of links: made once by however many ask, shared, and rotated with one generation left."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.auth.link_keys import SqlLinkKeys
from backend.jobs.schema import link_keys
from backend.storage.database import Database
from tests.support.store_backends import BACKENDS, START, ManualClock, empty_database, open_database


class Seconds:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request.param, tmp_path)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with open_database(url) as found:
        yield found


def generations(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.execute(select(link_keys.c.generation).order_by(link_keys.c.generation)).scalars())


def test_the_first_key_is_made_once_by_however_many_ask(url: str, database: Database) -> None:
    def ask(_: int) -> str:
        with open_database(url) as own:
            return SqlLinkKeys(own, ManualClock()).newest()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(ask, range(16)))
    assert len(found) == 1
    assert len(found.pop()) == 64
    assert generations(database) == [1]


def test_no_key_is_made_by_looking(database: Database) -> None:
    assert SqlLinkKeys(database, ManualClock()).accepted() == ()
    assert generations(database) == []


def test_two_generations_are_accepted_and_the_newer_signs(database: Database) -> None:
    clock = ManualClock()
    keys = SqlLinkKeys(database, clock)
    assert keys.rotate() is None
    made = [keys.newest()]
    for _ in range(3):
        clock.advance(60)
        before = keys.rotate()
        assert before is not None
        made.append(keys.newest())
        assert keys.accepted() == (made[-1], made[-2])
    assert len(set(made)) == 4
    assert before == START + timedelta(seconds=120)
    assert generations(database) == [3, 4]


def test_another_process_s_rotation_is_seen_within_a_second(database: Database) -> None:
    seconds = Seconds()
    here, elsewhere = SqlLinkKeys(database, ManualClock(), monotonic=seconds), SqlLinkKeys(database, ManualClock())
    old = here.newest()
    elsewhere.rotate()
    assert here.newest() == old
    assert here.accepted() == (elsewhere.newest(), old)
    seconds.now += 1
    assert here.newest() == elsewhere.newest()


def test_rotations_at_once_each_make_a_generation(url: str, database: Database) -> None:
    SqlLinkKeys(database, ManualClock()).newest()

    def rotate(_: int) -> None:
        with open_database(url) as own:
            SqlLinkKeys(own, ManualClock()).rotate()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(rotate, range(4)))
    assert generations(database) == [4, 5]
