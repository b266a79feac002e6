"""A batch as the API shows it: its jobs, and what they are together. The OpenAPI document is made from these.

This module does not know HTTP: not the status an answer is sent with, not where its addresses point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from pydantic import Field

from backend.api.job_answers import JobItem, describe_job
from backend.api.responses import SIGNED_URL, Answer, JobId, JobState, Links, Success
from backend.jobs.files import ZIP
from backend.jobs.models import Batch, Job, Status
from backend.jobs.outlook import Outlook
from backend.jobs.progress import batch_eta


class JobCounts(Answer):
    """How many of a batch's jobs are in each state."""

    queued: int = Field(ge=0)
    processing: int = Field(ge=0)
    completed: int = Field(ge=0)
    failed: int = Field(ge=0)
    cancelled: int = Field(ge=0)


class RefusedImage(Answer):
    """A bad image of a batch whose good ones run."""

    index: int = Field(ge=0, description="Which of the images it is, from 0.")
    filename: str | None = Field(description="What it was called by whoever sent it.")
    code: str
    error: str


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
    download_url: str | None = Field(description="A zip of all its files, once it is finished; null until then.")
    signed_url: str | None = Field(description=SIGNED_URL)
    counts: JobCounts
    expires_at: datetime | None = Field(description="When the first of its jobs is removed; null until all finished.")
    items: tuple[JobItem, ...] = Field(description="Its jobs, in the order of the images.")


class BatchAcceptedAnswer(Success):
    """A batch that was taken on."""

    batch_id: JobId
    job_ids: tuple[JobId, ...] = Field(description="Its jobs, in the order of the images.")
    total_images: int = Field(ge=1)
    status_url: str
    refused: tuple[RefusedImage, ...] = Field(
        description="With `accept_partial`: bad images, whose jobs have failed already; the others run."
    )


def answer_batch(batch: Batch, links: Links, outlooks: Mapping[str, Outlook]) -> BatchAnswer:
    """Return a batch with its jobs; outlooks : by job id."""
    items = tuple(describe_job(job, links, outlooks[job.id]) for job in batch.jobs)
    finished = sum(job.status.finished for job in batch.jobs)
    archive = f"{batch.id}{ZIP}"
    return BatchAnswer(
        batch_id=batch.id,
        status=batch.status.value,
        progress=batch.progress,
        current_step=f"{finished} of {len(items)} finished",
        eta_seconds=batch_eta([item.eta_seconds for item in items if not Status(item.status).finished]),
        queue_position=min((item.queue_position for item in items if item.queue_position), default=None),
        total_images=len(items),
        status_url=links.status(batch.id),
        download_url=links.download(archive) if batch.status.finished else None,
        signed_url=links.signed(archive) if batch.status.finished else None,
        counts=JobCounts(**batch.counts),
        expires_at=links.expiry(batch.finished_at),
        items=items,
    )


def answer_accepted_batch(
    batch_id: str, job_ids: Sequence[str], refused: Iterable[Job], links: Links
) -> BatchAcceptedAnswer:
    """Return the answer for a batch that was taken on; refused : its jobs for bad images."""
    return BatchAcceptedAnswer(
        batch_id=batch_id,
        job_ids=tuple(job_ids),
        total_images=len(job_ids),
        status_url=links.status(batch_id),
        refused=tuple(
            RefusedImage(
                index=job.batch_index or 0,
                filename=job.filename,
                code=job.error_code or "",
                error=job.error_message or "",
            )
            for job in refused
        ),
    )
