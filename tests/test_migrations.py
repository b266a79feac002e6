"""Migrations: every database becomes the one that the code knows, rows and all, or stays whole and is refused."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event, inspect, text

from backend.config import Settings
from backend.errors import SchemaMismatch, StoreUnavailable
from backend.jobs.notifier import NullNotifier
from backend.jobs.schema import metadata
from backend.jobs.worker_registry import WorkerRegistry
from backend.periodic import utc_now
from backend.resources import Resources
from backend.storage import database as database_module
from backend.storage import migrations
from backend.storage.database import Database
from backend.storage.migrations import exclusive, migrate, open_migrated, pending, revisions
from tests.support.first_release import ROWS, make_first_release, rows_of
from tests.support.own_process import printed
from tests.support.running import REPOSITORY
from tests.support.store_backends import BACKENDS, fresh_database, open_database

ALL = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0011", "0013", "0014", "0015")
RENAMED = {"jobs": {"input_path": "image_name"}, "workers": {"condition": "status"}}
ADDED: dict[str, dict[str, Any]] = {
    "jobs": dict.fromkeys(("label", "label_folded", "filename", "batch_index", "error_details", "webhook_url", "trace"))
    | {"candidates": 1},
    "workers": dict.fromkeys(("compiled", "stage_times", "process", "octree_resolution", "takes_views")),
}
GONE = {"workers": {"seconds_per_job"}}


@pytest.fixture(params=BACKENDS)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Provide the address of a database without tables, of each kind in turn."""
    return fresh_database(request.param, tmp_path)


@pytest.fixture
def old(fresh: str) -> str:
    """Provide the address of a database as the first release left it."""
    make_first_release(fresh)
    return fresh


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no process that is in the way."""
    monkeypatch.setattr(migrations, "_GRACE_SECONDS", 0.3)


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Give a connection to look with."""
    with open_database(url) as database, database.write() as connection:
        yield connection


def shape(connection: Connection) -> dict[str, Any]:
    """Every table with its columns, keys, checks and indexes, as the database tells them."""
    seen = inspect(connection)
    return {
        table: {
            "columns": [
                (
                    column["name"],
                    _plain(str(column["type"])),
                    column["nullable"],
                    getattr(column["type"], "collation", ""),
                )
                for column in seen.get_columns(table)
            ],
            "key": seen.get_pk_constraint(table)["constrained_columns"],
            "unique": [each["column_names"] for each in seen.get_unique_constraints(table)],
            "checks": sorted(
                (str(each["name"]), _plain(each["sqltext"])) for each in seen.get_check_constraints(table)
            ),
            "indexes": sorted((str(each["name"]), each["column_names"]) for each in seen.get_indexes(table)),
        }
        for table in seen.get_table_names()
        if table not in ("alembic_version", "schema_version")
    }


def _plain(sql: str) -> str:
    return re.sub(r"[\s\"]+", " ", sql)


def everything(url: str) -> dict[str, Any]:
    """Shape and rows of a database."""
    with connected(url) as connection:
        tables = inspect(connection).get_table_names()
        return {"shape": shape(connection), "rows": {table: rows_of(connection, table) for table in tables}}


def step_to(url: str, revision: str) -> None:
    """Bring a database to a revision that isn't the latest."""
    with connected(url) as connection:
        config = revisions._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def write(url: str, statement: str) -> None:
    with connected(url) as connection:
        connection.execute(text(statement))


# What they make


def test_a_fresh_database_is_made_at_the_latest_revision_and_then_left_alone(fresh: str) -> None:
    assert pending(fresh) == ALL
    assert migrate(fresh) == ALL
    before = everything(fresh)
    assert (pending(fresh), migrate(fresh)) == ((), ())
    assert everything(fresh) == before


def test_revisions_are_named_as_their_files_are() -> None:
    walked = ScriptDirectory.from_config(revisions._config()).walk_revisions()
    assert revisions.every() == tuple(reversed([each.revision for each in walked])) == ALL


def test_a_start_that_has_nothing_to_migrate_does_not_wait_for_alembic(fresh: str) -> None:
    migrate(fresh)
    program = (
        "import sys; from backend.storage.migrations import open_migrated; open_migrated(sys.argv[1]).close(); "
        "print('alembic' in sys.modules)"
    )
    assert printed(program, fresh) == "False\n"


def test_looking_for_what_is_pending_makes_no_file(tmp_path: Path) -> None:
    assert pending(f"sqlite:///{tmp_path / 'none.sqlite3'}") == ALL
    assert list(tmp_path.iterdir()) == []


