"""What a job is, as values: its states, what comes in, what a worker holds, what a reader sees.

These values are copies of rows at one moment. This module does not know where they are kept, how they are leased, or
what a request means: requests and metadata pass through as JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol

from backend.errors import ServiceError
from backend.limits import FileKind

Clock = Callable[[], datetime]
"""Returns the present as an aware datetime; machines that share a job table keep it within a second (NTP)."""

ISOLATE_AFTER_DEATHS = 2
"""A job whose run died this often shares its next run with nobody, so that they do not suffer."""


class Status(Enum):
    """The state of a job: queued → processing → completed, failed or cancelled."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether a job in this state stays in it."""
        return self not in (Status.QUEUED, Status.PROCESSING)


class FileState(Enum):
    """Whether a file is there; the row of one that is not says to its owner that it was."""

    KEPT = "kept"
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(frozen=True)
class NewFile:
    """A file that lies in its storage and is now to belong to a job.

    name : as it is stored; format : of the file's content, which its name ends with; bytes : its size
    candidate : which of a job's meshes it is of, the best one's being 0
    """

    kind: FileKind
    format: str
    name: str
    bytes: int
    candidate: int = 0


@dataclass(frozen=True)
class JobFile:
    """One row of the table of files; bytes : None where an earlier release did not note it."""

    name: str
    job_id: str
    kind: FileKind
    format: str
    candidate: int
    bytes: int | None
    state: FileState


@dataclass(frozen=True)
class NewJob:
    """A job to be submitted.

    request : the GenerationRequest as JSON text
    batch_key : only jobs with equal keys run together (model, steps, guidance, octree resolution)
    image_name : the stored image's name; "" where refusal says why none was stored: the job has failed by then
    filename : what the image was called by whoever sent it; label : what its agent calls the job
    webhook_url : where its agent wants to hear of its end
    trace : the context of the request that it is part of (W3C traceparent), None where nothing is traced
    candidates : meshes that are made to choose from: so many jobs it counts as
    """

    request: str
    batch_key: str
    image_name: str
    filename: str | None = None
    label: str | None = None
    webhook_url: str | None = None
    refusal: ServiceError | None = None
    trace: str | None = None
    candidates: int = 1


@dataclass(frozen=True)
class Job:
    """One row of the job table.

    request, metadata : JSON text
    attempts : runs begun and not handed back; of a queued job, therefore, the runs that died
    fence : grows with each lease; a write under an older number is refused
    started_at : when its latest run began, None before the first
    progress : 0–100; eta_seconds : at least 0, None when unknown
    lease_owner, lease_expires_at : set exactly while processing; finished_at : set exactly when finished
    image_name : "" where the image was refused, and the job failed when it came in
    batch_index : which of its batch's images it is for, from 0, None outside of a batch
    error_details : JSON text of an object
    webhook_url : where its end is to be told of, None where nobody wants to hear of it or it was entered there
    trace, candidates : as NewJob's
    """

    id: str
    batch_id: str | None
    agent_id: str
    status: Status
    request: str
    batch_key: str
    image_name: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    lease_owner: str | None
    lease_expires_at: datetime | None
    fence: int
    progress: int
    current_step: str
    eta_seconds: float | None
    cancel_requested: bool
    artifact: str | None
    metadata: str | None
    error_code: str | None
    error_message: str | None
    label: str | None
    filename: str | None
    batch_index: int | None
    error_details: str | None
    webhook_url: str | None = None
    trace: str | None = None
    candidates: int = 1

    @property
    def refused(self) -> bool:
        """Whether its image was bad when it came in, beside others of its batch that were good."""
        return not self.image_name

    @property
    def isolated(self) -> bool:
        """Whether its runs died so often that the next one has no batch mates."""
        deaths = self.attempts - (self.status is Status.PROCESSING)
        return deaths >= ISOLATE_AFTER_DEATHS


