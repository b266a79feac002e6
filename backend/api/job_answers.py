"""A job as the API shows it: in an answer of its own, in a batch, in a list. The OpenAPI document is made from these.

This module does not know HTTP: not the status an answer is sent with, not where its addresses point.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from backend.api.responses import Answer, JobId, JobState, Links, Success
from backend.errors import Cancelled, ServiceError, kinds_by_code
from backend.jobs.metadata import JobMetadata
from backend.jobs.models import Job, Status
from backend.jobs.outlook import Outlook


class JobError(Answer):
    """Why a job failed."""

    code: str
    message: str


class JobItem(Answer):
    """A job as it is now."""

    job_id: JobId
    batch_id: JobId | None = Field(description="The batch it came in with, if any.")
    status: JobState
    progress: int = Field(ge=0, le=100)
    current_step: str
    eta_seconds: float | None = Field(ge=0, description="Seconds until it is finished; null when unknown or finished.")
    queue_position: int | None = Field(ge=1, description="Its position among the waiting jobs; else null.")
    cancel_requested: bool = Field(description="Whether its agent asked for it to stop.")
    status_url: str
    download_url: str | None = Field(description="Where its mesh is, once it is completed.")
    processing_time: float | None = Field(ge=0, description="Seconds from the start of its run to its end.")
    metadata: JobMetadata | None = Field(description="What was really done.")
    error: JobError | None = Field(description="Why it failed.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobAnswer(JobItem, Success):
    """One job."""


class GeneratedAnswer(Success):
    """A mesh that was made while the caller waited."""

    job_id: JobId
    status: Literal["completed"] = "completed"
    status_url: str
    download_url: str
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


def answer_generated(job: Job, links: Links) -> GeneratedAnswer:
    """Return the answer for a completed job whose caller waited for it."""
    values = _job_values(job, links, Outlook())
    return GeneratedAnswer(**{name: values[name] for name in GeneratedAnswer.model_fields if name in values})


def job_failure(job: Job) -> ServiceError:
    """Return why a job has no mesh, as the error that its caller would have got had it waited."""
    if job.status is Status.CANCELLED:
        return Cancelled(details={"job_id": job.id})
    kind = kinds_by_code().get(job.error_code or "", ServiceError)
    error = kind(job.error_message, details={"job_id": job.id})
    error.code = job.error_code or error.code
    return error


def _job_values(job: Job, links: Links, outlook: Outlook) -> dict[str, Any]:
    failed = job.error_code is not None
    return {
        "job_id": job.id,
        "batch_id": job.batch_id,
        "status": job.status.value,
        "progress": job.progress,
        "current_step": job.current_step,
        "eta_seconds": outlook.eta_seconds,
        "queue_position": outlook.queue_position,
        "cancel_requested": job.cancel_requested,
        "status_url": links.status(job.id),
        "download_url": links.download(job.artifact) if job.artifact else None,
        "processing_time": _processing_time(job),
        "metadata": JobMetadata.from_json(job.metadata) if job.metadata else None,
        "error": JobError(code=job.error_code or "", message=job.error_message or "") if failed else None,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def _processing_time(job: Job) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    # Machines that share the table may disagree on the time by a little.
    return round(max(0.0, (job.finished_at - job.started_at).total_seconds()), 3)
