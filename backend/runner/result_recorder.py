"""From a shape the device is done with to a finished job: mesh, file, and one guarded write to the job table.

Every job is recorded by itself, on any thread, in its own log context. While storage is away the write is tried again;
a result whose job has moved on is thrown away with its file. This module does not know how the shape was made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
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
from backend.jobs.metadata import AccelerationOut, JobMetadata, StageSecondsOut
from backend.jobs.models import Clock, Job
from backend.jobs.progress import StageTimes
from backend.jobs.store import JobStore
from backend.periodic import endless_retries
from backend.runner.heartbeat import Ending, Heartbeats, Run
from backend.runner.processor_protocol import PendingShape
from backend.runner.watchdog import Watchdog
from backend.storage.artifacts import ArtifactStore
from backend.storage.files import FileStore
from backend.telemetry.worker_metrics import CANCELLED, COMPLETED, LEASE_LOST, RELEASED, WorkerMetrics
from backend.validation import GenerationRequest

if TYPE_CHECKING:
    import trimesh

    from backend.hunyuan3d.results import ShapeMetadata

_log = logging.getLogger(__name__)
_RETRIES = endless_retries(0.25, 4.0)
_FILE_SECONDS = 30.0
"""How long file storage may be away before a run is handed back."""
_MODEL_STAGES = ("preprocess", "encode", "sample", "decode", "mesh")
_OUTCOMES = {Ending.CANCELLED: CANCELLED, Ending.RELEASED: RELEASED, Ending.LOST: LEASE_LOST}
Out = TypeVar("Out")


class ResultRecorder:
    """End runs: with a file, an error, or not at all when they are no longer this worker's."""

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
    ) -> None:
        """Keep what every result needs.

        watchdog : bounds the making of meshes and files, but not the waiting for storage
        """
        self._store = store
        self._images = images
        self._artifacts = artifacts
        self._clock = clock
        self._times = times
        self._metrics = metrics
        self._watchdog = watchdog
        self._heartbeats = heartbeats

    def record(self, run: Run, request: GenerationRequest, pending: PendingShape) -> None:
        """Make the mesh, store the file and complete the job; or fail it with the error that was met."""
        metadata = known_metadata(run.job, request)
        try:
            self._begin(run, "mesh")
            if run.over:
                return
            with self._watchdog.bounded():
                result = pending.build_mesh()
            metadata = with_shape(metadata, result.metadata)
            self._export(run, request, result.unwrap(), metadata)
        except ServiceError as error:
            self.fail(run, error, metadata)
        except Exception as error:  # noqa: BLE001 - the job's edge: recorded as its failure
            self.fail(run, unnamed_error(error, run.job), metadata)

    def fail(self, run: Run, error: ServiceError, metadata: JobMetadata | None) -> None:
        """Record a job's own failure."""
        if run.end(Ending.RECORDED):
            text = None if metadata is None else metadata.to_json()
            recorded = self._write(run, lambda: self._store.fail(run.job, error, text))
            self._let_go(run, error.code, recorded)

    def clean_up(self, run: Run) -> None:
        """Remove what is left of a run that the heartbeats ended, and count it."""
        if run.ending is Ending.CANCELLED:
            self._delete_image(run.job)
        self._metrics.job_finished(_OUTCOMES.get(run.ending or Ending.LOST, LEASE_LOST))

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

    def _export(self, run: Run, request: GenerationRequest, mesh: trimesh.Trimesh, metadata: JobMetadata) -> None:
        """Write the mesh as a file, store that, and complete the job."""
        from backend.hunyuan3d.mesh.export import export_mesh, exported_bounds, exported_unit

        self._begin(run, "export")
        started = time.perf_counter()
        format, scale = request.format, request.scale_mm
        with self._watchdog.bounded():
            data = export_mesh(mesh, format, scale_mm=scale)
            bounds = exported_bounds(mesh, format, scale_mm=scale)
        if run.over:
            return
        try:
            artifact = self.retry(run, lambda: self._artifacts.write(data, format))
        except ArtifactStoreUnavailable:
            _log.exception("the file of job %s could not be stored", run.job.id)
            self.hand_back(run)
            return
        export = time.perf_counter() - started
        now = self._clock()
        described = metadata.model_copy(
            update={
                "bounds": bounds,
                "unit": exported_unit(format, scale),
                "file_size": len(data),
                "seconds": metadata.seconds.model_copy(update={"export": export, "total": _since(run.job, now)}),
            }
        )
        self._complete(run, artifact, described)

    def _complete(self, run: Run, artifact: str, metadata: JobMetadata) -> None:
        if not run.end(Ending.RECORDED):
            self._delete_artifact(artifact)
            return
        text = metadata.to_json()
        recorded = self._write(run, lambda: self._store.complete(run.job, artifact, text), artifact)
        if recorded is False:
            self._delete_artifact(artifact)
        if recorded:
            seconds = metadata.seconds.model_dump(exclude_none=True)
            self._times.note(run.job.batch_key, seconds)
            for stage, value in seconds.items():
                self._metrics.observe_stage(stage, value)
        self._let_go(run, COMPLETED, recorded)

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
            self._delete_image(run.job)
            self._metrics.job_finished(outcome)
        elif recorded is False:
            _log.warning("the late result of job %s was thrown away", run.job.id)
            self._metrics.job_finished(LEASE_LOST)

    def _begin(self, run: Run, stage: str) -> None:
        plan = self._times.plan(run.job.batch_key)
        run.note(plan.progress(stage, 0, 1), stage, plan.remaining(stage, 0, 1))

    def _delete_image(self, job: Job) -> None:
        try:
            self._images.delete(job.image_name)
        except ServiceError as error:  # the janitor finds it with its row
            _log.warning("the image of job %s stays: %s", job.id, error)

    def _delete_artifact(self, name: str) -> None:
        try:
            self._artifacts.delete(name)
        except ServiceError as error:  # the janitor finds it as an orphan
            _log.warning("a file without a job stays: %s", error)


