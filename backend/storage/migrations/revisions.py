"""The revisions that this code knows, which of them a database has, and the running of the others.

This module does not know who else uses the database.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from backend.errors import SchemaMismatch

# What the releases before the first migration called their schema, and what keeps them from any later one.
_FIRST_RELEASE = 1
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

    Raises SchemaMismatch when a later release, or something else, made its tables.
    """
    heads = MigrationContext.configure(connection).get_current_heads()
    current = heads[0] if heads else None
    if current is not None and current not in every():
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
    config = _config()
    config.attributes["connection"] = connection
    with _one_upgrade:
        command.upgrade(config, "head")


def head() -> str:
    """Return the latest revision."""
    return every()[-1]


@cache
def every() -> tuple[str, ...]:
    """Return all revisions, oldest first."""
    script = ScriptDirectory.from_config(_config())
    return tuple(reversed([each.revision for each in script.walk_revisions()]))


def _expect_first_release(connection: Connection) -> None:
    found = connection.execute(text("SELECT version FROM schema_version")).scalar()
    if found not in (None, _FIRST_RELEASE):
        raise SchemaMismatch(details={"found": found, "wanted": head()})


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
