"""A job or batch as its status has it, for whoever asks: one call, a listener, a webhook.

This module does not know how the answer is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.api.batch_answers import BatchAnswer, answer_batch
from backend.api.job_answers import JobAnswer, answer_job
from backend.api.responses import Links
from backend.jobs.models import Batch, Job
from backend.jobs.outlook import Outlook
from backend.services import AgentServices


def describe(services: AgentServices, found: Job | Batch, links: Links) -> JobAnswer | BatchAnswer:
    """Return a job or batch as it is now, with what is known of its future. Raises StoreUnavailable."""
    return describe_with(services.outlooks.of(jobs_of(found)), found, links)


def describe_with(outlooks: Mapping[str, Outlook], found: Job | Batch, links: Links) -> JobAnswer | BatchAnswer:
    """Return a job or batch with outlooks that are known, by job id."""
    if isinstance(found, Batch):
        return answer_batch(found, links, outlooks)
    return answer_job(found, links, outlooks[found.id])


def jobs_of(found: Job | Batch) -> Sequence[Job]:
    """Return a batch's jobs, or the one job."""
    return found.jobs if isinstance(found, Batch) else [found]
