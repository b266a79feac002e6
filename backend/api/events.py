"""What listeners are told: how a job or batch is, under a name for it, as Server-Sent Events have it.

An event's id is made of the state that it tells of, and of nothing else: whichever process makes it, it is the same, so
that a listener that comes back and names the last one it got gets what is new since then, and nothing twice. This
module does not know who listens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from backend.api.batch_answers import BatchAnswer
from backend.api.describing import jobs_of
from backend.api.job_answers import JobAnswer
from backend.jobs.models import Batch, Job

PROGRESS = "progress"
COMMENT = b": still here\n\n"
"""What a stream says when there is nothing to say, so that nobody on the way takes it for dead."""

_ID_DIGITS = 24
_RETRY_MILLISECONDS = 2000


@dataclass(frozen=True)
class Event:
    """One message.

    name : progress, completed, failed or cancelled; data : JSON as the status has it, of which progress is a part
    """

    id: str
    name: str
    data: str
    progress: int
    step: str

    @property
    def is_last(self) -> bool:
        """Whether nothing more will happen to what it tells of."""
        return self.name != PROGRESS

    def as_sse(self) -> bytes:
        """Return it as a Server-Sent Event; JSON has no line feeds of its own."""
        return f"id: {self.id}\nevent: {self.name}\ndata: {self.data}\n\n".encode()

    def as_message(self) -> str:
        """Return it as JSON, for a WebSocket."""
        return f'{{"event": "{self.name}", "id": "{self.id}", "data": {self.data}}}'


def stream_start() -> bytes:
    """Return what a stream of Server-Sent Events begins with: how soon a listener that was cut off comes back."""
    return f"retry: {_RETRY_MILLISECONDS}\n\n".encode()


def event_id(found: Job | Batch) -> str:
    """Return the id of the event that tells how a job or batch is now."""
    return hashlib.sha256(repr(_states(jobs_of(found))).encode()).hexdigest()[:_ID_DIGITS]


def event_of(found: Job | Batch, answer: JobAnswer | BatchAnswer) -> Event:
    """Return the event that tells how a job or batch is now; answer : the same as its status has it."""
    name = found.status.value if found.status.finished else PROGRESS
    return Event(event_id(found), name, answer.model_dump_json(), answer.progress, answer.current_step)


def _states(jobs: Sequence[Job]) -> list[tuple[str, str, bool, int, str]]:
    return [(job.id, job.status.value, job.cancel_requested, job.progress, job.current_step) for job in jobs]