def known_metadata(job: Job, request: GenerationRequest) -> JobMetadata:
    """Return what is known of a run when it begins."""
    queued = None if job.started_at is None else max(0.0, (job.started_at - job.created_at).total_seconds())
    return JobMetadata(
        format=request.format,
        target_faces=request.target_faces,
        seed=request.seed,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        octree_resolution=request.octree_resolution,
        quality=request.quality,
        seconds=StageSecondsOut(queued=queued),
    )


def with_shape(metadata: JobMetadata, shape: ShapeMetadata) -> JobMetadata:
    """Return the metadata with what the pipeline says that it did."""
    found: dict[str, object] = {
        "vertices": shape.vertices,
        "faces": shape.faces,
        "faces_found": shape.faces_found,
        "parts": shape.parts,
        "watertight": shape.watertight,
        "steps": shape.num_inference_steps,
        "guidance_scale": shape.guidance_scale,
        "octree_resolution": shape.octree_resolution,
        "model": shape.model,
        "batch_size": shape.batch_size,
        "background": shape.background,
        "fallbacks": shape.fallbacks,
    }
    if shape.acceleration is not None:
        found["acceleration"] = AccelerationOut(
            mode=shape.acceleration, evaluations=shape.evaluations, without=shape.evaluations_needed
        )
    stages = {stage: getattr(shape.seconds, stage) for stage in _MODEL_STAGES}
    given = {name: value for name, value in found.items() if value is not None}
    return metadata.model_copy(update={**given, "seconds": metadata.seconds.model_copy(update=stages)})


def unnamed_error(error: Exception, job: Job) -> ServiceError:
    """Return the job's error for a failure that is no ServiceError; the log has the rest."""
    _log.error("job %s failed", job.id, exc_info=error)
    if isinstance(error, MemoryError):
        return OutOfMemory("The worker ran out of memory; lower the quality or send a smaller picture.")
    return GenerationError()


def _since(job: Job, now: datetime) -> float | None:
    return None if job.started_at is None else max(0.0, (now - job.started_at).total_seconds())
