"""A worker: leases jobs that may run together, runs them as one batch, and records each by itself.

While meshes are made, exported and recorded on other threads, the device goes on with the next batch. The job table is
the truth: a worker that dies leaves nothing behind but leases that end. This module does not know HTTP, what a model
is, or who notifies it of work.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial

from backend.config import Settings
from backend.errors import DeviceLost, ServiceError, StorageFull, StoreUnavailable
from backend.hunyuan3d.device.malloc import MemoryReturn, prepare_malloc
from backend.hunyuan3d.options import Defaults
from backend.jobs.models import Clock, Job
from backend.jobs.notifier import LocalNotifier
from backend.jobs.stage_times import MESHES_BEHIND, Measured, StageTimes, Workload
from backend.jobs.store import JobStore
from backend.jobs.worker_registry import WorkerRegistry, WorkerStatus
from backend.periodic import endless_retries
from backend.resources import Resources
from backend.runner.batch_runner import BatchRunner, Task
from backend.runner.device_times import DeviceTimes
from backend.runner.export_pool import ExportPool
from backend.runner.heartbeat import Ending, Heartbeats, Run
from backend.runner.look_ahead import LookAhead
from backend.runner.presence import Presence
from backend.runner.processor_protocol import PendingShape, Rehearsal, ShapeProcessor
from backend.runner.result_recorder import ResultRecorder
from backend.runner.thread_priority import run_after_others
from backend.runner.watchdog import Watchdog
from backend.storage.artifacts import ArtifactStore
from backend.storage.files import FileStore
from backend.telemetry.logs import log_context
from backend.telemetry.tracing import NoTraces, Traces
from backend.telemetry.worker_metrics import NoMetrics, WorkerMetrics

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 1.0
_LEASE_RETRIES = endless_retries(0.5, 8.0)
_LOAD_RETRIES = endless_retries(2.0, 60.0)
_GRACE_SECONDS = 5.0
_MOST_EXPORT_THREADS = 4


class _Batch:
    """The jobs of one device call, how many images fit into it, and which of them the device is done with."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.tasks: list[Task] = []
        self.capacity = 1
        self.handed_over: set[Run] = set()
        self._shapes: dict[Run, dict[int, PendingShape]] = defaultdict(dict)

    def longest_wait(self) -> float:
        """Return the seconds that its oldest job waited to be leased, the last time."""
        waits = [(run.job.started_at - run.job.created_at).total_seconds() for run in self.runs if run.job.started_at]
        return max(waits, default=0.0)

    def take(self, task: Task, shape: PendingShape) -> list[PendingShape]:
        """Take in a task's shape; return those of all its run's candidates once they are there, [] before."""
        shapes = self._shapes[task.run]
        shapes[task.candidate] = shape
        return [shapes[index] for index in sorted(shapes)] if len(shapes) == task.request.candidates else []

    def leave(self, ending: Ending) -> None:
        """End the runs that the device is not done with."""
        for run in self.runs:
            if run not in self.handed_over:
                run.end(ending)


