"""The rooms of one process, opened and connected: what the web side hands requests to, and the worker beside it.

Nothing runs before `start`. This module does not know HTTP or what the rooms do.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from backend.agent_auth import AgentGuard
from backend.artifacts import ArtifactStore
from backend.batch_processor import BatchProcessor
from backend.config import Settings
from backend.database import Database
from backend.doorbell import Doorbell, LocalDoorbell, SilentDoorbell
from backend.files import FileStore, open_files
from backend.health import HealthReader
from backend.janitor import Janitor, JanitorThread
from backend.job_store import JobStore
from backend.jobs import Clock
from backend.metrics import ServiceMetrics
from backend.nonce_choice import open_nonce_store
from backend.nonce_store import SqlNonceStore
from backend.nonces import NonceStore
from backend.shape_processor import ShapeProcessor
from backend.worker_registry import WorkerRegistry


def utc_now() -> datetime:
    """The present."""
    return datetime.now(UTC)


@dataclass(frozen=True, eq=False)
class AgentServices:
    """What one process has; open it after a fork, not before.

    worker : None where other processes run the jobs
    sync_slots : requests that may wait for their mesh at once, so that threads are left for all others
    stopping : set when the process is about to end and nobody should wait for anything any more
    """

    settings: Settings
    clock: Clock
    database: Database
    store: JobStore
    guard: AgentGuard
    pictures: FileStore
    artifacts: ArtifactStore
    registry: WorkerRegistry
    doorbell: Doorbell
    worker: BatchProcessor | None
    janitor: JanitorThread
    metrics: ServiceMetrics
    health: HealthReader
    sync_slots: threading.Semaphore
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        clock: Clock = utc_now,
        open_processor: Callable[[], ShapeProcessor] | None = None,
    ) -> AgentServices:
        """The rooms that the settings describe, with the job tables made.

        open_processor : gives the loaded model, in place of the one that the settings name
        Raises ConfigurationError, AgentsFileError, SchemaMismatch, StoreUnavailable, StorageFull.
        """
        database = Database.open(settings.database_url)
        store = JobStore(database, clock, max_attempts=settings.max_attempts)
        store.create_schema()
        pictures = open_files(settings.files_url, "inputs")
        artifacts = ArtifactStore(open_files(settings.files_url, "artifacts"))
        registry = WorkerRegistry(database, clock)
        nonces = open_nonce_store(settings, database)
        metrics, health = ServiceMetrics(), HealthReader(store, registry)
        metrics.watch(health.read, clock)
        own_bell = LocalDoorbell()
        make_worker = partial(
            BatchProcessor, store, open_processor or _opener(settings), pictures, artifacts, settings, clock
        )
        worker = (
            make_worker(doorbell=own_bell, registry=registry, metrics=metrics, on_broken=end_this_process)
            if settings.worker_enabled
            else None
        )
        return cls(
            settings=settings,
            clock=clock,
            database=database,
            store=store,
            guard=AgentGuard.from_settings(settings, nonces, clock),
            pictures=pictures,
            artifacts=artifacts,
            registry=registry,
            doorbell=own_bell if worker else _bell_of_others(settings),
            worker=worker,
            janitor=JanitorThread(
                _janitor(settings, store, artifacts, pictures, nonces, clock), settings.sweep_seconds
            ),
            metrics=metrics,
            health=health,
            sync_slots=threading.BoundedSemaphore(max(1, settings.web_threads // 2)),
        )

    def start(self) -> None:
        """Begin to run jobs, if this process does, and to clear away what is over."""
        if self.worker is not None:
            self.worker.start()
        self.janitor.start()

    def begin_stop(self) -> None:
        """Take no more jobs to run, and let nobody wait; at once, and safe in a signal handler."""
        self.stopping.set()
        if self.worker is not None:
            self.worker.drain()

    def stop(self) -> None:
        """Let what runs finish within DRAIN_SECONDS or hand it back, and close everything."""
        self.begin_stop()
        if self.worker is not None:
            self.worker.stop()
        self.janitor.stop()
        self.database.close()


def end_this_process() -> None:
    """Ask this process to end in good order, so that whoever watches it starts a new one."""
    os.kill(os.getpid(), signal.SIGTERM)


def _janitor(
    settings: Settings,
    store: JobStore,
    artifacts: ArtifactStore,
    pictures: FileStore,
    nonces: NonceStore,
    clock: Clock,
) -> Janitor:
    # The others forget by themselves.
    memories = [nonces] if isinstance(nonces, SqlNonceStore) else []
    ttl = timedelta(hours=settings.artifact_ttl_hours)
    return Janitor(store, artifacts, pictures, clock, ttl, memories=memories)


def _bell_of_others(settings: Settings) -> Doorbell:
    if not settings.broker_url:
        return SilentDoorbell()
    from backend.celery_app import make_celery
    from backend.celery_doorbell import CeleryDoorbell

    return CeleryDoorbell(make_celery(settings))


def _opener(settings: Settings) -> Callable[[], ShapeProcessor]:
    def open_processor() -> ShapeProcessor:
        # Here, because it imports torch, which a process without a worker never needs.
        from backend.batch_inference_extension import add_batch_inference_to_processor
        from backend.hunyuan_integration import get_3d_processor

        return add_batch_inference_to_processor(get_3d_processor(settings))

    return open_processor
