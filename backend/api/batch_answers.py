"""A batch as the API shows it: its jobs, and what they are together. The OpenAPI document is made from these.

This module does not know HTTP: not the status an answer is sent with, not where its addresses point.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from backend.api.job_answers import JobItem, describe_job
from backend.api.responses import JobId, JobState, Links, Success
from backend.jobs.models import Batch, Status
from backend.jobs.outlook import Outlook
from backend.jobs.progress import batch_eta


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


class BatchAcceptedAnswer(Success):
    """A batch that was taken on."""

    batch_id: JobId
    job_ids: tuple[JobId, ...] = Field(description="Its jobs, in the order of the images.")
    total_images: int = Field(ge=1)
    status_url: str


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
