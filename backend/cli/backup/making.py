"""The making of a backup: in a folder beside its own until all is in it.

This module does not know how a backup is restored.
"""

from __future__ import annotations

import secrets
import shutil
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from backend import __version__
from backend.cli.backup import databases
from backend.cli.backup.copies import AGENTS, AUDIT, PARTS, BackupError, Entry, Manifest, copy_in, entry_of
from backend.config import Settings
from backend.errors import ArtifactNotFound
from backend.periodic import utc_now
from backend.storage.files import is_temporary, open_files
from orfeas_client.atomic_file import flush_folder

_AHEAD = timedelta(days=1)


def make(settings: Settings, folder: Path, *, with_database: bool = True) -> str:
    """Copy everything into a new folder; return what was done in a sentence.

    Raises BackupError, ServiceError, OSError; then nothing is left.
    """
    folder = folder.expanduser().absolute()
    if folder.exists():
        raise BackupError(f"{folder} is there already: name a folder that is not.")
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")
    temporary.mkdir(mode=0o700)
    try:
        manifest = _fill(settings, temporary, with_database)
        manifest.write(temporary)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(folder.parent)
    size = sum(entry.bytes for entry in manifest.files.values())
    left_out = "" if with_database else " The database is not among them."
    return f"{folder} has {len(manifest.files)} files, {size / 1e6:.1f} MB.{left_out}"


def _fill(settings: Settings, folder: Path, with_database: bool) -> Manifest:
    made_at = utc_now().isoformat()
    files: dict[str, Entry] = {}
    kind = revision = None
    if with_database:
        kind, revision = databases.kind_of(settings.database_url), databases.revision_of(settings.database_url)
        if revision is None:
            raise BackupError("The database has no tables yet: see that DATABASE_URL is the service's own.")
        name = databases.file_of(kind)
        databases.dump(settings.database_url, folder / name)
        files[name] = entry_of(folder / name)
    files |= _stored(settings, folder)
    if settings.agents_file.exists():
        files[AGENTS] = _copied(settings.agents_file, folder / AGENTS)
    for log in sorted(settings.audit_log.parent.glob(f"{settings.audit_log.name}*")):
        if log.is_file() and not log.name.endswith(".lock"):
            files[f"{AUDIT}/{log.name}"] = _copied(log, folder / AUDIT / log.name)
    return Manifest(__version__, made_at, kind, revision, files)


def _stored(settings: Settings, folder: Path) -> dict[str, Entry]:
    """Copy pictures and meshes, of which any may come or go meanwhile."""
    copied = {}
    for part in PARTS:
        store = open_files(settings.files_url, part)
        for name in store.older_than(utc_now() + _AHEAD):
            if is_temporary(name):
                continue
            try:
                with closing(store.open(name)) as stream:
                    copied[f"{part}/{name}"] = copy_in(stream, folder / part / name)
            except ArtifactNotFound:  # its job was deleted, or its time was over
                continue
    return copied


def _copied(source: Path, target: Path) -> Entry:
    with source.open("rb") as stream:
        return copy_in(stream, target)
