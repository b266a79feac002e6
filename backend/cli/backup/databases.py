"""A database as one file: SQLite by its own online copy, PostgreSQL by pg_dump and pg_restore.

Each is one moment of the database, whatever is written meanwhile, and nobody waits for it. This module does not know
which tables there are.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, make_url

from backend.cli.backup.copies import BackupError
from backend.storage.database import Database
from backend.storage.migrations import revisions

SQLITE, POSTGRESQL = "sqlite", "postgresql"
_FILES = {SQLITE: "database.sqlite3", POSTGRESQL: "database.pgdump"}


def kind_of(database_url: str) -> str:
    """Return `sqlite` or `postgresql`."""
    return SQLITE if make_url(database_url).get_backend_name() == SQLITE else POSTGRESQL


def file_of(kind: str) -> str:
    """Return what a database of this kind is called in a backup."""
    return _FILES[kind]


def revision_of(database_url: str) -> str | None:
    """Return the revision of a database's schema; None where it has no tables.

    Raises SchemaMismatch for a later release's, StoreUnavailable.
    """
    url = make_url(database_url)
    if url.get_backend_name() == SQLITE and not Path(str(url.database)).exists():
        return None
    with closing(Database.open(database_url)) as database, database.read() as connection:
        return revisions.read(connection).current


def is_empty(database_url: str) -> bool:
    """Return whether a database has none of our tables; makes none. Raises SchemaMismatch, StoreUnavailable."""
    url = make_url(database_url)
    if url.get_backend_name() == SQLITE and not Path(str(url.database)).exists():
        return True
    with closing(Database.open(database_url)) as database, database.read() as connection:
        return revisions.read(connection).empty


def dump(database_url: str, target: Path) -> None:
    """Copy a database into a new file. Raises BackupError."""
    target.touch(mode=0o600, exist_ok=False)
    url = make_url(database_url)
    if url.get_backend_name() == SQLITE:
        _copy_sqlite(Path(str(url.database)), target)
    else:
        _run(["pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file", str(target)], url)


def load(source: Path, database_url: str) -> None:
    """Put a copy into a database without tables, all of it or nothing. Raises BackupError."""
    url = make_url(database_url)
    if url.get_backend_name() == SQLITE:
        path = Path(str(url.database)).absolute()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f"{path.name}.restoring")
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        _copy_sqlite(source, temporary)
        for leftover in ("-wal", "-shm"):  # of a file without tables
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        temporary.replace(path)
    else:
        options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
        _run(["pg_restore", *options, str(source)], url)


def _copy_sqlite(source: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as opened,
            closing(sqlite3.connect(target)) as copy,
        ):
            # In one step: it reads one moment, and in WAL mode no writer waits for it.
            opened.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode = DELETE")
            (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise BackupError(
            f"The database {source} cannot be copied ({error}): `orfeas doctor` says what is wrong with it."
        ) from error
    if found != "ok":
        raise BackupError(f"The database {source} is damaged ({found}): `orfeas doctor` says what to do.")
    # SQLite has closed its own, and closing any other of this file before would have ended its locks.
    with target.open("rb") as stream:
        os.fsync(stream.fileno())


def _run(command: Sequence[str], url: URL) -> None:
    """Run one of PostgreSQL's programs on a database, its password out of sight of other users."""
    bare = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    try:
        done = subprocess.run(  # noqa: S603
            [*command, "--no-password", f"--dbname={bare}"],
            env={**os.environ, **password},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise BackupError(
            f"{command[0]} is not installed here: install PostgreSQL's client programs, of the server's version or a "
            "later one (Debian: apt install postgresql-client), or back the database up where it is and add "
            "--without-database."
        ) from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise BackupError(f"{command[0]} ended with {done.returncode}: {said[-1] if said else 'it said nothing'}")
