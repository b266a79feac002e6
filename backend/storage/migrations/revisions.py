"""The revisions that this code knows, which of them a database has, and the running of the others.

A revision that only adds what the code before it never sees says so, `SIDE_BY_SIDE = True`: it is run while that code
uses the database, which goes on with it and may start on it. The database keeps, in `schema_version`, the number of the
oldest revision whose code may use it, so that code knows this of revisions that it does not know.

alembic is imported only to run some: a start that finds its database at the latest revision need not wait for it. This
module does not know who else uses the database.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from backend.errors import SchemaMismatch

if TYPE_CHECKING:
    from alembic.config import Config

# What the releases before the first migration called their schema, and what keeps them from any later one.
_FIRST_RELEASE = 1
_OLDEST = text("SELECT version FROM schema_version")
# alembic gives revisions their connection through names of its module.
_one_upgrade = threading.Lock()


@dataclass(frozen=True)
class Revisions:
    """Where a database stands; `empty` : it has none of our tables; `current` : None before the first revision."""

    current: str | None
    empty: bool
    pending: tuple[str, ...]


def read(connection: Connection) -> Revisions:
    """Return the revision that a database has and those that it lacks, oldest first.

    One that a later release made, and that may be used by this code beside that release's, lacks none.
    Raises SchemaMismatch when any other later release, or something else, made its tables.
    """
    current = _current(connection)
    if current is not None and current not in every():
        if _may_be_used(connection):
            return Revisions(current, False, ())
        raise SchemaMismatch(
            f"The database has revision {current}, which a later release of ORFEAS made; this one knows {head()}.",
            details={"found": current, "wanted": head()},
        )
    if current is not None:
        return Revisions(current, False, every()[every().index(current) + 1 :])
    empty = not inspect(connection).has_table("schema_version")
    if not empty:
        _expect_first_release(connection)
    return Revisions(None, empty, every())


def upgrade(connection: Connection) -> None:
    """Run every revision that the database lacks, in the transaction that the connection is in."""
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    with _one_upgrade:
        command.upgrade(config, "head")
    connection.execute(text("UPDATE schema_version SET version = :oldest"), {"oldest": _oldest_reader()})


def all_side_by_side(pending: Collection[str]) -> bool:
    """Whether revisions may be run while the code before them uses the database."""
    return set(pending) <= _side_by_side()


def head() -> str:
    """Return the latest revision."""
    return every()[-1]


@cache
def every() -> tuple[str, ...]:
    """Return all revisions, oldest first, as the names of their files say: r0001_baseline.py has 0001."""
    return tuple(sorted(path.name[1:5] for path in (Path(__file__).parent / "versions").glob("r*.py")))


@cache
def _side_by_side() -> frozenset[str]:
    names = [path.stem for path in (Path(__file__).parent / "versions").glob("r*.py")]
    modules = {name[1:5]: import_module(f"backend.storage.migrations.versions.{name}") for name in names}
    return frozenset(name for name, module in modules.items() if getattr(module, "SIDE_BY_SIDE", False))


def _oldest_reader() -> int:
    """Return the number of the oldest revision whose code may use the latest schema."""
    return max(int(name) for name in every() if name not in _side_by_side())


def _current(connection: Connection) -> str | None:
    # alembic's own table, which has one row as long as there are no branches.
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _may_be_used(connection: Connection) -> bool:
    """Whether a schema of revisions that this code does not know may be used by it."""
    if not inspect(connection).has_table("schema_version"):
        return False
    oldest = connection.execute(_OLDEST).scalar()
    return oldest is not None and oldest <= int(head())


def _expect_first_release(connection: Connection) -> None:
    found = connection.execute(_OLDEST).scalar()
    if found not in (None, _FIRST_RELEASE):
        raise SchemaMismatch(details={"found": found, "wanted": head()})


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
