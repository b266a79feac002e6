"""From a shape the device is done with to a finished job: mesh, file, and one guarded write to the job table.

Every job is recorded by itself, on any thread. While storage is away the write is tried again; a result whose job has
moved on is thrown away with its file. This module does not know how the shape was made.
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
from backend.jobs.metadata import JobMetadata, StageSecondsOut
from backend.jobs.models import Clock, Job
from backend.jobs.progress import StageTimes
from backend.jobs.store import JobStore
from backend.runner.heartbeat import Ending, Heartbeats, Run
from backend.runner.processor_protocol import PendingShape
from backend.runner.watchdog import Watchdog
from backend.storage.artifacts import ArtifactStore
from backend.storage.files import FileStore
from backend.telemetry.worker_metrics_protocol import CANCELLED, COMPLETED, LEASE_LOST, RELEASED, WorkerMetrics
from backend.validation import GenerationRequest

if TYPE_CHECKING:
    import trimesh

    from backend.hunyuan3d.results import ShapeMetadata

_log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 4.0
_MODEL_STAGES = ("preprocess", "encode", "sample", "decode", "mesh")
_OUTCOMES = {Ending.CANCELLED: CANCELLED, Ending.RELEASED: RELEASED, Ending.LOST: LEASE_LOST}
Out = TypeVar("Out")


class JobRecorder:
    """Ends runs: with a file, an error, or not at all when they are no longer this worker's."""

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
        *,
        retry_policy: float = 30.0,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """patience : seconds for which file storage may be away before a run is handed back.

        alarm : bounds the drawing of meshes and files, but not the waiting for storage
        """
        self._store = store
        self._images = images
        self._artifacts = artifacts
        self._clock = clock
        self._times = times
        self._metrics = metrics
        self._watchdog = watchdog
        self._patience = retry_policy
        self._pause = pause
        self._heartbeats = heartbeats

    def finish(self, run: Run, request: GenerationRequest, pending: PendingShape) -> None:
        """Draws the mesh, stores the file and completes the job; or fails it with the error that was met."""
        metadata = known(run.job, request)
        try:
            self._step(run, "mesh")
            if run.over:
                return
            with self._watchdog.bounded():
                result = pending.finish()
            metadata = described(metadata, result.metadata)
            mesh = result.unwrap()
            self._complete(run, request, mesh, metadata)
        except ServiceError as error:
            self.fail(run, error, metadata)
        except Exception as error:  # noqa: BLE001 - the job's edge: recorded as its failure
            self.fail(run, unnamed(error, run.job), metadata)

    def fail(self, run: Run, error: ServiceError, metadata: JobMetadata | None) -> None:
        """Records a job's own failure."""
        if run.end(Ending.RECORDED):
            text = None if metadata is None else metadata.to_json()
            recorded = self._record(run, lambda: self._store.fail(run.job, error, text))
            self._over(run, error.code, recorded)

    def over(self, run: Run) -> None:
        """Cleans up after a run that the heartbeats ended."""
        if run.ending is Ending.CANCELLED:
            self._forget_image(run.job)
        self._metrics.job_finished(_OUTCOMES.get(run.ending or Ending.LOST, LEASE_LOST))

    def patiently(self, run: Run, action: Callable[[], Out]) -> Out:
        """The action's answer; tried again while file storage is away and the run goes on.

        Raises ArtifactStoreUnavailable when that lasts.
        """
        until = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return action()
            except ArtifactStoreUnavailable:
                if run.over or time.monotonic() >= until:
                    raise
                self._pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def hand_back(self, run: Run) -> None:
        """Gives up a run that could not go on through no fault of its own."""
        run.end(Ending.RELEASED)
        self._heartbeats.wake()

    def _complete(self, run: Run, request: GenerationRequest, mesh: trimesh.Trimesh, metadata: JobMetadata) -> None:
        from backend.hunyuan3d.mesh.export import export_mesh, exported_bounds, exported_unit

        self._step(run, "export")
        started = time.perf_counter()
        fmt, scale = request.format, request.scale_mm
        with self._watchdog.bounded():
            data = export_mesh(mesh, fmt, scale_mm=scale)
            bounds = exported_bounds(mesh, fmt, scale_mm=scale)
        if run.over:
            return
        try:
            artifact = self.patiently(run, lambda: self._artifacts.write(data, fmt))
        except ArtifactStoreUnavailable:
            _log.exception("the file of job %s could not be stored", run.job.id, extra={"job_id": run.job.id})
            self.hand_back(run)
            return
        export = time.perf_counter() - started
        now = self._clock()
        facts = metadata.model_copy(
            update={
                "bounds": bounds,
                "unit": exported_unit(fmt, scale),
                "file_size": len(data),
                "seconds": metadata.seconds.model_copy(update={"export": export, "total": _since(run.job, now)}),
            }
        )
        self._keep(run, artifact, facts)

    def _keep(self, run: Run, artifact: str, metadata: JobMetadata) -> None:
        if not run.end(Ending.RECORDED):
            self._forget_artifact(artifact)
            return
        text = metadata.to_json()
        recorded = self._record(run, lambda: self._store.complete(run.job, artifact, text), artifact)
        if recorded is False:
            self._forget_artifact(artifact)
        if recorded:
            seconds = metadata.seconds.model_dump(exclude_none=True)
            self._times.note(run.job.batch_key, seconds)
            for stage, value in seconds.items():
                self._metrics.observe_stage(stage, value)
        self._over(run, COMPLETED, recorded)

    def _record(self, run: Run, write: Callable[[], Job], artifact: str | None = None) -> bool | None:
        """Whether the table has it: False when the job has moved on, None when that is not known."""
        pause = _FIRST_PAUSE
        uncertain = False
        while True:
            try:
                write()
                return True
            except LeaseLost:
                return uncertain and self._stayed(run.job, artifact)
            except (StoreUnavailable, StorageFull) as error:
                # The connection may have broken after the write: then the next try is refused.
                uncertain = True
                if self._heartbeats.past_deadline:
                    _log.error("job %s could not be recorded: %s", run.job.id, error, extra={"job_id": run.job.id})
                    return None
                self._pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except Exception:  # noqa: BLE001 - the job's edge: its lease ends, and the run counts as one that died
                _log.exception("job %s could not be recorded", run.job.id, extra={"job_id": run.job.id})
                return None

    def _stayed(self, job: Job, artifact: str | None) -> bool:
        """Whether the write that seemed to fail is in the table after all."""
        try:
            row = self._store.get(job.id, job.agent_id)
        except JobNotFound:
            return False
        return row.fence == job.fence and row.status.finished and row.artifact == artifact

    def _over(self, run: Run, outcome: str, recorded: bool | None) -> None:
        self._heartbeats.drop(run)
        if recorded:
            self._forget_image(run.job)
            self._metrics.job_finished(outcome)
        elif recorded is False:
            _log.warning("the late result of job %s was thrown away", run.job.id, extra={"job_id": run.job.id})
            self._metrics.job_finished(LEASE_LOST)

    def _step(self, run: Run, stage: str) -> None:
        plan = self._times.plan(run.job.batch_key)
        run.note(plan.progress(stage, 0, 1), stage, plan.remaining(stage, 0, 1))

    def _forget_image(self, job: Job) -> None:
        try:
            self._images.delete(job.image_name)
        except ServiceError as error:  # the janitor finds it with its row
            _log.warning("the picture of job %s stays: %s", job.id, error, extra={"job_id": job.id})

    def _forget_artifact(self, name: str) -> None:
        try:
            self._artifacts.delete(name)
        except ServiceError as error:  # the janitor finds it as an orphan
            _log.warning("a file without a job stays: %s", error)


