"""Opening a database, and what comes out when it can't answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, insert, make_url, select
from sqlalchemy.exc import DBAPIError, StatementError

from backend.api.statuses import status_of
from backend.auth.nonces_sql import SqlNonceStore
from backend.errors import AuthUnavailable, DatabaseDamaged, DatabaseUrlError, StorageFull, StoreUnavailable
from backend.jobs.ids import JobIds, is_job_id
from backend.jobs.schema import nonces
from backend.jobs.store import JobStore
from backend.storage.database import Database, sqlite_kind
from backend.storage.migrations import migrate
from tests.support.store_backends import (
    BACKENDS,
    START,
    ManualClock,
    empty_database,
    open_database,
    postgres_cluster,
    submit,
)

FULL = {
    "sqlite": "INSERT INTO nonces VALUES ('ann', randomblob(1000000), 1)",
    "postgresql": "DO $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$",
}


@pytest.mark.parametrize("url", ["", "jobs.sqlite3", "sqlite://", "sqlite:///:memory:", "mysql://a@b/c", "redis://h/0"])
def test_an_address_that_cannot_serve_is_refused(url: str) -> None:
    with pytest.raises(DatabaseUrlError):
        Database.open(url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_reached_by_any_of_its_names(scheme: str, tmp_path: Path) -> None:
    url = empty_database("postgresql", tmp_path).replace("postgresql", scheme, 1)
    with open_database(url) as database, database.read() as connection:
        assert connection.execute(select(1)).scalar_one() == 1
        assert not database.is_sqlite


def test_sqlite_is_opened_for_many_processes_and_for_power_cuts(tmp_path: Path) -> None:
    with open_database(f"sqlite:///{tmp_path / 'new' / 'folder' / 'jobs.sqlite3'}") as database:
        assert database.is_sqlite
        with database.read() as connection:
            settings = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_a_sqlite_file_and_its_folder_are_their_owners_alone_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "new" / "jobs.sqlite3"
    modes: list[int] = []
    with open_database(f"sqlite:///{path}") as database, database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE one (id INTEGER)")
        modes += [each.stat().st_mode & 0o777 for each in (path.parent, path, *path.parent.glob("jobs.sqlite3-*"))]
    assert modes == [0o700, 0o600, 0o600, 0o600]


def test_a_file_that_an_earlier_release_made_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    path.touch(mode=0o644)
    migrate(f"sqlite:///{path}")
    assert path.stat().st_mode & 0o777 == 0o600


def damage_header(path: Path) -> None:
    path.write_bytes(b"nonsense" * 1000)


def damage_page(path: Path) -> None:
    """Destroy a page far behind the schema, as a disk may."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 4096)
        file.write(b"\xaa" * 4096)


@pytest.mark.parametrize("damage", [damage_header, damage_page])
def test_a_damaged_file_is_told_with_what_to_do(damage: Callable[[Path], None], tmp_path: Path) -> None:
    url = empty_database("sqlite", tmp_path)
    with open_database(url):
        pass
    path = Path(str(make_url(url).database))
    damage(path)
    with pytest.raises(DatabaseDamaged) as caught:
        migrate(url)
    assert str(path) in caught.value.message
    assert "put a backup in its place" in caught.value.message
    assert caught.value.message.count("\n") == 0


def test_a_request_is_not_told_where_the_damaged_file_is(tmp_path: Path) -> None:
    url = empty_database("sqlite", tmp_path)
    with open_database(url) as database:
        pass
    damage_header(Path(str(make_url(url).database)))
    with closing(Database.open(url)) as database, pytest.raises(StoreUnavailable) as caught, database.read():
        pass
    assert (caught.value.code, status_of(caught.value)) == ("STORE_UNAVAILABLE", 503)
    assert str(tmp_path) not in caught.value.message


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    def write_and_raise() -> None:
        with database.write() as connection:
            connection.execute(insert(nonces).values(agent_id="ann", nonce="n", expires_at=START))
            raise KeyError

    with pytest.raises(KeyError):
        write_and_raise()
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(nonces)).scalar_one() == 0


def test_naive_times_are_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="offset-naive"), database.write() as connection:
        connection.execute(insert(nonces).values(agent_id="a", nonce="n", expires_at=START.replace(tzinfo=None)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_disk_is_named_and_recovered_from(backend: str, tmp_path: Path) -> None:
    with open_database(empty_database(backend, tmp_path)) as database:

        def fill() -> None:
            with database.write() as connection:
                if backend == "sqlite":
                    connection.exec_driver_sql("PRAGMA max_page_count = 1")
                connection.exec_driver_sql(FULL[backend])

        with pytest.raises(StorageFull):
            fill()
        if backend == "sqlite":
            with database.read() as connection:
                connection.exec_driver_sql("PRAGMA max_page_count = 100000")
        assert len(submit(JobStore(database, ManualClock()), "ann", 3)) == 3


def test_a_fault_of_ours_is_not_called_unavailable(database: Database) -> None:
    with pytest.raises(DBAPIError), database.write() as connection:
        connection.execute(insert(nonces).values(agent_id="ann", nonce=None, expires_at=START))


def test_a_restarted_server_is_found_again_with_its_jobs(tmp_path: Path) -> None:
    with open_database(empty_database("postgresql", tmp_path)) as database:
        store = JobStore(database, ManualClock())
        (job_id,) = submit(store, "ann")
        cluster = postgres_cluster()
        cluster.stop()
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailable) as refused:
                    store.get(job_id, "ann")
                assert (status_of(refused.value), refused.value.code) == (503, "STORE_UNAVAILABLE")
            with pytest.raises(AuthUnavailable):
                SqlNonceStore(database).remember("ann", "n", START, START - START)
        finally:
            cluster.start()
        assert store.get(job_id, "ann").id == job_id
        assert [job.id for job in store.lease("worker", 1, 60)] == [job_id]


def test_ids_grow_while_the_clock_stands_still_or_steps_back() -> None:
    clock = ManualClock()
    new_id = JobIds(clock, random_bits=lambda _: 0)
    ids = [new_id() for _ in range(5000)]
    clock.advance(-3600)
    ids += [new_id() for _ in range(5)]
    clock.advance(7200)
    ids.append(new_id())
    assert ids == sorted(set(ids))
    assert all(map(is_job_id, ids))
    assert ids[0] == f"{int(START.timestamp() * 1000):012x}70008" + "0" * 15


def test_ids_hold_62_random_bits() -> None:
    new_id = JobIds(ManualClock())
    assert len({new_id()[16:] for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, sqlite3.SQLITE_BUSY),
        (sqlite3.SQLITE_BUSY_RECOVERY, sqlite3.SQLITE_BUSY),
        (sqlite3.SQLITE_CORRUPT_INDEX, sqlite3.SQLITE_CORRUPT),
    ],
)
def test_a_longer_code_of_sqlite_is_of_its_kind(code: int, kind: int) -> None:
    failure = sqlite3.OperationalError("database is locked")
    failure.sqlite_errorcode = code
    assert sqlite_kind(DBAPIError("", None, failure)) == kind


def test_a_failure_of_another_database_has_no_kind_of_sqlite_s() -> None:
    assert sqlite_kind(DBAPIError("", None, Exception())) == 0
