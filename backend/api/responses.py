"""Every answer of the API as a frozen schema, and how a job becomes one. The OpenAPI document is made from these.

This module does not know HTTP: not the status an answer is sent with, not where its addresses point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from backend.errors import Cancelled, ServiceError, kinds_by_code
from backend.jobs.metadata import JobMetadata
from backend.jobs.models import Batch, Job, Status
from backend.jobs.outlook import Outlook
from backend.jobs.progress import batch_eta

ID_PATTERN = "^[0-9a-f]{32}$"

JobId = Annotated[str, Field(pattern=ID_PATTERN)]
JobState = Literal["queued", "processing", "completed", "failed", "cancelled"]


@dataclass(frozen=True)
class Links:
    """Where a job's or batch's status and a file are found: addresses by id and by file name."""

    status: Callable[[str], str]
    download: Callable[[str], str]


class Answer(BaseModel):
    """Any answer's or part's common ground: frozen, and nothing beside what is declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Success(Answer):
    """An answer to a request that was carried out."""

    success: Literal[True] = True


class ErrorAnswer(Answer):
    """The answer to a request that was not carried out."""

    success: Literal[False] = False
    error: str = Field(description="What is wrong, in a sentence.")
    code: str = Field(description="The same for programs: a name that does not change.")
    request_id: str = Field(description="X-Request-ID again; the service's log knows it.")
    details: dict[str, Any] = Field(description="What a program may want to know besides.")


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


class BatchAnswer(Success):
    """A batch with its jobs."""

    batch_id: JobId
    status: JobState = Field(description="Processing until all its jobs are finished; completed when one of them is.")
    progress: int = Field(ge=0, le=100)
    current_step: str
    eta_seconds: float | None = Field(ge=0, description="Seconds until the last job is finished; null when unknown.")
    queue_position: int | None = Field(ge=1, description="The position of its first waiting job.")
    total_images: int = Field(ge=1)
    status_url: str
    items: tuple[JobItem, ...] = Field(description="Its jobs, in the order of the images.")


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


class BatchAcceptedAnswer(Success):
    """A batch that was taken on."""

    batch_id: JobId
    job_ids: tuple[JobId, ...] = Field(description="Its jobs, in the order of the images.")
    total_images: int = Field(ge=1)
    status_url: str


class JobsAnswer(Success):
    """Some of the agent's jobs, newest first."""

    jobs: tuple[JobItem, ...]
    next_cursor: JobId | None = Field(description="Asks for the older ones; null when there are none.")


class ModelState(Answer):
    """The model that is served."""

    name: str
    loaded: bool


class DeviceState(Answer):
    """The device of a worker that is ready."""

    type: str = Field(description="cpu, cuda or mps.")
    name: str
    memory_total: int = Field(ge=0, description="Bytes.")
    memory_free: int = Field(ge=0, description="Bytes.")


class HealthFacts(Answer):
    """What there is to know of the service's state."""

    status: Literal["ok", "loading", "unavailable"]
    version: str
    model: ModelState
    device: DeviceState | None = Field(description="Null when no worker has reported one.")
    workers_ready: int = Field(ge=0)
    queue_size: int = Field(ge=0, description="Jobs that wait.")
    active_jobs: int = Field(ge=0, description="Jobs that run.")


class HealthAnswer(HealthFacts, Success):
    """The state of a service that can serve."""


class UnhealthyAnswer(HealthFacts, ErrorAnswer):
    """The state of a service that cannot serve now."""


def describe_job(job: Job, links: Links, outlook: Outlook) -> JobItem:
    """Return a job as it is now."""
    return JobItem(**_job_values(job, links, outlook))


def answer_job(job: Job, links: Links, outlook: Outlook) -> JobAnswer:
    """Return a job as an answer of its own."""
    return JobAnswer(**_job_values(job, links, outlook))


def answer_batch(batch: Batch, links: Links, outlooks: Mapping[str, Outlook]) -> BatchAnswer:
    """Return a batch with its jobs; outlooks : by job id."""
    items = tuple(describe_job(job, links, outlooks[job.id]) for job in batch.jobs)
    finished = sum(job.status.finished for job in batch.jobs)
    return BatchAnswer(
        batch_id=batch.id,
        status=batch.status.value,
        progress=batch.progress,
        current_step=f"{finished} of {len(items)} finished",
        eta_seconds=batch_eta([item.eta_seconds for item in items if not Status(item.status).finished]),
        queue_position=min((item.queue_position for item in items if item.queue_position), default=None),
        total_images=len(items),
        status_url=links.status(batch.id),
        items=items,
    )


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
