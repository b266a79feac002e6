"""A job as the API shows it: in an answer of its own, in a batch, in a list. The OpenAPI document is made from these.

This module does not know HTTP: not the status an answer is sent with, not where its addresses point.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from backend.api.file_answers import FileFields, file_values
from backend.api.responses import SIGNED_URL, Answer, JobId, JobState, Links, Success
from backend.errors import Cancelled, FilesExpired, RequestUnreadable, ServiceError, kinds_by_code
from backend.jobs.metadata import JobMetadata
from backend.jobs.models import Job, Status
from backend.jobs.outlook import Outlook
from backend.validation import GenerationRequest


class JobError(Answer):
    """Why a job failed, in the form of any other error."""

    error: str = Field(description="What went wrong, in a sentence.")
    code: str = Field(description="The same for programs: a name that does not change.")
    details: dict[str, Any] = Field(description="What a program may want to know besides.")


class JobItem(FileFields):
    """A job as it is now."""

    job_id: JobId
    batch_id: JobId | None = Field(description="The batch it came in with, if any.")
    index: int | None = Field(ge=0, description="Which of its batch's images it is for, from 0; null outside a batch.")
    filename: str | None = Field(description="What its image was called by whoever sent it.")
    label: str | None = Field(description="What its agent calls it.")
    status: JobState
    progress: int = Field(ge=0, le=100)
    current_step: str
    eta_seconds: float | None = Field(ge=0, description="Seconds until it is finished; null when unknown or finished.")
    queue_position: int | None = Field(ge=1, description="Its position among the waiting jobs; else null.")
    cancel_requested: bool = Field(description="Whether its agent asked for it to stop.")
    status_url: str
    download_url: str | None = Field(description="Where its mesh is, once it is completed.")
    signed_url: str | None = Field(description=SIGNED_URL)
    processing_time: float | None = Field(ge=0, description="Seconds from the start of its run to its end.")
    request: dict[str, Any] | None = Field(
        description="The form's fields as they were understood, by their names; null where another version wrote them."
    )
    metadata: JobMetadata | None = Field(description="What was really done.")
    error: JobError | None = Field(description="Why it failed.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(
        description="When it and its files are removed; null until it is finished, which its time runs from."
    )


class JobAnswer(JobItem, Success):
    """One job."""


class GeneratedAnswer(FileFields, Success):
    """A mesh that was made while the caller waited."""

    job_id: JobId
    status: Literal["completed"] = "completed"
    status_url: str
    download_url: str
    signed_url: str | None = Field(description=SIGNED_URL)
    processing_time: float = Field(ge=0, description="Seconds from the start of its run to its end.")
    metadata: JobMetadata = Field(description="What was really done.")


class AcceptedAnswer(Success):
    """A job that was taken on."""

    job_id: JobId
    status: JobState
    status_url: str


class JobsAnswer(Success):
    """Some of the agent's jobs, newest first."""

    jobs: tuple[JobItem, ...]
    next_cursor: JobId | None = Field(description="Asks for the older ones; null when there are none.")


def describe_job(job: Job, links: Links, outlook: Outlook) -> JobItem:
    """Return a job as it is now."""
    return JobItem(**_job_values(job, links, outlook))


def answer_job(job: Job, links: Links, outlook: Outlook) -> JobAnswer:
    """Return a job as an answer of its own."""
    return JobAnswer(**_job_values(job, links, outlook))


def answer_generated(job: Job, links: Links, outlook: Outlook) -> GeneratedAnswer:
    """Return the answer for a completed job whose caller waited for it. Raises FilesExpired when its mesh is gone."""
    values = _job_values(job, links, outlook)
    if values["download_url"] is None:
        raise FilesExpired(details={"job_id": job.id})
    return GeneratedAnswer(**{name: values[name] for name in GeneratedAnswer.model_fields if name in values})


def job_failure(job: Job) -> ServiceError:
    """Return why a job has no mesh, as the error that its caller would have got had it waited."""
    if job.status is Status.CANCELLED:
        return Cancelled(details={"job_id": job.id})
    kind = kinds_by_code().get(job.error_code or "", ServiceError)
    error = kind(job.error_message, details={**_details(job), "job_id": job.id})
    error.code = job.error_code or error.code
    return error


def _job_values(job: Job, links: Links, outlook: Outlook) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "batch_id": job.batch_id,
        "index": job.batch_index,
        "filename": job.filename,
        "label": job.label,
        "status": job.status.value,
        "progress": job.progress,
        "current_step": job.current_step,
        "eta_seconds": outlook.eta_seconds,
        "queue_position": outlook.queue_position,
        "cancel_requested": job.cancel_requested,
        "status_url": links.status(job.id),
        **file_values(job, outlook.files, links),
        "processing_time": _processing_time(job),
        "request": _request(job),
        "metadata": JobMetadata.from_json(job.metadata) if job.metadata else None,
        "error": _error(job),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "expires_at": links.expiry(job.finished_at),
    }


def _request(job: Job) -> dict[str, Any] | None:
    try:
        fields = GenerationRequest.from_json(job.request).model_dump(mode="json")
    except RequestUnreadable:
        return None
    # As a form has them: a list is a text with commas, and no bound is a word.
    listed = {"format": ",".join(fields.pop("formats")), "views": ",".join(fields.pop("views"))}
    return {name: value for name, value in listed.items() if value} | {
        **fields,
        "target_faces": fields["target_faces"] or "none",
    }


def _error(job: Job) -> JobError | None:
    if job.error_code is None:
        return None
    return JobError(error=job.error_message or "", code=job.error_code, details=_details(job))


def _details(job: Job) -> dict[str, Any]:
    details: dict[str, Any] = json.loads(job.error_details or "{}")
    return details


def _processing_time(job: Job) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    # Machines that share the table may disagree on the time by a little.
    return round(max(0.0, (job.finished_at - job.started_at).total_seconds()), 3)
