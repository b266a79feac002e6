"""The restoring of a backup into empty places: the files, the agents, and the database last.

This module does not know how a backup is made.
"""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from backend.auth.nonces_sql import SqlNonceStore
from backend.cli.backup import databases
from backend.cli.backup.copies import AGENTS, AUDIT, PARTS, BackupError, Manifest, expect_whole
from backend.config import Settings
from backend.errors import ArtifactNotFound
from backend.jobs.models import FileState
from backend.jobs.schema import files as file_table
from backend.periodic import utc_now
from backend.storage.database import Database
from backend.storage.files import FileStore, open_files
from backend.storage.migrations import migrate, revisions
from orfeas_client.atomic_file import write_file


def check(folder: Path) -> str:
    """See that a backup is whole; return a sentence about it. Raises BackupError, OSError."""
    manifest = _whole(folder)
    database = f"a {manifest.database} database" if manifest.database else "no database"
    return (
        f"{folder} is whole: {len(manifest.files)} files and {database}, made {manifest.made_at} by {manifest.version}."
    )


def restore(settings: Settings, folder: Path) -> str:
    """Put a backup into the places that the settings name; return what was done in a sentence.

    Requests that were signed before now are refused afterwards: their nonces may be lost.
    Raises BackupError, ServiceError, OSError; run again, it goes on with what is left.
    """
    folder = folder.expanduser().absolute()
    manifest = _whole(folder)
    _expect_empty(settings, folder, manifest)
    # Before the folders in it: those that a path has above it would be made for others to read.
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    count = sum(_put_all(folder / part, open_files(settings.files_url, part)) for part in PARTS)
    if AGENTS in manifest.files:
        settings.agents_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(settings.agents_file, (folder / AGENTS).read_bytes(), private=True)
    _restore_audit(settings, folder)
    if manifest.database is None:
        return f"{count} pictures and meshes are restored, and the agents; restore the database by its server's means."
    databases.load(folder / databases.file_of(manifest.database), settings.database_url)
    migrate(settings.database_url)
    missing = _finish_database(settings)
    told = f" Of {missing} files that jobs name there was no copy: they had been deleted." if missing else ""
    return f"{count} pictures and meshes are restored, the agents and the database.{told} Start the service now."


def _whole(folder: Path) -> Manifest:
    manifest = Manifest.read(folder)
    expect_whole(folder, manifest)
    return manifest


def _expect_empty(settings: Settings, folder: Path, manifest: Manifest) -> None:
    """See that nothing is replaced. Raises BackupError."""
    agents = settings.agents_file
    if agents.exists() and AGENTS in manifest.files and agents.read_bytes() != (folder / AGENTS).read_bytes():
        raise BackupError(f"{agents} is there already: move it away, or name another with AGENTS_FILE.")
    if manifest.database is None:
        return
    kind = databases.kind_of(settings.database_url)
    if kind != manifest.database:
        raise BackupError(f"The backup is of a {manifest.database} database, DATABASE_URL names a {kind} one.")
    if manifest.revision not in revisions.every():
        raise BackupError(
            f"The backup's database has revision {manifest.revision}, which this release does not know: restore it "
            f"with release {manifest.version} or a later one."
        )
    if not databases.is_empty(settings.database_url):
        raise BackupError("The database that DATABASE_URL names has tables already: name an empty one.")


def _put_all(folder: Path, store: FileStore) -> int:
    """Store every file of a folder; one that is there already is the same, as no file changes under its name."""
    paths = sorted(folder.iterdir()) if folder.exists() else []
    for path in paths:
        if not _has(store, path):
            with path.open("rb") as stream:
                store.put(path.name, stream)
    return len(paths)


def _has(store: FileStore, path: Path) -> bool:
    try:
        return store.size(path.name) == path.stat().st_size
    except ArtifactNotFound:
        return False


def _restore_audit(settings: Settings, folder: Path) -> None:
    target = settings.audit_log.parent
    for path in sorted((folder / AUDIT).glob("*")):
        if not (target / path.name).exists():
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(target / path.name, path.read_bytes(), private=True)


def _finish_database(settings: Settings) -> int:
    """Keep requests from before the restore out; return how many files that jobs name are missing."""
    with closing(Database.open(settings.database_url)) as database:
        SqlNonceStore(database).refuse_before(utc_now(), timedelta(seconds=settings.timestamp_tolerance))
        with database.read() as connection:
            kept = select(file_table.c.name, file_table.c.kind).where(file_table.c.state == FileState.KEPT)
            rows = connection.execute(kept).all()
    images, artifacts = (open_files(settings.files_url, part) for part in PARTS)
    return sum(not _is_there(images if kind == "image" else artifacts, name) for name, kind in rows)


def _is_there(store: FileStore, name: str) -> bool:
    try:
        return store.size(name) >= 0
    except ArtifactNotFound:
        return False
