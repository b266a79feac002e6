"""The one child of a worker process: holds the model and the device, and runs jobs whenever it is notified.

When an image or a driver kills it, another takes its place; when its parent dies, it hands back what it has and ends.
This module does not know how a job is run, or who notifies it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from billiard.util import set_pdeathsig

from backend.auth.loopback import MetricsReaders
from backend.batch_processor import BatchProcessor
from backend.config import Settings
from backend.errors import DeviceLost, ServiceError
from backend.jobs.notifier import LocalNotifier
from backend.periodic import endless_retries
from backend.resources import Resources
from backend.runner.processor_protocol import ShapeProcessor
from backend.runner.watchdog import Watchdog
from backend.telemetry.metrics_server import MetricsServer
from backend.telemetry.worker_metrics import PrometheusMetrics, WorkerMetrics
from backend.worker.celery_app import GRACE_SECONDS, make_celery
from backend.worker.celery_notifier import CeleryNotifier
from backend.worker.parent_watch import ParentWatch

_START_RETRIES = endless_retries(1.0, 30.0)
_FLUSH_SECONDS = 2.0

logger = logging.getLogger(__name__)


class JobRunner:
    """The job table, the model, and the notifier that calls others to what is left to do."""

    def __init__(
        self,
        settings: Settings,
        resources: Resources,
        notifier: CeleryNotifier,
        open_processor: Callable[[], ShapeProcessor],
        watchdog: Watchdog,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        """Put the worker together; it does nothing yet.

        resources : closed by end(); notifier : wakes this worker and others; the others as BatchProcessor's
        """
        self._settings = settings
        self._notifier = notifier
        self._resources = resources
        self._processor = BatchProcessor.with_resources(
            resources, open_processor, settings, notifier=LocalNotifier(), metrics=metrics, watchdog=watchdog
        )
        self._draining = False

    def begin(self) -> None:
        """Sweep the job table from now on."""
        self._resources.start()

    def load(self) -> None:
        """Load the model. Raises what open_processor raises; may be called again then."""
        self._processor.load()

    def run_batch(self) -> int:
        """Run one batch of jobs; return their number. One notification becomes at most one other while jobs wait.

        Returns when the device is free, while meshes are still recorded: the next notification finds it so. Raises
        DeviceLost when only another process can go on.
        """
        try:
            if self._draining:
                self._pass_on()
                return 0
            # Before the run, so that another worker takes the rest meanwhile.
            handed_on = self._resources.store.counts().queued > self._settings.max_batch_size
            if handed_on:
                self._notifier.notify()
            taken = self._processor.run_batch()
            if taken and not handed_on:
                self._pass_on()
        except DeviceLost:
            self._notifier.notify()
            raise
        except ServiceError as error:
            logger.warning("No jobs can be run now (%s); the next notification tries again.", error.message)
            return 0
        return taken

    def _pass_on(self) -> None:
        if self._resources.store.has_work():
            self._notifier.notify()

    def drain(self, seconds: float) -> None:
        """Take no more jobs; what runs, on the device or on its way into a file, may go on for so long.

        Then it is handed back. Returns at once.
        """
        self._draining = True
        self._processor.drain(seconds)

    @property
    def is_late(self) -> bool:
        """Whether a drain's time is over: what runs still is being handed back."""
        return self._processor.is_late

    def end(self) -> None:
        """Finish what runs within what is left of the drain, or hand it back, and close everything.

        Celery ends the child as soon as the device is free: meshes are still being made then.
        """
        self._processor.stop()
        self._resources.stop()
        self._notifier.flush(_FLUSH_SECONDS)


class WorkerChild:
    """The child from its fork to its end; made in the parent, where it holds nothing."""

    def __init__(
        self, settings: Settings, parent_watch: ParentWatch, open_processor: Callable[[], ShapeProcessor]
    ) -> None:
        self._settings = settings
        self._parent_watch = parent_watch
        self._open_processor = open_processor
        self._runner: JobRunner | None = None
        self._ending = threading.Event()
        self._told_to_end = False
        # Celery's own time limit would have the child hand its jobs back, to hang in the next one.
        self._watchdog = Watchdog(settings.batch_seconds)
        self._metrics = PrometheusMetrics()
        self._metrics.watch_gpus()
        self._metrics_server = MetricsServer(
            settings.metrics_host,
            settings.metrics_port,
            MetricsReaders.from_settings(settings),
            self._metrics.exposition,
        )

    def begin(self) -> None:
        """Open the resources and load the model, however long either is away; returns early when it is to end."""
        # Celery would have the kernel kill this process with its parent, and each job would count a death.
        with suppress(OSError):
            set_pdeathsig(0)
        self._watchdog.begin()
        self._parent_watch.watch(self._stop)
        self._metrics_server.start()
        self._retry(self._open)
        self._retry(self._load)

    def work(self) -> None:
        """Run a batch for one notification. Ends the process when the device is lost, or it was told to meanwhile."""
        if self._runner is None:
            return
        try:
            with self._batch_comes_first(self._runner):
                self._runner.run_batch()
        except DeviceLost as error:
            logger.critical("%s This process ends; another takes its place.", error.message)
            self._runner.end()
            os._exit(1)

    def end(self) -> None:
        """Close what was opened."""
        if self._runner is not None:
            self._runner.end()
        self._metrics_server.stop()

    @contextmanager
    def _batch_comes_first(self, runner: JobRunner) -> Iterator[None]:
        """Have SIGTERM let the batch finish or be handed back, as it does in the parent, and end the process after it.

        Celery's handler raises SystemExit wherever this thread is. Within a call of the database that can become an
        error of the driver's: the process went on, and a job of its was left as if it had died.
        """

        def hear(number: int, _frame: object) -> None:
            if self._told_to_end or runner.is_late:
                signal.signal(number, before)
                signal.raise_signal(number)
            else:
                self._told_to_end = True
                # Not from here: what is to be told holds locks that this thread may have.
                self._parent_watch.ask()

        before = signal.signal(signal.SIGTERM, hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        # Where the parent ends, too, it ends its child in its own time.
        if self._told_to_end and not self._parent_watch.is_cut:
            signal.raise_signal(signal.SIGTERM)

    def _open(self) -> None:
        # A notifier of the child's own: connections are not shared across a fork.
        notifier = CeleryNotifier(make_celery(self._settings))
        resources = Resources.open(self._settings, notifier, observer=self._metrics)
        self._runner = JobRunner(
            self._settings, resources, notifier, self._open_processor, self._watchdog, self._metrics
        )
        self._runner.begin()

    def _load(self) -> None:
        if self._runner is not None:
            self._runner.load()

    def _stop(self, orphaned: bool) -> None:
        # Whoever starts a new worker instead of the dead one needs the device at once.
        seconds = 0.0 if orphaned else self._settings.drain_seconds
        if orphaned:
            logger.error("The worker's parent process has died; the child hands back what it runs, and ends.")
        self._ending.set()
        self._watchdog.end_within(seconds + GRACE_SECONDS)
        if self._runner is not None:
            self._runner.drain(seconds)

    def _retry(self, action: Callable[[], None]) -> None:
        """Do it again and again until it works or the process is to end."""
        for pause in _START_RETRIES.pauses():
            if self._ending.is_set():
                return
            try:
                action()
            except ServiceError as error:
                logger.error("The worker is not ready: %s Next try in %.0f s.", error.message, pause)
            except Exception:  # a driver may raise anything
                logger.exception("The worker is not ready. Next try in %.0f s.", pause)
            else:
                return
            self._ending.wait(pause)