class BatchProcessor:
    """One worker of a process: a device thread, export threads, and a thread that keeps its leases alive."""

    def __init__(
        self,
        store: JobStore,
        open_processor: Callable[[], ShapeProcessor],
        images: FileStore,
        artifacts: ArtifactStore,
        settings: Settings,
        clock: Clock,
        *,
        notifier: LocalNotifier,
        registry: WorkerRegistry,
        metrics: WorkerMetrics | None = None,
        owner: str | None = None,
        on_broken: Callable[[], None] | None = None,
        watchdog: Watchdog | None = None,
        traces: Traces | None = None,
    ) -> None:
        """Put the worker together; it does nothing yet.

        open_processor : gives the loaded model, the same at every call
        owner : the name that jobs are leased under, unique
        on_broken : called once, on the worker's thread, when the device no longer answers and only a new process can
            help (the service then ends itself and is started again)
        watchdog : bounds device calls and the making of meshes, once whoever owns the process has begun it
        """
        self._store = store
        self._open_processor = open_processor
        self._settings = settings
        self._notifier = notifier
        self._on_broken = on_broken
        self.owner = owner or f"{socket.gethostname()[:64]}-{os.getpid()}-{secrets.token_hex(4)}"
        counts = metrics or NoMetrics()
        threads = min(_MOST_EXPORT_THREADS, os.cpu_count() or 1)
        self._times = StageTimes(batch_size=settings.max_batch_size, threads=threads)
        self._heartbeats = Heartbeats(store, self.owner, settings.lease_seconds, self._clean_up)
        watchdog = watchdog or Watchdog(settings.batch_seconds)
        self._recorder = ResultRecorder(
            store, images, artifacts, self._heartbeats, clock, self._times, counts, watchdog, traces or NoTraces()
        )
        self._draining = False
        self._drained_at = math.inf
        self._device_times = DeviceTimes(counts)
        self._look_ahead = LookAhead(store, images, settings.max_batch_size, lambda: self._draining)
        self._runner = BatchRunner(
            images, self._recorder, self._times, counts, watchdog, self._device_times, self._look_ahead
        )
        self._exports = ExportPool(threads, MESHES_BEHIND * settings.max_batch_size)
        self._presence = Presence(registry, self.owner, self._times)
        self._memory = MemoryReturn()
        self._thread: threading.Thread | None = None

    @classmethod
    def with_resources(
        cls,
        resources: Resources,
        open_processor: Callable[[], ShapeProcessor],
        settings: Settings,
        *,
        notifier: LocalNotifier,
        metrics: WorkerMetrics | None = None,
        on_broken: Callable[[], None] | None = None,
        watchdog: Watchdog | None = None,
    ) -> BatchProcessor:
        """Make the worker of a process that has these resources, which stop() leaves open; the others as above."""
        return cls(
            resources.store,
            open_processor,
            resources.images,
            resources.artifacts,
            settings,
            resources.clock,
            notifier=notifier,
            registry=resources.registry,
            metrics=metrics,
            on_broken=on_broken,
            watchdog=watchdog,
            traces=resources.traces,
        )

    @property
    def status(self) -> WorkerStatus:
        """Whether it takes jobs."""
        return WorkerStatus.DRAINING if self._draining else self._presence.status

    @property
    def is_late(self) -> bool:
        """Whether a drain's time is over: what runs still is being handed back."""
        return self._heartbeats.past_deadline

    def start(self, on_ready: Callable[[], None] | None = None) -> None:
        """Begin, once, to work on a thread of its own: load the model first, trying again while that fails.

        on_ready : called on that thread once the model is loaded
        """
        if self._thread is None:
            prepare_malloc()
            self._thread = threading.Thread(target=self._serve, args=[on_ready], name="worker", daemon=True)
            self._thread.start()

    def load(self) -> None:
        """Enter this worker in the registry and load the model; for a caller of run_once or run_batch.

        Raises what open_processor raises. End with stop().
        """
        prepare_malloc()
        begun = time.monotonic()
        self._presence.loading()
        self._presence.start()
        try:
            processor = self._open_processor()
        except Exception as error:
            self._presence.failed(error)
            raise
        self._memory.freeze()
        self._times.default_steps = processor.defaults.num_inference_steps
        for rehearsal in processor.rehearsals:
            self._times.note(_rehearsed(rehearsal))
        self._device_times.ready()
        self._presence.ready(processor)
        _log.info("model %s is loaded, ready in %.1f s", processor.name, time.monotonic() - begun)

    def run_once(self) -> int:
        """Do as run_batch does, and wait until each job is recorded."""
        try:
            return self.run_batch()
        finally:
            self._exports.join()

    def run_batch(self) -> int:
        """Lease jobs that may run together and take them through the device; return their number.

        That is 0 when none wait, or when it drains. Returns when the device is free for the next batch, while meshes
        are still recorded; stop() waits for them. Not to be mixed with start(). Raises what open_processor raises;
        StoreUnavailable or StorageFull when nothing could be leased; DeviceLost when only a new process can go on.
        """
        return self._run_batch(self._open_processor())

    def drain(self, seconds: float | None = None) -> None:
        """Take no new jobs; what runs may go on for so long (default settings.drain_seconds), then it is handed back.

        A drain that goes on is made shorter by this, never longer. Returns at once; safe in a signal handler.
        """
        given = self._settings.drain_seconds if seconds is None else seconds
        self._drained_at = min(self._drained_at, time.monotonic() + given)
        self._heartbeats.release_at(self._drained_at)
        self._draining = True

    def finish(self, seconds: float | None = None) -> None:
        """Drain, and wait until nothing runs here any more: all is recorded or handed back. seconds : as drain's."""
        self.drain(seconds)
        self._presence.draining()
        self._look_ahead.stop()
        self._notifier.notify()
        if self._thread is not None:
            self._thread.join(self._drain_left() + _GRACE_SECONDS)
        self._exports.join(self._drain_left() + _GRACE_SECONDS)

    def _drain_left(self) -> float:
        # A drain may be made shorter meanwhile: its end is asked for anew before each wait.
        return max(0.0, self._drained_at - time.monotonic())

    def stop(self, timeout: float | None = None) -> None:
        """Drain for up to timeout seconds, as `drain` says, wait for it, end the threads."""
        self.finish(timeout)
        self._exports.stop()
        self._beat_now()
        self._heartbeats.stop(_GRACE_SECONDS)
        self._presence.stop()

    def _serve(self, on_ready: Callable[[], None] | None) -> None:
        run_after_others()
        if not self._load_until_it_works():
            return
        if on_ready is not None:
            on_ready()
        pauses = _LEASE_RETRIES.pauses()
        while not self._draining:
            try:
                taken = self._run_batch(self._open_processor())
            except DeviceLost as error:
                self._break(error)
                return
            except (StoreUnavailable, StorageFull) as error:
                _log.warning("no jobs can be leased: %s", error)
                self._sleep(next(pauses))
            except Exception:  # noqa: BLE001 - the thread's edge
                _log.exception("the worker met an unexpected error, and goes on")
                self._sleep(next(pauses))
            else:
                pauses = _LEASE_RETRIES.pauses()
                if not taken:
                    self._notifier.wait(_IDLE_SECONDS)

    def _load_until_it_works(self) -> bool:
        """Load the model, again and again; return False when it is to stop before that works."""
        pauses = _LOAD_RETRIES.pauses()
        while not self._draining:
            try:
                self.load()
            except Exception:  # noqa: BLE001 - the thread's edge
                pause = next(pauses)
                _log.exception("the model cannot be loaded; next try in %.0f s", pause)
                self._sleep(pause)
            else:
                return True
        return False

    def _run_batch(self, processor: ShapeProcessor) -> int:
        """Lease a batch and take it through the device; recording goes on after that."""
        batch = _Batch()
        if self._draining:
            return 0
        begun = self._device_times.now()
        try:
            self._gather(processor, batch)
            with self._isolated_if_it_must_be(batch):
                self._runner.run(processor, batch.tasks, batch.capacity, partial(self._hand_over, batch))
        except DeviceLost:
            batch.leave(Ending.RELEASED)
            raise
        except Exception:
            # Handed back it would not count, and a job that does this each time would run for ever.
            batch.leave(Ending.ABANDONED)
            raise
        except BaseException:
            batch.leave(Ending.RELEASED)
            self._beat_now()
            # It may have struck between a lease and its answer.
            with suppress(StoreUnavailable, StorageFull):
                self._store.release_unknown(self.owner, self._heartbeats.jobs())
            raise
        if batch.tasks:
            self._device_times.batch_done(begun, batch.longest_wait())
        return len(batch.runs)

    @contextmanager
    def _isolated_if_it_must_be(self, batch: _Batch) -> Iterator[None]:
        """Keep a job that may kill this process apart from meshes that are still being made, and from what follows.

        Also one that died with a killer beside it: the next death would be its last.
        """
        isolated = any(run.job.isolated for run in batch.runs)
        if isolated:
            self._exports.join()
            if not self._look_ahead.settle(self._settings.batch_seconds):
                raise DeviceLost
        yield
        if isolated:
            self._exports.join()

    def _gather(self, processor: ShapeProcessor, batch: _Batch) -> None:
        """Lease the job whose turn it is, and others that may run with it, waiting a little for those to come."""
        lease_seconds = self._settings.lease_seconds
        leased = self._store.lease(self.owner, 1, lease_seconds)
        if not leased or not self._admit(batch, leased, processor.defaults):
            return
        first, resolution = leased[0], batch.tasks[0].options.generation.octree_resolution
        batch.capacity = min(self._settings.max_batch_size, processor.batch_capacity(resolution))
        until = time.monotonic() + self._settings.batch_wait_seconds
        if first.isolated:
            return
        try:
            while (room := batch.capacity - len(batch.tasks)) > 0 and not self._draining:
                mates = self._store.lease(self.owner, room, lease_seconds, batch_mates_of=first)
                self._admit(batch, mates, processor.defaults)
                left = until - time.monotonic()
                if left <= 0:
                    return
                if len(batch.tasks) < batch.capacity:
                    self._notifier.wait(left)
        except (StoreUnavailable, StorageFull) as error:
            _log.warning("no batch mates can be leased: %s", error)

    def _admit(self, batch: _Batch, leased: list[Job], defaults: Defaults) -> bool:
        """Take leased jobs into the batch; one whose request can't be read fails. Returns whether any can run."""
        runs = [Run(job) for job in leased]
        batch.runs += runs
        self._heartbeats.hold(runs)
        before = len(batch.tasks)
        for run in runs:
            with log_context(run.job.id):
                _log.info("job %s begins", run.job.id, extra={"attempt": run.job.attempts})
                try:
                    batch.tasks += Task.all_of(run, defaults)
                except ServiceError as error:
                    self._recorder.fail(run, error, None)
        return len(batch.tasks) > before

    def _hand_over(self, batch: _Batch, task: Task, shape: PendingShape) -> None:
        shapes = batch.take(task, shape)
        if shapes:
            batch.handed_over.add(task.run)
            task.run.hand_over()
            self._exports.submit(partial(self._record, task, shapes), lambda: task.run.over)

    def _record(self, task: Task, shapes: Sequence[PendingShape]) -> None:
        try:
            later = self._recorder.record(task.run, task.request, shapes)
            if later is not None:
                self._exports.defer(later)
        finally:
            self._memory.after_work()

    def _break(self, error: DeviceLost) -> None:
        """Record what the lost device was done with still, and leave everything else to another process."""
        _log.critical("%s", error, exc_info=error)
        self._presence.failed(error)
        self._exports.join()
        self._beat_now()
        if self._on_broken is not None:
            self._on_broken()

    def _clean_up(self, run: Run) -> None:
        self._recorder.clean_up(run)

    def _beat_now(self) -> None:
        with suppress(StoreUnavailable, StorageFull):  # what stays undone ends with its lease
            self._heartbeats.tick()

    def _sleep(self, seconds: float) -> None:
        """Sleep in short pieces: drain() may be called in a signal handler, where nothing can be woken."""
        until = time.monotonic() + seconds
        while not self._draining and time.monotonic() < until:
            time.sleep(0.1)


def _rehearsed(rehearsal: Rehearsal) -> Measured:
    """Return what a warm-up took, of the stages that it went through."""
    metadata = rehearsal.metadata
    work = Workload(metadata.num_inference_steps or 1, metadata.octree_resolution or 1, metadata.target_faces)
    seconds = {**asdict(metadata.seconds), "finish": rehearsal.finish}
    taken = {stage: spent for stage, spent in seconds.items() if spent > 0}
    return Measured(work, taken, max(1, metadata.batch_size), metadata.evaluations, rehearsed=True)
