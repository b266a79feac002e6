"""Two versions on one database: a later one migrates it while this one runs, and both make each other's meshes.

The later one is this code with one more revision, which adds what later releases may add. What a database that is not
to be shared does is test_migrations' affair.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, inspect, text

from backend.errors import SchemaMismatch
from backend.storage.migrations import migrate, open_latest, open_migrated, pending, revisions
from tests.support.faults.harness import FAKE_SERVICE
from tests.support.hostile_pictures import good_png
from tests.support.running import REPOSITORY, RunningService
from tests.support.store_backends import BACKENDS, fresh_database, open_database

LATER = "9000"
_REVISION = """\
import sqlalchemy as sa
from alembic import op

revision = "{later}"
down_revision = "{head}"
SIDE_BY_SIDE = True


def upgrade() -> None:
    op.add_column("jobs", sa.Column("mood", sa.String(20)))
    op.add_column("workers", sa.Column("place", sa.String(20), nullable=False, server_default="here"))
    op.create_table("moods", sa.Column("id", sa.Integer, primary_key=True))
"""


@pytest.fixture(params=BACKENDS)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Provide the address of a database without tables, of each kind in turn."""
    return fresh_database(request.param, tmp_path)


def write(url: str, statement: str) -> None:
    with open_database(url) as database, database.write() as connection:
        connection.execute(text(statement))


def found(url: str, question: str) -> Any:
    with open_database(url) as database, database.read() as connection:
        return connection.execute(text(question)).scalar()


def step_to(url: str, revision: str) -> None:
    with open_database(url) as database, database.write() as connection:
        config = revisions._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_a_later_schema_that_may_be_shared_is_used(fresh: str) -> None:
    migrate(fresh)
    write(fresh, "UPDATE alembic_version SET version_num = '9000'")
    assert pending(fresh) == migrate(fresh) == ()
    for opened in (open_migrated, open_latest):
        opened(fresh).close()
    write(fresh, "UPDATE schema_version SET version = 9000")
    with pytest.raises(SchemaMismatch, match="later release"):
        pending(fresh)


def test_a_database_says_which_code_may_use_it(fresh: str) -> None:
    migrate(fresh)
    additions = revisions._side_by_side()
    last = max(name for name in revisions.every() if name not in additions)
    assert found(fresh, "SELECT version FROM schema_version") == int(last)


def test_what_only_adds_is_run_while_another_process_uses_the_database(
    fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = revisions.every()[-2]
    step_to(fresh, before)
    monkeypatch.setattr(revisions, "_side_by_side", lambda: frozenset([revisions.head()]))
    with open_database(fresh) as running:
        running.connect()
        with closing(open_migrated(fresh)):
            assert pending(fresh) == ()
    assert found(fresh, "SELECT version FROM schema_version") == int(before)


def shape(connection: Connection) -> dict[tuple[str, ...], object]:
    """Return what code that is older relies on: columns as they are, and what rows must fulfil."""
    seen = inspect(connection)
    parts: dict[tuple[str, ...], object] = {}
    for table in seen.get_table_names():
        parts[(table,)] = (
            seen.get_pk_constraint(table)["constrained_columns"],
            sorted(map(str, (each["column_names"] for each in seen.get_unique_constraints(table)))),
            sorted(str(each["sqltext"]) for each in seen.get_check_constraints(table)),
        )
        for column in seen.get_columns(table):
            parts[table, column["name"]] = (str(column["type"]), column["nullable"])
    return parts


def broken(before: dict[tuple[str, ...], object], connection: Connection) -> list[str]:
    """Return what code from before a revision would stumble over after it."""
    now, seen = shape(connection), inspect(connection)
    lost = [f"{'.'.join(name)} was changed" for name, part in before.items() if now.get(name) != part]
    wanted = [
        f"{table}.{column['name']} is wanted"
        for table in seen.get_table_names()
        if (table,) in before
        for column in seen.get_columns(table)
        if (table, column["name"]) not in before and not column["nullable"] and column["default"] is None
    ]
    return lost + wanted


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """Provide a connection to a database of this version."""
    url = fresh_database("sqlite", tmp_path)
    migrate(url)
    with open_database(url) as database, database.write() as opened:
        yield opened


def test_revisions_that_say_that_they_only_add_do_so(tmp_path: Path) -> None:
    url = fresh_database("sqlite", tmp_path)
    for name in revisions.every():
        with open_database(url) as database, database.read() as connection:
            before = shape(connection)
        step_to(url, name)
        with open_database(url) as database, database.read() as connection:
            complaints = broken(before, connection)
        assert name not in revisions._side_by_side() or complaints == [], name


def test_what_older_code_stumbles_over_is_seen(connection: Connection) -> None:
    operations = Operations(MigrationContext.configure(connection))
    before = shape(connection)
    operations.add_column("jobs", sa.Column("mood", sa.String(20)))
    operations.add_column("workers", sa.Column("place", sa.String(20), nullable=False, server_default="here"))
    assert broken(before, connection) == []
    operations.alter_column("jobs", "label", new_column_name="name")
    assert "jobs.label was changed" in broken(before, connection)


class Release(RunningService):
    """A service of some version, whose model is a fake."""

    command = FAKE_SERVICE


def later_release(folder: Path) -> Path:
    """Make a checkout of this code with one more revision."""
    folder.mkdir()
    for path in REPOSITORY.iterdir():
        if path.name != "backend":
            (folder / path.name).symlink_to(path)
    shutil.copytree(REPOSITORY / "backend", folder / "backend", ignore=shutil.ignore_patterns("__pycache__"))
    revision = folder / "backend" / "storage" / "migrations" / "versions" / f"r{LATER}_later.py"
    revision.write_text(_REVISION.format(later=LATER, head=revisions.head()))
    return folder


@pytest.mark.slow
def test_two_versions_make_each_other_s_meshes(tmp_path: Path) -> None:
    old = Release(tmp_path / "old")
    new = Release(tmp_path / "new", ORFEAS_DATA_DIR=old.data, WORKER_ENABLED="false")
    new.code = later_release(tmp_path / "later")
    try:
        old.start()
        new.start()
        with old.database() as database, database.read() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == LATER
        make_one_of(new, old)
        new.stop()
        new.settings["WORKER_ENABLED"], old.settings["WORKER_ENABLED"] = "true", "false"
        new.start()
        old.stop()
        old.start()
        make_one_of(old, old)
        assert "SCHEMA_MISMATCH" not in old.log + new.log
    finally:
        old.kill()
        new.kill()


def make_one_of(asked: Release, known: Release) -> None:
    """Ask one version, which has no worker, for a mesh; the other version's worker makes it."""
    job = asked.generate(good_png(), async_="true", color="none", agent=known.agent).json()
    found = asked.wait(job["job_id"], known.agent)
    assert found["status"] == "completed", found
    assert asked.call("GET", found["download_url"], agent=known.agent).status == 200
