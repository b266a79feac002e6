"""The rooms of one process, opened and connected: what the web side hands requests to, and the worker beside it.

Nothing runs before `start`. This module does not know HTTP or what the rooms do.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from backend.access.nonce_choice import open_nonce_store
from backend.agent_auth import AgentGuard
from backend.artifacts import ArtifactStore
from backend.batch_processor import BatchProcessor
from backend.config import Settings
from backend.job_store import JobStore
from backend.jobs import Clock
from backend.store.database import Database
from backend.store.files import FileStore
from backend.store.job_rooms import JobRooms, model_opener, utc_now
from backend.web.health import HealthReader
from backend.web.metrics import ServiceMetrics
from backend.work.doorbell import Doorbell, Doorbells, LocalDoorbell
from backend.work.run_alarm import RunAlarm
from backend.work.shape_processor import ShapeProcessor
from backend.work.worker_registry import WorkerRegistry


@dataclass(frozen=True, eq=False)
class AgentServices:
    """What one process has; open it after a fork, not before.

    worker : None where other processes run the jobs
    alarm : what bounds the worker's calls, once start() was told that it may
    sync_slots : requests that may wait for their mesh at once, so that threads are left for all others
    stopping : set when the process is about to end and nobody should wait for anything any more
    """

    settings: Settings
    rooms: JobRooms
    guard: AgentGuard
    doorbell: Doorbell
    worker: BatchProcessor | None
    alarm: RunAlarm
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
        own_bell = LocalDoorbell()
        bell = _bell(settings, own_bell)
        metrics = ServiceMetrics()
        rooms = JobRooms.open(settings, bell, clock=clock, losses=metrics)
        health = HealthReader(rooms.store, rooms.registry)
        metrics.watch(health.read, clock)
        guard = AgentGuard.from_settings(settings, open_nonce_store(settings, rooms.database), clock)
        worker, alarm = None, RunAlarm(settings.batch_seconds)
        if settings.worker_enabled:
            worker = BatchProcessor.in_rooms(
                rooms,
                open_processor or model_opener(settings),
                settings,
                doorbell=own_bell,
                metrics=metrics,
                on_broken=end_this_process,
                alarm=alarm,
            )
        return cls(
            settings=settings,
            rooms=rooms,
            guard=guard,
            doorbell=bell,
            worker=worker,
            alarm=alarm,
            metrics=metrics,
            health=health,
            sync_slots=threading.BoundedSemaphore(max(1, settings.web_threads // 2)),
        )

    @property
    def clock(self) -> Clock:
        """Gives the present."""
        return self.rooms.clock

    @property
    def database(self) -> Database:
        """Where the job table is."""
        return self.rooms.database

    @property
    def store(self) -> JobStore:
        """The job table."""
        return self.rooms.store

    @property
    def pictures(self) -> FileStore:
        """What came in."""
        return self.rooms.pictures

    @property
    def artifacts(self) -> ArtifactStore:
        """What was made."""
        return self.rooms.artifacts

    @property
    def registry(self) -> WorkerRegistry:
        """Which workers are alive."""
        return self.rooms.registry

    def start(self, *, alone: bool = False) -> None:
        """Begin to run jobs, if this process does, and to clear away what is over.

        alone : the process is the service's own, and is ended when a batch outlasts BATCH_SECONDS; whoever watches it
            starts a new one
        """
        if self.worker is not None:
            if alone:
                self.alarm.begin()
            self.worker.start()
        self.rooms.start()

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
        self.rooms.stop()


def end_this_process() -> None:
    """Ask this process to end in good order, so that whoever watches it starts a new one."""
    os.kill(os.getpid(), signal.SIGTERM)


def _bell(settings: Settings, own: Doorbell) -> Doorbell:
    """Wakes the worker of this process, if it has one, and those beyond the broker, if there is one."""
    bells: list[Doorbell] = [own] if settings.worker_enabled else []
    if settings.broker_url:
        from backend.work.celery_app import make_celery
        from backend.work.celery_doorbell import CeleryDoorbell

        bells.append(CeleryDoorbell(make_celery(settings)))
    return Doorbells(*bells)
