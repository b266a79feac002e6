"""A job's files as the API shows them, wherever a job is shown. The OpenAPI document is made from these.

This module does not know HTTP, or where files lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from backend.api.responses import SIGNED_URL, Answer, JobId, Links, Success
from backend.jobs.models import Job, JobFile
from backend.limits import FileKind


class FileItem(Answer):
    """One mesh file."""

    format: str
    url: str
    signed_url: str | None = Field(description=SIGNED_URL)
    bytes: int | None = Field(ge=0, description="Its size; null where an earlier version did not note it.")
    candidate: int = Field(ge=0, description="Which of `metadata.candidates` it is of, from 0, the best one.")


class FileFields(Answer):
    """Where all that was made for a job is."""

    files: tuple[FileItem, ...] = Field(
        description="Its mesh in each format, the one of download_url first; with keep=all, other candidates' after it."
    )
    preview_url: str | None = Field(description="Its mesh from the front, three quarters, the side and the back.")
    thumbnail_url: str | None = Field(description="The same from three quarters, 256 pixels a side.")
    turntable_url: str | None = Field(
        description="The same as it turns: where that was asked for, some seconds after the job is completed."
    )
    contact_sheet_url: str | None = Field(
        description="All candidates side by side, the best one first; null where there was one."
    )
    image_url: str | None = Field(description="The picture that it was made of.")
    cutout_url: str | None = Field(description="What of the picture the model saw.")


class FilesAnswer(FileFields, Success):
    """The files of a job, after a change to them."""

    job_id: JobId
    status_url: str
    download_url: str | None
    signed_url: str | None = Field(description=SIGNED_URL)


def file_values(job: Job, files: Sequence[JobFile], links: Links) -> dict[str, Any]:
    """Return the values of FileFields, `download_url` and `signed_url`; files : as FileTable.of gives them."""
    stored = [file for file in files if file.kind == "mesh"]
    meshes = tuple(_item(file, links) for file in stored)
    # The job's own stands first; where that is gone, no other takes its place.
    own = meshes[0] if stored and stored[0].name == job.artifact else None
    return {
        "download_url": own.url if own else None,
        "signed_url": own.signed_url if own else None,
        "files": meshes,
        "preview_url": _url(files, "preview", links),
        "thumbnail_url": _url(files, "thumbnail", links),
        "turntable_url": _url(files, "turntable", links),
        "contact_sheet_url": _url(files, "contact_sheet", links),
        "image_url": _url(files, "image", links),
        "cutout_url": _url(files, "cutout", links),
    }


def answer_files(job: Job, files: Sequence[JobFile], links: Links) -> FilesAnswer:
    """Return a job's files as an answer of its own."""
    return FilesAnswer(job_id=job.id, status_url=links.status(job.id), **file_values(job, files, links))


def _item(file: JobFile, links: Links) -> FileItem:
    return FileItem(
        format=file.format,
        url=links.download(file.name),
        signed_url=links.signed(file.name),
        bytes=file.bytes,
        candidate=file.candidate,
    )


def _url(files: Sequence[JobFile], kind: FileKind, links: Links) -> str | None:
    return next((links.download(file.name) for file in files if file.kind == kind), None)
