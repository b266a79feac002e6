"""Jobs in a database: submit, follow, lease, report, finish, expire.

Each change of state is one guarded statement: it names the state and the fence number it starts from, and when no row
matches, LeaseLost says that the job moved on without the caller. Every method may raise StoreUnavailable, and those
that write StorageFull. This module does not know what a job asks for, how it is run, or where its files lie.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, null, select, tuple_, update

from backend.errors import LeaseLost, ServiceError
from backend.jobs import expiry as job_expiry
from backend.jobs import files as job_files
from backend.jobs import idempotency as idempotency_keys
from backend.jobs import reading, tombstones
from backend.jobs.changes import Changes, NotingDatabase
from backend.jobs.files import FileTable
from backend.jobs.ids import JobIds
from backend.jobs.leases import (
    LeaseRequest,
    cancellation,
    handed_back,
    job_of,
    lease_batch_mates,
    lease_next,
    position,
    positions,
    reclaim,
    upcoming,
    waiting,
)
from backend.jobs.models import (
    ALL_JOBS,
    Batch,
    Clock,
    Heartbeat,
    IdempotencyKey,
    Job,
    JobFilter,
    JobState,
    Line,
    NewFile,
    NewJob,
    NullQueueObserver,
    Page,
    QueueCounts,
    QueueObserver,
    Report,
    Status,
    Submitted,
    Usage,
)
from backend.jobs.run_clock import RunClock
from backend.jobs.schema import jobs
from backend.jobs.submission import Bounds, failure_values, rows_of
from backend.storage.database import Database

_SUBMIT_LOCK = 0x0F_EA5_002

_log = logging.getLogger(__name__)


class JobStore:
    """The job table: the truth about every job, for all threads, processes and machines that share it."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        max_attempts: int = 3,
        new_id: Callable[[], str] | None = None,
        observer: QueueObserver | None = None,
        changes: Changes | None = None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """Open the job table in a database.

        max_attempts : runs that may die before a job fails; new_id : gives ids that sort by age
        observer : counts what no worker is left to report; changes : hears of what this process writes
        monotonic : as RunClock's
        """
        self._runs = RunClock(monotonic)
        self._database = NotingDatabase(database, changes or Changes())
        self.files = FileTable(self._database)
        self._clock = clock
        self._max_attempts = max_attempts
        self._new_id = new_id or JobIds(clock)
        self._observer = observer or NullQueueObserver()

    def submit(
        self,
        agent_id: str,
        new_jobs: Sequence[NewJob],
        *,
        queue_limit: int,
        agent_limit: int,
        daily_limit: int | None = None,
        idempotency: IdempotencyKey | None = None,
    ) -> Submitted:
        """Put an agent's jobs into the queue, all or none; more than one make a batch.

        One whose image was refused is kept as failed, and counts towards no bound.

        queue_limit : jobs that may wait, of all agents; agent_limit : this agent's jobs that may wait or run
        daily_limit : this agent's jobs in any 24 hours
        With an idempotency key that was answered before, gives that answer and stores nothing.
        Raises IdempotencyConflict, TooManyJobs, TooManyActiveJobs, QuotaExceeded, QueueFull.
        """
        ids = tuple(self._new_id() for _ in new_jobs)
        answer = Submitted(ids, self._new_id() if len(ids) > 1 else None, replayed=False)
        now, bounds = self._clock(), Bounds(queue_limit, agent_limit, daily_limit)
        with self._database.write(_SUBMIT_LOCK) as connection:
            if idempotency is not None:
                first = idempotency_keys.claim(connection, agent_id, idempotency, answer, now)
                if first.replayed:
                    return first
            running = sum(new.candidates for new in new_jobs if new.refusal is None)
            bounds.require_room(connection, agent_id, running, now)
            connection.execute(insert(jobs), rows_of(ids, answer.batch_id, agent_id, new_jobs, now))
        return answer

    def recall(self, agent_id: str, idempotency: IdempotencyKey) -> Submitted | None:
        """Return the answer that this request got within the last 24 hours, None when it is new.

        Lets a caller answer a repeated request before storing its images. Raises IdempotencyConflict.
        """
        with self._database.read() as connection:
            return idempotency_keys.recall(connection, agent_id, idempotency, self._clock())

    def remember(self, agent_id: str, idempotency: IdempotencyKey, job_id: str) -> None:
        """Keep for 24 hours that a request about a job was answered; done twice it is no error.

        Raises IdempotencyConflict when the key was another request's.
        """
        answer = Submitted((job_id,), None, replayed=False)
        with self._database.write() as connection:
            idempotency_keys.claim(connection, agent_id, idempotency, answer, self._clock())

    def get(self, job_id: str, agent_id: str) -> Job:
        """Return an agent's job. Raises JobNotFound for unknown ids and other agents' alike."""
        with self._database.read() as connection:
            return reading.find(connection, job_id, agent_id)

    def get_batch(self, batch_id: str, agent_id: str) -> Batch:
        """Return an agent's batch with those of its jobs that have not expired. Raises JobNotFound as get does."""
        with self._database.read() as connection:
            return reading.find_batch(connection, batch_id, agent_id)

    def find(self, job_or_batch_id: str, agent_id: str) -> Job | Batch:
        """Return an agent's job or batch of this id. Raises JobNotFound as get does."""
        with self._database.read() as connection:
            return reading.find_any(connection, job_or_batch_id, agent_id)

    def expired_at(self, name: str, agent_id: str) -> datetime | None:
        """Return when the agent's job, batch or file of this name expired; None when none did in the last days."""
        with self._database.read() as connection:
            return tombstones.find(connection, name, agent_id, self._clock())

    def list_jobs(self, agent_id: str, cursor: str | None, limit: int, wanted: JobFilter = ALL_JOBS) -> Page:
        """Return up to limit (≥ 1) of an agent's jobs, newest first, older than the cursor. Raises InvalidCursor.

        Jobs that come in while an agent turns pages don't shift them.
        """
        with self._database.read() as connection:
            return reading.page(connection, agent_id, cursor, limit, wanted)

    def queue_position(self, job: Job) -> int | None:
        """Return the job's position in the order of leasing, from 1; None when it is no longer queued.

        An upper bound: jobs that may run together with an earlier one are leased along with it.
        """
        with self._database.read() as connection:
            return position(connection, job.id)

    def queue_positions(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the positions, as queue_position has them, of those of some jobs that are queued, by id."""
        with self._database.read() as connection:
            return positions(connection, ids)

    def line(self, limit: int) -> Line:
        """Return the jobs that run, and the first of those that wait, up to limit, in the order of leasing."""
        with self._database.read() as connection:
            queued = waiting(connection, limit)
            return Line(
                reading.running(connection), queued, reading.turns(connection, {job.agent_id for job in queued})
            )

    def states(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Return how far some jobs are, by id; those that are gone are missing."""
        with self._database.read() as connection:
            return reading.states(connection, ids)

    def counts(self) -> QueueCounts:
        """Return how much is waiting and running now."""
        with self._database.read() as connection:
            return reading.counts(connection)

    def unfinished(self, agent_id: str) -> int:
        """Return how many of an agent's jobs and batches are unfinished, the jobs of a batch as one."""
        with self._database.read() as connection:
            return reading.unfinished(connection, agent_id)

    def has_work(self) -> bool:
        """Return whether a lease would find a job: one that waits, or one whose run has died."""
        with self._database.read() as connection:
            return reading.has_work(connection, self._clock())

    def cancel(self, job_id: str, agent_id: str) -> Job:
        """Cancel a queued job at once and ask the worker of a running one to stop; a finished one stays as it is.

        Raises JobNotFound as get does.
        """
        with self._database.write() as connection:
            connection.execute(cancellation(jobs.c.id == job_id, agent_id, self._clock()))
            return reading.find(connection, job_id, agent_id)

    def cancel_batch(self, batch_id: str, agent_id: str) -> Batch:
        """Do as cancel does for each job of a batch. Raises JobNotFound as get does."""
        with self._database.write() as connection:
            connection.execute(cancellation(jobs.c.batch_id == batch_id, agent_id, self._clock()))
            return reading.find_batch(connection, batch_id, agent_id)

    def cancel_of_agents(self, agent_ids: Collection[str]) -> list[Job]:
        """Do as cancel does for every unfinished job of some agents; return those that were waiting or running."""
        if not agent_ids:
            return []
        with self._database.read() as connection:
            found = reading.with_unfinished(connection, agent_ids)
        if not found:
            return []
        cancelled: list[Job] = []
        with self._database.write() as connection:
            for agent_id in found:
                statement = cancellation(~jobs.c.cancel_requested, agent_id, self._clock()).returning(*jobs.c)
                cancelled += map(job_of, connection.execute(statement))
        return cancelled

    def usage(self, agent_id: str) -> Usage:
        """Return how many unfinished jobs an agent has, and how many it submitted today."""
        with self._database.read() as connection:
            return reading.usage(connection, agent_id, self._clock())

    def lease(self, owner: str, limit: int, lease_seconds: float, *, batch_mates_of: Job | None = None) -> list[Job]:
        """Lease a worker up to limit (≥ 1) jobs that may run together, with the job whose turn it is; [] when none.

        batch_mates_of : a job this worker has leased; then only jobs that may join it are given
        Agents take turns, the one that waited longest for a run first, each with its oldest job. Runs whose lease has
        ended are reclaimed first; a job whose runs died twice comes alone.
        """
        now = self._clock()
        wanted = LeaseRequest(owner, now, now + timedelta(seconds=lease_seconds))
        with self._database.write() as connection:
            died = reclaim(connection, now, self._max_attempts)
            if batch_mates_of is not None:
                leased = lease_batch_mates(connection, wanted, batch_mates_of, limit)
            else:
                leased = lease_next(connection, wanted, limit)
        self._runs.begin(leased)
        self._report_died(died)
        return leased

    def started_at(self, job: Job, now: datetime) -> datetime | None:
        """Return when the run of a leased job began, as RunClock does."""
        return self._runs.started_at(job, now)

    def upcoming(self, limit: int) -> list[Job]:
        """Return up to limit (≥ 1) jobs that the next lease would give now, and lease none of them.

        A job whose run died before is left out, and all that would run with it.
        """
        with self._database.read() as connection:
            return upcoming(connection, limit)

    def reclaim(self) -> list[Job]:
        """End the runs whose lease has ended; return their jobs as they are now: queued, failed or cancelled."""
        with self._database.write() as connection:
            died = reclaim(connection, self._clock(), self._max_attempts)
        self._report_died(died)
        return died

    def report(self, owner: str, reports: Sequence[Report], lease_seconds: float) -> Heartbeat:
        """Extend the leases of a worker's jobs and note how far each run is, all in one transaction.

        Jobs that are equally far share one statement. Returns which jobs the worker holds and which no longer.
        """
        alike: dict[tuple[int, str, float | None], list[Job]] = {}
        for report in reports:
            alike.setdefault((report.progress, report.step, report.eta_seconds), []).append(report.job)
        beats: list[Heartbeat] = []
        with self._database.write() as connection:
            for (progress, step, eta), held in alike.items():
                values = {"progress": progress, "current_step": step, "eta_seconds": eta}
                beats.append(self._extend(connection, owner, held, lease_seconds, **values))
        return Heartbeat(
            held=tuple(job for beat in beats for job in beat.held),
            lost=tuple(job for beat in beats for job in beat.lost),
        )

    def poll(self, held: Sequence[Job]) -> list[Job]:
        """Return those of a worker's jobs that it still holds, as they are now; writes nothing."""
        query = select(*jobs.c).where(_is_one_of(held), jobs.c.status == Status.PROCESSING)
        with self._database.read() as connection:
            return [job_of(row) for row in connection.execute(query)]

    def complete(self, job: Job, files: Sequence[NewFile], metadata: str) -> Job:
        """End a run with its files, a mesh among them, and the JSON text of what was done. Raises LeaseLost.

        The first mesh is the job's own; the others are entered with it or not at all.
        """
        artifact = job_files.first_mesh(files)
        return self._end(job, Status.COMPLETED, files, progress=100, artifact=artifact, metadata=metadata)

    def fail(self, job: Job, error: ServiceError, metadata: str | None = None) -> Job:
        """End a run that failed by its own fault: it is not tried again. Raises LeaseLost."""
        return self._end(job, Status.FAILED, metadata=metadata, **failure_values(error))

    def stop_cancelled(self, job: Job) -> Job:
        """End a run that was stopped because its agent asked for it. Raises LeaseLost."""
        return self._end(job, Status.CANCELLED)

    def release(self, job: Job) -> Job:
        """Hand a run back unharmed: the job waits again, or is cancelled if its agent asked. Raises LeaseLost."""
        return self._change(job, **handed_back(self._clock()))

    def release_unknown(self, owner: str, known: Sequence[Job]) -> list[Job]:
        """Hand back, as release does, a worker's runs beyond those it knows of; for one that is about to end.

        It knows nothing of those that were leased to it in the moment in which it was asked to end.
        """
        unknown = (jobs.c.lease_owner == owner) & jobs.c.id.not_in([job.id for job in known])
        statement = (
            update(jobs)
            .where(unknown, jobs.c.status == Status.PROCESSING)
            .values(**handed_back(self._clock()))
            .returning(*jobs.c)
        )
        with self._database.write() as connection:
            return [job_of(row) for row in connection.execute(statement)]

    def expired(self, before: datetime, limit: int = 500) -> list[Job]:
        """Return up to limit jobs that finished at or before a time, oldest first; their files are removed first."""
        with self._database.read() as connection:
            return job_expiry.finished_by(connection, before, limit)

    def remove(self, finished: Sequence[Job]) -> int:
        """Remove finished jobs for good, all but their names; return how many were still there."""
        if not finished:
            return 0
        with self._database.write() as connection:
            gone = job_expiry.remove(connection, finished)
            removed = [job for job in finished if job.id in gone]
            tombstones.leave(connection, removed, job_files.forget(connection, removed), self._clock())
            return len(gone)

    def expire_queued(self, before: datetime, limit: int = 500) -> list[Job]:
        """Fail up to limit jobs that were submitted at or before a time and still wait, with the code EXPIRED."""
        with self._database.write() as connection:
            expired = job_expiry.fail_waiting(connection, before, self._clock(), limit)
        for job in expired:
            _log.warning("job %s failed: it waited too long", job.id, extra={"code": job.error_code})
            self._observer.wait_expired(job)
        return expired

    def named(self, names: Sequence[str]) -> frozenset[str]:
        """Return those of some file names that belong to a job, as its image or as what was made of it."""
        with self._database.read() as connection:
            return job_expiry.named(connection, names)

    def forget_keys(self, limit: int) -> int:
        """Remove up to limit idempotency keys whose day is over; return how many it were."""
        with self._database.write() as connection:
            return idempotency_keys.prune(connection, self._clock(), limit)

    def forget_expired(self, limit: int) -> int:
        """Remove up to limit names of jobs that expired long ago; return how many it were."""
        with self._database.write() as connection:
            return tombstones.prune(connection, self._clock(), limit)

    def _report_died(self, died: Sequence[Job]) -> None:
        for job in died:
            what = (
                f"failed after {job.attempts} runs" if job.status is Status.FAILED else f"is {job.status.value} again"
            )
            _log.warning("a run of job %s died; it %s", job.id, what, extra={"code": job.error_code or ""})
            self._observer.run_died(job)

    def _extend(
        self, connection: Connection, owner: str, held: Sequence[Job], lease_seconds: float, **values: Any
    ) -> Heartbeat:
        now = self._clock()
        statement = (
            update(jobs)
            .where(_is_one_of(held), jobs.c.status == Status.PROCESSING, jobs.c.lease_owner == owner)
            .values(lease_expires_at=now + timedelta(seconds=lease_seconds), updated_at=now, **values)
            .returning(*jobs.c)
        )
        kept = {job.id: job for job in map(job_of, connection.execute(statement))}
        return Heartbeat(
            held=tuple(kept[job.id] for job in held if job.id in kept),
            lost=tuple(job for job in held if job.id not in kept),
        )

    def _end(self, job: Job, status: Status, files: Sequence[NewFile] = (), **values: Any) -> Job:
        now = self._clock()
        return self._change(
            job,
            files,
            status=status,
            current_step=status.value,
            eta_seconds=null(),
            lease_owner=null(),
            lease_expires_at=null(),
            started_at=self._runs.started_at(job, now),
            finished_at=now,
            **values,
        )

    def _change(self, job: Job, files: Sequence[NewFile] = (), **values: Any) -> Job:
        """Run the one guarded statement behind all that a worker writes; the fence is this run's alone.

        files : entered with it, or not when it finds no row
        """
        statement = (
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.fence == job.fence, jobs.c.status == Status.PROCESSING)
            .values({"updated_at": self._clock(), **values})
            .returning(*jobs.c)
        )
        with self._database.write() as connection:
            row = connection.execute(statement).one_or_none()
            if row is not None and files:
                job_files.enter(connection, job.id, files)
        if row is None:
            raise LeaseLost(details={"job_id": job.id})
        return job_of(row)


def _is_one_of(held: Sequence[Job]) -> ColumnElement[bool]:
    return tuple_(jobs.c.id, jobs.c.fence).in_([(job.id, job.fence) for job in held])
