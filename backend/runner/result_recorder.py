"""From a shape the device is done with to a finished job: mesh, files, and one guarded write to the job table.

Every job is recorded by itself, on any thread, in its own log context. While storage is away the write is tried again;
a result whose job has moved on is thrown away with its files. This module does not know how the shape was made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from backend.errors import (
    ArtifactStoreUnavailable,
    GenerationError,
    JobNotFound,
    LeaseLost,
    OutOfMemory,
    ServiceError,
    StorageFull,
    StoreUnavailable,
)
from backend.jobs.files import first_mesh
from backend.jobs.metadata import JobMetadata
from backend.jobs.models import Clock, Job, NewFile
from backend.jobs.stage_times import Measured, StageTimes
from backend.jobs.store import JobStore
from backend.periodic import endless_retries
from backend.runner.descriptions import known_metadata, with_candidates, with_outputs, with_seconds
from backend.runner.heartbeat import Ending, Heartbeats, Run
from backend.runner.job_outputs import make_job_outputs
from backend.runner.output_files import OutputFiles
from backend.runner.processor_protocol import PendingShape
from backend.runner.watchdog import Watchdog
from backend.storage.artifacts import ArtifactStore
from backend.storage.files import FileStore, discard
from backend.telemetry.tracing import Traces
from backend.telemetry.worker_metrics import CANCELLED, COMPLETED, LEASE_LOST, RELEASED, WorkerMetrics
from backend.validation import GenerationRequest

if TYPE_CHECKING:
    from backend.hunyuan3d.results import ShapeResult
    from backend.rendering.candidates import Candidate
    from backend.rendering.shape_file import FinishedShape

_log = logging.getLogger(__name__)
_RETRIES = endless_retries(0.25, 4.0)
_FILE_SECONDS = 30.0
"""How long file storage may be away before a run is handed back."""
_OUTCOMES = {Ending.CANCELLED: CANCELLED, Ending.RELEASED: RELEASED, Ending.LOST: LEASE_LOST}
Out = TypeVar("Out")
Later = Callable[[], None]


class _AllOver(Exception):
    """Nobody waits any more for what is being made."""


class ResultRecorder:
    """End runs: with files, an error, or not at all when they are no longer this worker's."""

    def __init__(
        self,
        store: JobStore,
        images: FileStore,
        artifacts: ArtifactStore,
        heartbeats: Heartbeats,
        clock: Clock,
        times: StageTimes,
        metrics: WorkerMetrics,
        watchdog: Watchdog,
        traces: Traces,
    ) -> None:
        """Keep what every result needs.

        watchdog : bounds the making of meshes and files, but not the waiting for storage
        """
        self._store = store
        self._images = images
        self._files = OutputFiles(store, images, artifacts)
        self._clock = clock
        self._times = times
        self._metrics = metrics
        self._watchdog = watchdog
        self._heartbeats = heartbeats
        self._traces = traces

    def record(self, run: Run, request: GenerationRequest, pending: Sequence[PendingShape]) -> Later | None:
        """Make the mesh and its files, store these and complete the job; or fail it with the error that was met.

        pending : the shapes of its candidates, of which the best is the job's
        Returns what is still to be made of a completed job, when there is time.
        """
        from backend.rendering.candidates import in_order

        metadata = known_metadata(run.job, request)
        try:
            with self._watchdog.bounded():
                candidates = in_order([self._build(run, shape) for shape in pending], request.scale_mm)
            metadata = with_candidates(metadata, candidates)
            return self._finish(run, request, candidates, metadata)
        except _AllOver:
            return None
        except ServiceError as error:
            self.fail(run, error, metadata)
        except Exception as error:  # noqa: BLE001 - the job's edge: recorded as its failure
            self.fail(run, unnamed_error(error, run.job), metadata)
        return None

    def fail(self, run: Run, error: ServiceError, metadata: JobMetadata | None) -> None:
        """Record a job's own failure."""
        if run.end(Ending.RECORDED):
            text = None if metadata is None else metadata.to_json()
            recorded = self._write(run, lambda: self._store.fail(run.job, error, text))
            self._let_go(run, error.code, recorded)

    def clean_up(self, run: Run) -> None:
        """Remove what is left of a run that the heartbeats ended, and count it."""
        job = run.job
        if run.ending is Ending.CANCELLED:
            discard(self._images, job.image_name)
            _log.info("job %s is cancelled", job.id)
        elif run.ending is Ending.RELEASED:
            _log.warning("job %s is handed back: it waits again, unharmed, for the next worker", job.id)
        outcome = _OUTCOMES.get(run.ending or Ending.LOST, LEASE_LOST)
        self._count(run, outcome)

    def retry(self, run: Run, action: Callable[[], Out]) -> Out:
        """Return what the action returns, trying again while file storage is away and the run goes on.

        Raises ArtifactStoreUnavailable when that lasts.
        """
        until = time.monotonic() + _FILE_SECONDS
        return _RETRIES.persist(action, ArtifactStoreUnavailable, lambda: not run.over and time.monotonic() < until)

    def hand_back(self, run: Run) -> None:
        """Give up a run that could not go on through no fault of its own."""
        run.end(Ending.RELEASED)
        self._heartbeats.wake()

    def _build(self, run: Run, shape: PendingShape) -> ShapeResult:
        run.begin("mesh")
        if run.over:
            raise _AllOver
        return shape.build_mesh()

    def _finish(
        self, run: Run, request: GenerationRequest, candidates: Sequence[Candidate], metadata: JobMetadata
    ) -> Later | None:
        """Make everything of the shapes, store that, and complete the job."""
        run.begin("finish")
        started = time.perf_counter()
        with self._watchdog.bounded():
            outputs = make_job_outputs(run.job, request, candidates, metadata, partial(self._note_step, run))
        finish = time.perf_counter() - started
        run.begin("export")
        try:
            files = self._files.write(run.job, outputs.files, partial(self.retry, run), lambda: run.over)
        except ArtifactStoreUnavailable:
            _log.exception("the files of job %s could not be stored", run.job.id)
            self.hand_back(run)
            return None
        export = time.perf_counter() - started - finish
        described = with_outputs(metadata, outputs)
        described = with_seconds(described, self._lasted(run.job, self._clock()), finish=finish, export=export)
        if self._complete(run, request, files, described) and request.turntable:
            return partial(self._add_turntable, run.job, outputs.shape)
        return None

    def _note_step(self, run: Run, done: int, total: int) -> None:
        if run.over:
            raise _AllOver
        run.begin("finish", done, total)

    def _add_turntable(self, job: Job, shape: FinishedShape) -> None:
        with self._watchdog.bounded():
            self._files.add_turntable(job, shape)

    def _complete(self, run: Run, request: GenerationRequest, files: Sequence[NewFile], metadata: JobMetadata) -> bool:
        """Complete the job; return whether it is. Files that it does not get are removed."""
        if not run.end(Ending.RECORDED):
            self._files.discard(files)
            return False
        text = metadata.to_json()
        recorded = self._write(run, lambda: self._store.complete(run.job, files, text), first_mesh(files))
        if recorded is False:
            self._files.discard(files)
        if recorded:
            seconds = metadata.seconds.model_dump(exclude_none=True)
            self._times.note(_measured(request, metadata, seconds, run.waited_for_mesh))
            for stage, value in seconds.items():
                self._metrics.observe_stage(stage, value)
        self._let_go(run, COMPLETED, recorded)
        return bool(recorded)

    def _write(self, run: Run, write: Callable[[], Job], artifact: str | None = None) -> bool | None:
        """Write a run's end; return whether the table has it, False when the job has moved on, None when unknown."""
        uncertain = False

        def may_retry() -> bool:
            # The connection may have broken after the write: then the next try is refused.
            nonlocal uncertain
            uncertain = True
            return not self._heartbeats.past_deadline

        try:
            _RETRIES.persist(write, (StoreUnavailable, StorageFull), may_retry)
        except LeaseLost:
            return uncertain and self._is_written(run.job, artifact)
        except (StoreUnavailable, StorageFull) as error:
            _log.error("job %s could not be recorded: %s", run.job.id, error)
            return None
        except Exception:  # noqa: BLE001 - the job's edge: its lease ends, and the run counts as one that died
            _log.exception("job %s could not be recorded", run.job.id)
            return None
        return True

    def _is_written(self, job: Job, artifact: str | None) -> bool:
        """Return whether the write that seemed to fail is in the table after all."""
        try:
            row = self._store.get(job.id, job.agent_id)
        except JobNotFound:
            return False
        return row.fence == job.fence and row.status.finished and row.artifact == artifact

    def _let_go(self, run: Run, outcome: str, recorded: bool | None) -> None:
        self._heartbeats.drop(run)
        if recorded:
            if outcome != COMPLETED:
                discard(self._images, run.job.image_name)
            self._count(run, outcome)
            self._log_end(run.job, outcome)
        elif recorded is False:
            _log.warning("the late result of job %s was thrown away", run.job.id)
            self._count(run, LEASE_LOST)

    def _count(self, run: Run, outcome: str) -> None:
        self._metrics.job_finished(outcome)
        self._traces.run_ended(run.trace(outcome))

    def _lasted(self, job: Job, now: datetime) -> float | None:
        started = self._store.started_at(job, now)
        return None if started is None else max(0.0, (now - started).total_seconds())

    def _log_end(self, job: Job, outcome: str) -> None:
        seconds = {"seconds": round(self._lasted(job, self._clock()) or 0.0, 1)}
        if outcome == COMPLETED:
            _log.info("job %s is completed", job.id, extra=seconds)
        else:
            _log.warning("job %s failed: %s", job.id, outcome, extra={"code": outcome, **seconds})


def unnamed_error(error: Exception, job: Job) -> ServiceError:
    """Return the job's error for a failure that is no ServiceError; the log has the rest."""
    _log.error("job %s met an error that nobody foresaw", job.id, exc_info=error)
    if isinstance(error, MemoryError):
        return OutOfMemory("The worker ran out of memory; lower the quality or send a smaller picture.")
    return GenerationError()


def _measured(
    request: GenerationRequest, metadata: JobMetadata, seconds: Mapping[str, float], waited: float
) -> Measured:
    work = request.workload(metadata.steps or 0)
    if request.candidates > 1:
        # Of one image and one mesh only these say what they take.
        seconds = {stage: spent for stage, spent in seconds.items() if stage in ("sample", "decode")}
    evaluations = metadata.acceleration.evaluations if metadata.acceleration else None
    return Measured(work, {**seconds, "wait": waited}, max(1, metadata.batch_size or 1), evaluations)
