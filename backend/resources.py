"""What web processes and workers share: the job table, the files, the registry of workers, and what sweeps them.

Nothing runs before `start`. This module does not know HTTP, Celery, or how a job is run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from backend.auth.nonces_sql import SqlNonceStore
from backend.config import Settings
from backend.jobs.changes import Changes
from backend.jobs.cutouts import CutoutTable
from backend.jobs.janitor import Janitor
from backend.jobs.models import Clock, QueueObserver
from backend.jobs.notifier import Notifier
from backend.jobs.store import JobStore
from backend.jobs.webhooks import WebhookTable
from backend.jobs.worker_registry import WorkerRegistry
from backend.periodic import PeriodicTask, utc_now
from backend.runner.processor_protocol import ShapeProcessor
from backend.storage.artifacts import ArtifactStore
from backend.storage.database import Database
from backend.storage.files import FileStore, open_files
from backend.storage.migrations import open_migrated
from backend.telemetry.tracing import Traces, open_traces


@dataclass(frozen=True, eq=False)
class Resources:
    """What one process shares with all others; open it after a fork, not before.

    reminder : notifies of jobs that wait although nobody was notified or nobody came, and of runs that died
    traces : take in what requests and runs were
    """

    clock: Clock
    database: Database
    store: JobStore
    images: FileStore
    artifacts: ArtifactStore
    cutouts: CutoutTable
    webhooks: WebhookTable
    registry: WorkerRegistry
    janitor: PeriodicTask
    reminder: PeriodicTask
    traces: Traces

    @classmethod
    def open(
        cls,
        settings: Settings,
        notifier: Notifier,
        *,
        clock: Clock = utc_now,
        observer: QueueObserver | None = None,
        changes: Changes | None = None,
        traces: Traces | None = None,
    ) -> Resources:
        """Open what the settings describe, with the job tables made.

        notifier : what the reminder notifies; observer, changes : as JobStore's
        traces : in place of what the environment's variables for OpenTelemetry describe
        Raises ConfigurationError, SchemaMismatch, StoreUnavailable, StorageFull.
        """
        traces = traces or open_traces(os.environ)
        images = open_files(settings.files_url, "inputs")
        artifacts = ArtifactStore(open_files(settings.files_url, "artifacts"))
        database = open_migrated(settings.database_url)
        # A clock of a test is only moved, never set.
        monotonic = time.monotonic if clock is utc_now else None
        attempts = settings.max_attempts
        store = JobStore(
            database, clock, max_attempts=attempts, observer=observer, changes=changes, monotonic=monotonic
        )
        ttl = timedelta(hours=settings.artifact_ttl_hours)
        cutouts = CutoutTable(database, artifacts, clock, ttl)
        webhooks = WebhookTable(database, clock)
        prunables = [SqlNonceStore(database), cutouts, webhooks]
        janitor = Janitor(store, artifacts, images, clock, ttl, prunables=prunables)

        def remind() -> None:
            if store.has_work():
                notifier.notify()

        return cls(
            clock=clock,
            database=database,
            store=store,
            images=images,
            artifacts=artifacts,
            cutouts=cutouts,
            webhooks=webhooks,
            registry=WorkerRegistry(database, clock),
            janitor=PeriodicTask("janitor", settings.sweep_seconds, janitor.run_once),
            # Twice as often as the sweep: a dead run is to go on within SWEEP_SECONDS after its lease, start included.
            reminder=PeriodicTask("reminder", settings.sweep_seconds / 2, remind),
            traces=traces,
        )

    def start(self) -> None:
        """Begin to remove what is over, and to notify of what waits."""
        self.janitor.start()
        self.reminder.start()

    def stop(self) -> None:
        """End that, and close the job table."""
        self.reminder.stop()
        self.janitor.stop()
        self.database.close()
        self.traces.stop()


def model_opener(settings: Settings) -> Callable[[], ShapeProcessor]:
    """Return what gives the loaded model that the settings name, the same at every call; loads nothing yet."""

    def open_processor() -> ShapeProcessor:
        # Here, because it imports torch, which a process without a worker never needs.
        from backend.batch_inference_extension import add_batch_inference_to_processor
        from backend.hunyuan_integration import get_3d_processor

        return add_batch_inference_to_processor(get_3d_processor(settings))

    return open_processor
