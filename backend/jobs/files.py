"""The files of jobs: which there are, who may have them, and how they go.

A job's files are entered with the statement that completes it, under its fence. One that comes later, a turntable or
one more format, is entered while the job's row is locked, so that it can't slip in behind a deletion. This module does
not know where files lie or what is in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, insert, select, union_all, update

from backend.errors import ArtifactNotFound, FilesExpired, JobNotFound, JobUnfinished
from backend.jobs.changes import NotingDatabase
from backend.jobs.models import FileState, Job, JobFile, NewFile, Status
from backend.jobs.schema import files, jobs, tombstones
from backend.limits import FILE_KINDS, FORMATS
from backend.storage.database import Database

ZIP = ".zip"
"""What follows a batch's id in the name of all its files together."""


class FileTable:
    """The table of files; every method may raise StoreUnavailable, and those that write StorageFull."""

    def __init__(self, database: Database | NotingDatabase) -> None:
        """Open the table in a database."""
        self._database = database

    def of(self, job: Job) -> tuple[JobFile, ...]:
        """Return the files that a job has now, meshes first, the one of its download_url foremost."""
        return self.of_all([job])[job.id]

    def of_all(self, found: Sequence[Job]) -> Mapping[str, tuple[JobFile, ...]]:
        """Return the files of each of several jobs, by job id."""
        query = select(*files.c).where(
            files.c.job_id.in_([job.id for job in found if job.status.finished]), files.c.state == FileState.KEPT
        )
        with self._database.read() as connection:
            rows = [_file_of(row) for row in connection.execute(query)]
        kept: dict[str, list[JobFile]] = {job.id: [] for job in found}
        for row in rows:
            kept[row.job_id].append(row)
        return {job.id: tuple(sorted(kept[job.id], key=lambda file: _order(file, job))) for job in found}

    def find(self, name: str, agent_id: str) -> JobFile:
        """Return an agent's file by its name. Raises FilesExpired, and ArtifactNotFound for other agents' files, too.

        What is kept only to encode more formats from is nobody's to fetch.
        """
        query = (
            select(*files.c)
            .join(jobs, jobs.c.id == files.c.job_id)
            .where(files.c.name == name, files.c.kind != "shape", jobs.c.agent_id == agent_id)
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise ArtifactNotFound
        file = _file_of(row)
        if file.state is not FileState.KEPT:
            raise FilesExpired(details={"job_id": file.job_id})
        return file

    def owner_of(self, name: str) -> str | None:
        """Return the agent whose file this is, or was until it expired; None where no agent has one of this name.

        name : a file's, or a batch's id with `.zip`. Takes one statement, whatever the name.
        """
        batch_id = name.removesuffix(ZIP)
        owned = (files.c.job_id == jobs.c.id) & (files.c.name == name) & (files.c.kind != "shape")
        owners = union_all(
            select(jobs.c.agent_id).where(owned),
            select(jobs.c.agent_id).where(jobs.c.batch_id == batch_id),
            select(tombstones.c.agent_id).where(tombstones.c.name.in_((name, batch_id))),
        )
        with self._database.read() as connection:
            found: str | None = connection.execute(owners).scalars().first()
        return found

    def add(self, job: Job, new: NewFile) -> bool:
        """Give a completed job one more file; return False when it has one of this kind and format already.

        Raises FilesExpired when the job or its files are gone.
        """
        with self._database.write() as connection:
            if not _lock(connection, job) or _is_deleted(connection, job.id):
                raise FilesExpired(details={"job_id": job.id})
            alike = (
                (files.c.job_id == job.id)
                & (files.c.kind == new.kind)
                & (files.c.format == new.format)
                & (files.c.candidate == new.candidate)
            )
            if connection.execute(select(exists().where(alike))).scalar_one():
                return False
            enter(connection, job.id, [new])
        return True

    def begin_deletion(self, job: Job) -> tuple[JobFile, ...]:
        """Let nobody have a finished job's files any more; return those that are still to be removed from storage.

        Raises JobUnfinished, and JobNotFound when the job is gone.
        """
        if not job.status.finished:
            raise JobUnfinished(details={"job_id": job.id})
        deletion = (
            update(files)
            .where(files.c.job_id == job.id, files.c.state != FileState.DELETED)
            .values(state=FileState.DELETING)
            .returning(*files.c)
        )
        with self._database.write() as connection:
            if not _lock(connection, job):
                raise JobNotFound
            return tuple(_file_of(row) for row in connection.execute(deletion))

    def deleting(self, limit: int) -> tuple[JobFile, ...]:
        """Return up to limit files whose deletion has begun and not ended."""
        query = select(*files.c).where(files.c.state == FileState.DELETING).limit(limit)
        with self._database.read() as connection:
            return tuple(_file_of(row) for row in connection.execute(query))

    def end_deletion(self, gone: Sequence[JobFile]) -> None:
        """Note that files whose deletion had begun are removed from storage."""
        if gone:
            names = [file.name for file in gone]
            with self._database.write() as connection:
                connection.execute(update(files).where(files.c.name.in_(names)).values(state=FileState.DELETED))


def enter(connection: Connection, job_id: str, new: Sequence[NewFile]) -> None:
    """Enter files as a job's."""
    rows = [
        {
            "name": file.name,
            "job_id": job_id,
            "kind": file.kind,
            "format": file.format,
            "candidate": file.candidate,
            "bytes": file.bytes,
            "state": FileState.KEPT,
        }
        for file in new
    ]
    connection.execute(insert(files), rows)


def forget(connection: Connection, removed: Iterable[Job]) -> dict[str, str]:
    """Remove the rows of all files of jobs; return the agents by the names that these knew."""
    agents = {job.id: job.agent_id for job in removed}
    removal = delete(files).where(files.c.job_id.in_(list(agents)))
    rows = connection.execute(removal.returning(files.c.name, files.c.job_id, files.c.kind))
    return {row.name: agents[row.job_id] for row in rows if row.kind != "shape"}


def first_mesh(new: Sequence[NewFile]) -> str:
    """Return the name of the mesh that was asked for first. Raises ValueError when there is no mesh."""
    name = next((file.name for file in new if file.kind == "mesh"), None)
    if name is None:
        raise ValueError("a completed job has a mesh")
    return name


def _file_of(row: Row[Any]) -> JobFile:
    return JobFile(**row._mapping)


def _order(file: JobFile, job: Job) -> tuple[bool, int, int, int]:
    format = FORMATS.index(file.format) if file.format in FORMATS else len(FORMATS)
    return file.name != job.artifact, FILE_KINDS.index(file.kind), file.candidate, format


def _lock(connection: Connection, job: Job) -> bool:
    """Keep a job's row from all other writers until the transaction ends; return whether it is there, and finished."""
    finished = [status for status in Status if status.finished]
    query = select(jobs.c.id).where(jobs.c.id == job.id, jobs.c.status.in_(finished)).with_for_update()
    return connection.execute(query).one_or_none() is not None


def _is_deleted(connection: Connection, job_id: str) -> bool:
    deleted = (files.c.job_id == job_id) & (files.c.state != FileState.KEPT)
    return bool(connection.execute(select(exists().where(deleted))).scalar_one())
