"""One batch of leased jobs through the device: images in, pending shapes out, each handed over as its call ends.

When a call fails as a whole, every image runs by itself, and only the one that is at fault fails. This module does not
know how jobs are leased or recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from backend.errors import (
    ArtifactNotFound,
    ArtifactStoreUnavailable,
    DeviceLost,
    ImageLost,
    InvalidImage,
    ServiceError,
)
from backend.hunyuan3d.options import Defaults, ImageOptions
from backend.jobs.progress import STAGES
from backend.jobs.stage_times import StageTimes, Workload
from backend.runner.descriptions import known_metadata
from backend.runner.device_times import DeviceTimes
from backend.runner.heartbeat import Ending, Run
from backend.runner.look_ahead import LookAhead
from backend.runner.processor_protocol import PendingShape, ShapeProcessor, ShapeProgress
from backend.runner.result_recorder import ResultRecorder, unnamed_error
from backend.runner.stored_images import read_stored
from backend.runner.watchdog import Watchdog
from backend.storage.files import FileStore
from backend.telemetry.logs import log_context
from backend.telemetry.worker_metrics import WorkerMetrics
from backend.validation import GenerationRequest

_log = logging.getLogger(__name__)


class _AllOver(Exception):
    """Nobody waits any more for what the device is doing."""


@dataclass(frozen=True, eq=False)
class Task:
    """A run with what it is to make: options says what the model is to do, request also what is asked of the file.

    candidate : which of its shapes it is, from 0
    """

    run: Run
    request: GenerationRequest
    options: ImageOptions
    candidate: int = 0

    @classmethod
    def all_of(cls, run: Run, defaults: Defaults) -> list[Task]:
        """Return the tasks of a run on a checkpoint with these defaults: one for each of its candidates.

        Raises RequestUnreadable, InvalidParameter.
        """
        request = GenerationRequest.from_json(run.job.request)
        options = request.options(defaults)
        return [cls(run, request, replace(options, seed=seed), index) for index, seed in enumerate(request.seeds)]

    @property
    def workload(self) -> Workload:
        """What decides how long it takes."""
        return self.request.workload(self.options.generation.num_inference_steps)


HandOver = Callable[[Task, PendingShape], None]


class BatchRunner:
    """Run jobs that may share a device call, one batch at a time."""

    def __init__(
        self,
        images: FileStore,
        recorder: ResultRecorder,
        times: StageTimes,
        metrics: WorkerMetrics,
        watchdog: Watchdog,
        device_times: DeviceTimes,
        look_ahead: LookAhead,
    ) -> None:
        """Keep what every batch needs.

        watchdog : bounds the device calls of each batch, all together
        look_ahead : prepares images beside a batch, where the processor wants that
        """
        self._images = images
        self._recorder = recorder
        self._times = times
        self._metrics = metrics
        self._watchdog = watchdog
        self._device_times = device_times
        self._look_ahead = look_ahead

    def run(self, processor: ShapeProcessor, tasks: Sequence[Task], capacity: int, hand_over: HandOver) -> None:
        """Give each task's pending shape to hand_over, or end its run; a bad image's as soon as it is known to be bad.

        tasks : with equal generation options, all candidates of each run. capacity : how many images fit on the device
        together.
        Raises DeviceLost, and what isn't an Exception.
        """
        deadline = self._watchdog.deadline()
        loaded = {task.run: self._load(processor, task, deadline) for task in tasks if task.candidate == 0}
        images = {task: image for task in tasks if (image := loaded[task.run]) is not None}
        with self._looking_ahead(processor, tasks):
            self._run_all(processor, images, capacity, hand_over, deadline)

    def _looking_ahead(self, processor: ShapeProcessor, tasks: Sequence[Task]) -> AbstractContextManager[None]:
        """Prepare the next images meanwhile, but let nothing run beside a job whose next death would be its last."""
        if not processor.prepares_ahead or any(task.run.job.isolated for task in tasks):
            return nullcontext()
        return self._look_ahead.beside(processor)

    def _run_all(
        self,
        processor: ShapeProcessor,
        images: dict[Task, Any],
        capacity: int,
        hand_over: HandOver,
        deadline: float,
    ) -> None:
        """Run the images together; when that fails, each by itself. Bad ones are taken out on the way."""
        error = self._attempt(processor, images, capacity, hand_over, deadline)
        if error is None:
            return
        if len(images) > 1:
            _log.error("a batch of %d failed as a whole; each image runs by itself now", len(images), exc_info=error)
        for task, image in images.items():
            if len(images) > 1:
                error = self._attempt(processor, {task: image}, capacity, hand_over, deadline)
            if error is not None:
                self._fail(task, error)

    def _load(self, processor: ShapeProcessor, task: Task, deadline: float) -> Any | None:
        """Take a task's image as it was prepared, or read or draw it; where none is, end the run and return None."""
        run = task.run
        with log_context(run.job.id):
            if self._look_ahead.has(run.job):
                with self._watchdog.bounded(deadline):
                    prepared = self._look_ahead.take(run)
                if prepared is not None:
                    return prepared
            try:
                return self._recorder.retry(run, lambda: read_stored(self._images, run.job, task.request))
            except ArtifactNotFound:
                if task.request.prompt is not None:
                    return self._draw(processor, task, deadline)
                self._recorder.fail(run, ImageLost(), known_metadata(run.job, task.request))
            except InvalidImage as error:
                self._recorder.fail(run, error, known_metadata(run.job, task.request))
            except ArtifactStoreUnavailable:
                _log.exception("the image of job %s cannot be read", run.job.id)
                self._recorder.hand_back(run)
        return None

    def _draw(self, processor: ShapeProcessor, task: Task, deadline: float) -> bytes | None:
        """Draw a task's image and keep it, so that a run that comes again finds it; where it can't be, end the run."""
        run, request = task.run, task.request
        try:
            with self._watchdog.bounded(deadline):
                drawn = processor.draw_image(request.prompt or "", request.image_seed or 0)
            self._recorder.retry(run, lambda: self._images.put(run.job.image_name, drawn))
        except ArtifactStoreUnavailable:
            _log.exception("the image of job %s cannot be kept", run.job.id)
            self._recorder.hand_back(run)
        except Exception as error:  # noqa: BLE001 - the job's edge: recorded as its failure
            self._require_device(processor, [task], error)
            self._fail(task, error)
        else:
            return drawn
        return None

    def _attempt(
        self,
        processor: ShapeProcessor,
        images: dict[Task, Any],
        capacity: int,
        hand_over: HandOver,
        deadline: float,
    ) -> Exception | None:
        """Make one device call; return what it raised. Bad images are handed over, and taken out of the dict, before.

        Raises DeviceLost when the device is gone after that.
        """
        called = {task: image for task, image in images.items() if not task.run.over}
        if not called:
            return None

        def hand_over_refused(task: Task, shape: PendingShape) -> None:
            if images.pop(task, None) is not None:
                with log_context(task.run.job.id):
                    hand_over(task, shape)

        try:
            with self._watchdog.bounded(deadline), log_context(*(task.run.job.id for task in called)):
                shapes = self._call(processor, called, capacity, hand_over_refused)
        except _AllOver:
            return None
        except Exception as error:  # noqa: BLE001 - given back, to be recorded
            self._require_device(processor, list(called), error)
            return error
        finally:
            self._device_times.end()
            # Candidates may be more than fit together; then they take several turns.
            self._metrics.observe_batch(len(called), max(capacity, len(called)))
        for task, shape in zip(called, shapes, strict=True):
            if task in images:
                with log_context(task.run.job.id):
                    hand_over(task, shape)
        return None

    def _call(
        self, processor: ShapeProcessor, images: Mapping[Task, Any], capacity: int, on_refused: HandOver
    ) -> Sequence[PendingShape]:
        tasks = list(images)
        runs = [task.run for task in images]
        place = {run: index for index, run in enumerate(dict.fromkeys(runs))}
        plans = [self._times.plan(task.workload, len(images), place[task.run]) for task in images]
        for run, plan in zip(runs, plans, strict=True):
            run.note(plan, STAGES[0], 0, 1)

        def on_progress(progress: ShapeProgress) -> None:
            if progress.stage != STAGES[0] or progress.done >= progress.total:
                self._device_times.begin()
            if all(run.over for run in runs):
                raise _AllOver
            if progress.stage in STAGES:
                for index in progress.indices:
                    runs[index].note(plans[index], progress.stage, progress.done, progress.total)

        return processor.generate_shape_batch(
            list(images.values()),
            options=[task.options for task in images],
            capacity=capacity,
            on_progress=on_progress,
            on_refused=lambda index, shape: on_refused(tasks[index], shape),
            finish=False,
        )

    def _require_device(self, processor: ShapeProcessor, tasks: Sequence[Task], error: Exception) -> None:
        """See that the device still answers in this process; when it does not, no other job may be blamed.

        Raises DeviceLost.
        """
        try:
            processor.device_state()
        except Exception as silence:
            _log.error("the device is lost", exc_info=error)
            for task in tasks:
                task.run.end(Ending.ABANDONED)
            raise DeviceLost from silence

    def _fail(self, task: Task, error: Exception) -> None:
        job = task.run.job
        with log_context(job.id):
            named = error if isinstance(error, ServiceError) else unnamed_error(error, job)
            self._recorder.fail(task.run, named, known_metadata(job, task.request))