class QueueObserver(Protocol):
    """Count what becomes of jobs when no worker is left to report it; called from any thread, and never raises."""

    def run_died(self, job: Job) -> None:
        """Count a run whose lease ended before the run did; the job is now queued again, failed or cancelled."""

    def wait_expired(self, job: Job) -> None:
        """Count a job that waited until it failed with EXPIRED."""


class NullQueueObserver:
    """Count nothing."""

    def run_died(self, job: Job) -> None:
        """Do nothing."""

    def wait_expired(self, job: Job) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Batch:
    """Jobs submitted together, in the order they came in; at least one."""

    id: str
    jobs: tuple[Job, ...]

    @property
    def status(self) -> Status:
        """Queued before any job began; processing until all have finished; completed when at least one did."""
        states = {job.status for job in self.jobs}
        if {job.status for job in self.jobs if not job.refused} == {Status.QUEUED}:
            return Status.QUEUED
        if not all(state.finished for state in states):
            return Status.PROCESSING
        return next(state for state in (Status.COMPLETED, Status.FAILED, Status.CANCELLED) if state in states)

    @property
    def counts(self) -> dict[str, int]:
        """How many of its jobs are in each state, by the states' names."""
        return {state.value: sum(job.status is state for job in self.jobs) for state in Status}

    @property
    def finished_at(self) -> datetime | None:
        """When the first of its jobs finished, which is removed first; None until all have."""
        times = [job.finished_at for job in self.jobs if job.finished_at is not None]
        return min(times) if len(times) == len(self.jobs) else None

    @property
    def progress(self) -> int:
        """The mean over its jobs, 0–100; a finished job counts as 100."""
        return sum(100 if job.status.finished else job.progress for job in self.jobs) // len(self.jobs)


@dataclass(frozen=True)
class IdempotencyKey:
    """The agent's name for a request, and a digest of all that makes the request (operation, fields, images)."""

    key: str
    fingerprint: str


@dataclass(frozen=True)
class Submitted:
    """The answer to a submission; replayed: it was given before, and nothing was stored this time."""

    job_ids: tuple[str, ...]
    batch_id: str | None
    replayed: bool


@dataclass(frozen=True)
class JobFilter:
    """Which jobs a reader wants: those in one of the states, all when there is none, whose label has the text in it."""

    statuses: tuple[Status, ...] = ()
    label: str = ""


ALL_JOBS = JobFilter()


@dataclass(frozen=True)
class Page:
    """Some of an agent's jobs, newest first; next_cursor asks for the older ones, None when there are none."""

    jobs: tuple[Job, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Report:
    """How far the run of a leased job is; progress : 0–100; eta_seconds : None when unknown."""

    job: Job
    progress: int
    step: str
    eta_seconds: float | None


@dataclass(frozen=True)
class Heartbeat:
    """Jobs whose lease was extended, as they are now (see cancel_requested), and those that are no longer held."""

    held: tuple[Job, ...]
    lost: tuple[Job, ...]


@dataclass(frozen=True)
class QueueCounts:
    """How much is waiting and running; oldest_queued_at : when the longest waiting job came in."""

    queued: int
    processing: int
    oldest_queued_at: datetime | None


@dataclass(frozen=True)
class Line:
    """The jobs that run, and those that wait for a worker, in the order of leasing.

    turns : when each agent's latest run began, of the agents that wait
    """

    running: tuple[Job, ...]
    waiting: tuple[Job, ...]
    turns: Mapping[str, datetime | None] = field(default_factory=dict)


@dataclass(frozen=True)
class JobState:
    """How far a job is, and nothing else of it."""

    status: Status
    cancel_requested: bool
    progress: int
    step: str

    @classmethod
    def of(cls, job: Job) -> JobState:
        """Return how far a job is."""
        return cls(job.status, job.cancel_requested, job.progress, job.current_step)


@dataclass(frozen=True)
class Usage:
    """What an agent takes of its bounds: unfinished jobs, and jobs submitted within 24 hours; each candidate is one.

    oldest_ends_in : seconds until the oldest of the latter counts no longer, 0 when there is none
    """

    active: int
    daily: int
    oldest_ends_in: int
