"""One group of leased jobs through the device: pictures in, pending shapes out, each handed over as its call ends.

A call that blows up is taken apart: every picture runs alone, and only the guilty one fails. This module does not know
how jobs are leased or recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.errors import ArtifactNotFound, ArtifactStoreUnavailable, DeviceLost, ImageLost, ServiceError
from backend.jobs.progress import STAGES, StageTimes
from backend.runner.heartbeat import Ending, Run
from backend.runner.processor_protocol import PendingShape, ShapeProcessor, ShapeProgress
from backend.runner.result_recorder import JobRecorder, known, unnamed
from backend.runner.watchdog import Watchdog
from backend.storage.files import FileStore
from backend.telemetry.worker_metrics_protocol import WorkerMetrics
from backend.validation import GenerationRequest

_log = logging.getLogger(__name__)


class _AllOver(Exception):
    """Nobody waits any more for what the device is doing."""


@dataclass(frozen=True, eq=False)
class Task:
    """A run with what it is to make."""

    run: Run
    request: GenerationRequest


@dataclass(frozen=True, eq=False)
class _Loaded:
    task: Task
    image: bytes


HandOver = Callable[[Task, PendingShape], None]


class GroupRunner:
    """Runs groups of jobs that may share a device call, one group at a time."""

    def __init__(
        self,
        images: FileStore,
        recorder: JobRecorder,
        times: StageTimes,
        metrics: WorkerMetrics,
        watchdog: Watchdog,
    ) -> None:
        """alarm : bounds the device calls of each group, all together."""
        self._images = images
        self._recorder = recorder
        self._times = times
        self._metrics = metrics
        self._watchdog = watchdog

    def run(self, processor: ShapeProcessor, tasks: Sequence[Task], hand_over: HandOver) -> None:
        """Gives each task's pending shape to hand_over, or ends its run.

        tasks : with equal octree resolution, steps and guidance. Raises DeviceLost, and what isn't an Exception.
        """
        group = [loaded for loaded in map(self._load, tasks) if loaded is not None]
        deadline = self._watchdog.deadline()
        error = self._attempt(processor, group, hand_over, deadline)
        if error is None:
            return
        if len(group) == 1:
            self._blame(group[0].task, error)
            return
        _log.error("a batch of %d failed as a whole; each runs alone now", len(group), exc_info=error)
        for loaded in group:
            error = self._attempt(processor, [loaded], hand_over, deadline)
            if error is not None:
                self._blame(loaded.task, error)

    def _load(self, task: Task) -> _Loaded | None:
        run = task.run
        try:
            return _Loaded(task, self._recorder.patiently(run, lambda: self._read(run.job.image_name)))
        except ArtifactNotFound:
            metadata = known(run.job, task.request)
            self._recorder.fail(run, ImageLost(), metadata)
        except ArtifactStoreUnavailable:
            _log.exception("the picture of job %s cannot be read", run.job.id, extra={"job_id": run.job.id})
            self._recorder.hand_back(run)
        return None

    def _read(self, name: str) -> bytes:
        with self._images.open(name) as stream:
            return stream.read()

    def _attempt(
        self, processor: ShapeProcessor, group: Sequence[_Loaded], hand_over: HandOver, deadline: float
    ) -> Exception | None:
        """One device call; what it raised. Raises DeviceLost when the device is gone after that."""
        group = [loaded for loaded in group if not loaded.task.run.over]
        if not group:
            return None
        try:
            with self._watchdog.bounded(deadline):
                shapes = self._call(processor, group)
        except _AllOver:
            return None
        except Exception as error:  # noqa: BLE001 - given back, to be recorded
            self._require_device(processor, group, error)
            return error
        finally:
            self._metrics.observe_batch(len(group))
        for loaded, shape in zip(group, shapes, strict=True):
            hand_over(loaded.task, shape)
        return None

    def _call(self, processor: ShapeProcessor, group: Sequence[_Loaded]) -> Sequence[PendingShape]:
        runs = [loaded.task.run for loaded in group]
        requests = [loaded.task.request for loaded in group]
        plan = self._times.plan(runs[0].job.batch_key)

        def on_progress(progress: ShapeProgress) -> None:
            if all(run.over for run in runs):
                raise _AllOver
            if progress.stage in STAGES:
                where = (progress.stage, progress.done, progress.total)
                for place in progress.places:
                    runs[place].note(plan.progress(*where), _words(*where), plan.remaining(*where))

        return processor.generate_shape_batch(
            [loaded.image for loaded in group],
            seeds=[request.seed for request in requests],
            num_inference_steps=requests[0].inference_steps(processor.defaults.num_inference_steps),
            guidance_scale=requests[0].guidance_scale,
            octree_resolution=requests[0].octree_resolution,
            target_faces=[request.target_faces for request in requests],
            remove_background=[request.remove_background for request in requests],
            on_progress=on_progress,
            finish=False,
        )

    def _require_device(self, processor: ShapeProcessor, group: Sequence[_Loaded], error: Exception) -> None:
        """After some failures a device answers nothing any more in this process; then nobody else may be blamed."""
        try:
            processor.device_state()
        except Exception as silence:
            _log.error("the device is lost", exc_info=error)
            for loaded in group:
                loaded.task.run.end(Ending.ABANDONED)
            raise DeviceLost from silence

    def _blame(self, task: Task, error: Exception) -> None:
        named = error if isinstance(error, ServiceError) else unnamed(error, task.run.job)
        self._recorder.fail(task.run, named, known(task.run.job, task.request))


def _words(stage: str, done: int, total: int) -> str:
    """The step as its agent reads it."""
    return f"{stage} {done}/{total}" if total > 1 else stage