def test_the_latest_revision_is_what_the_code_reads_and_writes(
    fresh: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    migrate(fresh)
    backend = "sqlite" if fresh.startswith("sqlite") else "postgresql"
    with connected(fresh) as connection:
        known = MigrationContext.configure(connection, opts={"include_name": _is_ours, "compare_type": True})
        assert compare_metadata(known, metadata) == []
        made = shape(connection)
    with connected(fresh_database(backend, tmp_path_factory.mktemp("other"))) as connection:
        metadata.create_all(connection)
        # Looked at in the very words of the checks, too, which alembic does not compare.
        assert made == shape(connection)
    assert {name for name, _ in made["jobs"]["checks"]} >= {"job_status", "leased_while_processing"}


def _is_ours(name: str | None, kind: str, _parents: object) -> bool:
    return (kind, name) != ("table", "schema_version")


def test_a_database_of_the_first_release_keeps_its_rows(old: str) -> None:
    assert pending(old) == ALL
    assert migrate(old) == ALL
    with connected(old) as connection:
        for table, rows in ROWS.items():
            names = RENAMED.get(table, {})
            expected = [
                {names.get(name, name): value for name, value in row.items() if name not in GONE.get(table, ())}
                | ADDED.get(table, {})
                for row in rows
            ]
            if table == "jobs":
                expected[0]["batch_index"] = 0
            # SQLite keeps truth as a number.
            assert rows_of(connection, table) == (
                [{"version": int(ALL[-1])}] if table == "schema_version" else expected
            )


def test_the_mesh_of_a_completed_job_becomes_the_first_of_its_files(old: str) -> None:
    write(old, """UPDATE jobs SET metadata = '{"file_size": 34}' WHERE artifact IS NOT NULL""")
    migrate(old)
    with connected(old) as connection:
        (file,) = rows_of(connection, "files")
    assert file == {
        "name": "mesh.glb",
        "job_id": f"{2:032x}",
        "kind": "mesh",
        "format": "glb",
        "candidate": 0,
        "bytes": 34,
        "state": "kept",
    }


def test_an_old_database_becomes_the_same_as_a_fresh_one(
    old: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    migrate(old)
    other = fresh_database(request.node.callspec.params["fresh"], tmp_path_factory.mktemp("other"))
    migrate(other)
    assert everything(old)["shape"] == everything(other)["shape"]


def test_the_baseline_is_the_schema_of_the_first_release(
    old: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = fresh_database(request.node.callspec.params["fresh"], tmp_path_factory.mktemp("other"))
    step_to(other, "0001")
    before = everything(old)
    assert everything(other)["shape"] == before["shape"]
    step_to(old, "0001")
    after = everything(old)
    assert after["rows"].pop("alembic_version") == [{"version_num": "0001"}]
    assert after == before


def test_a_table_that_the_first_release_did_not_get_to_is_added(old: str) -> None:
    write(old, "DROP TABLE workers")
    assert migrate(old) == ALL
    assert "workers" in everything(old)["shape"]


def test_somebody_else_s_tables_are_not_taken_for_ours(fresh: str) -> None:
    write(fresh, "CREATE TABLE jobs (title TEXT)")
    with pytest.raises((sa.exc.ProgrammingError, StoreUnavailable)):
        migrate(fresh)
    assert set(everything(fresh)["rows"]) == {"jobs"}


def test_a_service_starts_on_the_first_release_s_database(old: str, tmp_path: Path) -> None:
    resources = Resources.open(Settings(data_dir=tmp_path, database_url=old), NullNotifier())
    try:
        assert resources.store.get(f"{1:032x}", "ann").image_name == "1.png"
        assert resources.store.counts().queued == 1
    finally:
        resources.stop()


# Who is refused


def test_a_database_of_a_later_release_is_refused(old: str) -> None:
    migrate(old)
    write(old, "UPDATE alembic_version SET version_num = '9999'")
    write(old, "UPDATE schema_version SET version = 9999")
    before = everything(old)
    for act in (migrate, pending, open_migrated):
        with pytest.raises(SchemaMismatch, match="later release") as refused:
            act(old)
        assert refused.value.details == {"found": "9999", "wanted": ALL[-1]}
    assert everything(old) == before


def test_tables_of_another_version_are_refused(old: str) -> None:
    write(old, "UPDATE schema_version SET version = 99")
    with pytest.raises(SchemaMismatch) as refused:
        migrate(old)
    assert refused.value.details == {"found": 99, "wanted": ALL[-1]}


def test_the_first_release_is_kept_from_a_migrated_database(old: str) -> None:
    """It asks for a 1 in this table, and makes the tables that are missing when it finds one."""
    migrate(old)
    with connected(old) as connection:
        (row,) = rows_of(connection, "schema_version")
    assert row["version"] > 1


@contextmanager
def first_release_running(url: str) -> Iterator[None]:
    """Open what an idle process of the first release has open: one connection, without a name."""
    database = Database.open(url, "")
    try:
        with database.read() as connection:
            connection.execute(text("SELECT * FROM schema_version"))
        yield
    finally:
        database.close()


def expect_refusal(url: str, match: str) -> None:
    before = everything(url)
    for act in (migrate, open_migrated):
        with pytest.raises(SchemaMismatch, match=match) as refused:
            act(url)
        assert "orfeas migrate" in refused.value.message
        assert refused.value.details["pending"] == list(pending(url))
    assert everything(url) == before


def test_an_old_database_is_not_migrated_under_a_process_that_uses_it(old: str) -> None:
    with first_release_running(old):
        expect_refusal(old, "open")
    assert migrate(old) == ALL


def test_nor_under_one_of_a_release_with_migrations(fresh: str) -> None:
    step_to(fresh, "0001")
    with open_database(fresh) as running:
        running.connect()
        expect_refusal(fresh, "open")
    assert migrate(fresh) == ALL[1:]


def test_a_process_that_started_is_seen_until_it_ends(fresh: str) -> None:
    with closing(open_migrated(fresh)):
        with pytest.raises(exclusive.InUse):
            expect_alone(fresh)
        # It is in nobody's way.
        with closing(open_migrated(fresh)):
            assert migrate(fresh) == ()
    time.sleep(0.2)
    expect_alone(fresh)


def expect_alone(url: str) -> None:
    """Raise InUse while another process uses a database."""
    if url.startswith("sqlite"):
        with exclusive.alone_in_sqlite(url):
            return
    with closing(Database.open(url, "test")) as database, database.read() as connection:
        exclusive.expect_alone(connection, unnamed=True)


@pytest.fixture
def on_postgres(tmp_path: Path) -> str:
    """Provide the address of a PostgreSQL database as the first release left it."""
    url = fresh_database("postgresql", tmp_path)
    make_first_release(url)
    return url


def test_a_worker_that_the_server_lost_sight_of_counts_until_its_entry_ends(on_postgres: str) -> None:
    write(on_postgres, "UPDATE workers SET expires_at = 4000000000000000")
    expect_refusal(on_postgres, "worker w")
    write(on_postgres, "UPDATE workers SET expires_at = 1000000000000000")
    assert migrate(on_postgres) == ALL


def test_a_session_of_another_program_is_in_nobody_s_way(on_postgres: str) -> None:
    with psycopg.connect(on_postgres, application_name="psql") as session:
        session.execute("SELECT 1")
        session.commit()
        assert migrate(on_postgres) == ALL


# At once, and interrupted


@pytest.mark.parametrize("made", [False, True], ids=["fresh", "old"])
def test_of_many_that_start_at_once_one_migrates_and_all_go_on(fresh: str, made: bool) -> None:
    if made:
        make_first_release(fresh)
    # Each is in the others' way only for a moment, but six of them for six moments.
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(6) as pool:
        patch.setattr(migrations, "_GRACE_SECONDS", 20.0)
        ran = list(pool.map(lambda _: migrate(fresh), range(6)))
    assert sorted(ran) == [(), (), (), (), (), ALL]


def test_processes_that_start_at_once_all_start(old: str) -> None:
    program = (
        "import sys\n"
        "from backend.storage.migrations import open_migrated\n"
        "database = open_migrated(sys.argv[1])\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
        "database.close()\n"
    )
    command_line = [sys.executable, "-c", program, old]
    started = [
        subprocess.Popen(command_line, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(3)
    ]
    try:
        assert [process.stdout.readline() for process in started if process.stdout] == ["up\n"] * 3
        assert pending(old) == ()
    finally:
        for process in started:
            process.communicate()
    assert [process.returncode for process in started] == [0, 0, 0]


class Interrupted(Exception):
    """The migration was stopped on purpose."""


def test_a_migration_that_fails_leaves_the_database_whole(old: str) -> None:
    before = everything(old)

    def fail(*given: Any) -> None:
        if str(given[2]).startswith("UPDATE schema_version"):
            raise Interrupted

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        with pytest.raises(Interrupted):
            migrate(old)
    finally:
        event.remove(Engine, "before_cursor_execute", fail)
    assert everything(old) == before
    assert migrate(old) == ALL


def test_a_process_that_is_killed_in_a_migration_leaves_the_database_whole(old: str) -> None:
    before = everything(old)
    program = (
        "import os, signal, sys\n"
        "from sqlalchemy import Engine, event\n"
        "from backend.storage.migrations import migrate\n"
        "def die(*given):\n"
        "    if str(given[2]).startswith('UPDATE schema_version'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "event.listen(Engine, 'before_cursor_execute', die)\n"
        "migrate(sys.argv[1])\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, old], cwd=REPOSITORY, check=False)  # noqa: S603
    assert ended.returncode == -signal.SIGKILL
    assert everything(old) == before
    assert migrate(old) == ALL


def test_whoever_finds_another_at_work_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself waits only for so long."""
    url = fresh_database("sqlite", tmp_path)
    make_first_release(url)
    monkeypatch.setattr(database_module, "_BUSY_MILLISECONDS", 20)
    working, done = threading.Event(), threading.Event()

    def work() -> None:
        with exclusive.alone_in_sqlite(url) as connection:
            working.set()
            time.sleep(0.5)
            revisions.upgrade(connection)
            done.set()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(work)
        assert working.wait(10)
        assert migrate(url) == ()
        assert done.is_set()
        other.result()


def test_a_server_that_is_away_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        migrate(f"postgresql://orfeas@/postgres?host={tmp_path}")


def test_a_migrated_worker_is_read(old: str) -> None:
    with closing(open_migrated(old)) as database:
        write(old, "UPDATE workers SET expires_at = 4000000000000000")
        (worker,) = WorkerRegistry(database, utc_now).alive()
    assert (worker.owner, worker.model, worker.memory_free) == ("w", "demo", 2**32)