def known(job: Job, request: GenerationRequest) -> JobMetadata:
    """What is known of a run when it begins."""
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


def described(metadata: JobMetadata, shape: ShapeMetadata) -> JobMetadata:
    """With what the pipeline says that it did."""
    found = {
        "vertices": shape.vertices,
        "faces": shape.faces,
        "watertight": shape.watertight,
        "steps": shape.num_inference_steps,
        "guidance_scale": shape.guidance_scale,
        "octree_resolution": shape.octree_resolution,
        "model": shape.model,
        "batch_size": shape.batch_size,
        "background": shape.background,
        "fallbacks": shape.fallbacks,
    }
    stages = {stage: getattr(shape.seconds, stage) for stage in _MODEL_STAGES}
    given = {name: value for name, value in found.items() if value is not None}
    return metadata.model_copy(update={**given, "seconds": metadata.seconds.model_copy(update=stages)})


def unnamed(error: Exception, job: Job) -> ServiceError:
    """A failure that has no name yet as the job's error; the log has the rest."""
    _log.error("job %s failed", job.id, exc_info=error, extra={"job_id": job.id})
    if isinstance(error, MemoryError):
        return OutOfMemory("The worker ran out of memory; lower the quality or send a smaller picture.")
    return GenerationError()


def _since(job: Job, now: datetime) -> float | None:
    return None if job.started_at is None else max(0.0, (now - job.started_at).total_seconds())
