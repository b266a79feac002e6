"""The resources of one process, opened and connected: what requests are handed to, and the worker beside it.

Nothing runs before `start`. This module does not know HTTP, or what the resources do.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path

from backend.agent_auth import AgentGuard
from backend.auth.link_keys import SqlLinkKeys
from backend.auth.links import SignedLinks
from backend.auth.nonces import open_nonce_store
from backend.auth.wait_slots import WaitSlots
from backend.batch_processor import BatchProcessor
from backend.config import Settings
from backend.errors import ServiceStopping
from backend.hunyuan3d.checkpoint.defaults import configured_resolution, configured_views
from backend.hunyuan3d.octree_resolutions import Resolutions
from backend.jobs.changes import Changes
from backend.jobs.cutouts import CutoutTable
from backend.jobs.health import HealthReader
from backend.jobs.models import Clock
from backend.jobs.notifier import LocalNotifier, Notifier, Notifiers
from backend.jobs.outlook import Outlooks
from backend.jobs.removal import cancel_jobs
from backend.jobs.store import JobStore
from backend.jobs.watch import JobWatch
from backend.jobs.webhooks import WebhookTable
from backend.jobs.worker_registry import WorkerRegistry
from backend.outgoing import Outgoing
from backend.periodic import PeriodicTask, utc_now
from backend.resources import Resources, model_opener
from backend.runner.processor_protocol import ShapeProcessor
from backend.runner.watchdog import Watchdog
from backend.storage.artifacts import ArtifactStore
from backend.storage.database import Database
from backend.storage.disk_space import full_folder
from backend.storage.files import FileStore
from backend.storage.wakeups import Wakeups
from backend.telemetry.service_metrics import ServiceMetrics
from backend.telemetry.tracing import Traces
from backend.validation import workload_of

_AGENTS_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Draining:
    """Whether a process is on its way to its end, and since when."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._begun = threading.Event()

    def begin(self) -> None:
        """Say so, once; safe in a signal handler of a thread that does not `wait`."""
        if self.since is None:
            self.since = time.monotonic()
        self._begun.set()

    def wait(self) -> None:
        """Wait until it is so."""
        self._begun.wait()


@dataclass(frozen=True, eq=False)
class AgentServices:
    """What one process has; open it after a fork, not before.

    worker : None where other processes run the jobs
    watchdog : what bounds the worker's calls, once start() has begun it
    agents_task : cancels what agents that were removed have left, and writes what the audit log has summed
    watch : wakes who waits for a job; wait_slots : for how many calls it may, those that wait for their mesh among them
    stream_slots : for how many streams of events there is room, which keep no thread
    at_start : called when jobs are begun to run, at_end : when nobody should wait for anything any more
    draining : set when this process is to end, but goes on answering until what runs here is done
    outgoing : calls the addresses that callers name
    stopping : set when nobody should wait for anything any more, because the process ends now
    """

    settings: Settings
    resources: Resources
    guard: AgentGuard
    links: SignedLinks
    notifier: Notifier
    worker: BatchProcessor | None
    watchdog: Watchdog
    metrics: ServiceMetrics
    health: HealthReader
    outlooks: Outlooks
    agents_task: PeriodicTask
    watch: JobWatch
    wait_slots: WaitSlots
    stream_slots: WaitSlots
    at_start: list[Callable[[], None]] = field(default_factory=list)
    at_end: list[Callable[[], None]] = field(default_factory=list)
    outgoing: Outgoing = field(default_factory=Outgoing)
    draining: Draining = field(default_factory=Draining)
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        clock: Clock = utc_now,
        open_processor: Callable[[], ShapeProcessor] | None = None,
        traces: Traces | None = None,
    ) -> AgentServices:
        """Open what the settings describe, with the job tables made.

        open_processor : gives the loaded model, in place of the one that the settings name
        traces : as Resources.open's
        Raises ConfigurationError, AgentsFileError, SchemaMismatch, StoreUnavailable, StorageFull.
        """
        local_notifier = LocalNotifier()
        notifier = _notifier(settings, local_notifier)
        metrics, changes = ServiceMetrics(), Changes()
        resources = Resources.open(settings, notifier, clock=clock, observer=metrics, changes=changes, traces=traces)
        health = HealthReader(resources.store, resources.registry, disk_full=partial(_disk_is_full, _folders(settings)))
        metrics.watch(health.read, clock, resources.webhooks.backlog)
        links = _links(settings, resources)
        guard = AgentGuard.from_settings(settings, open_nonce_store(settings, resources.database), clock, links)
        watchdog = Watchdog(settings.batch_seconds)
        with_resources = partial(BatchProcessor.with_resources, resources, open_processor or model_opener(settings))
        worker = None
        if settings.worker_enabled:
            metrics.watch_gpus()
            worker = with_resources(
                settings, notifier=local_notifier, metrics=metrics, on_broken=end_this_process, watchdog=watchdog
            )
        wakeups = Wakeups(settings.database_url, changes.hear)
        return cls(
            settings=settings,
            resources=resources,
            guard=guard,
            links=links,
            notifier=notifier,
            worker=worker,
            watchdog=watchdog,
            metrics=metrics,
            health=health,
            watch=JobWatch(resources.store, changes),
            wait_slots=WaitSlots(settings.agent_waits, settings.web_waiting // 2),
            stream_slots=WaitSlots(settings.agent_waits, settings.web_waiting),
            outlooks=Outlooks(resources.store, health.read, workload_of, changes, clock),
            agents_task=_agents_task(guard, resources, min(_AGENTS_SECONDS, settings.sweep_seconds)),
            at_start=[wakeups.start],
            at_end=[wakeups.stop],
        )

    @property
    def clock(self) -> Clock:
        """What returns the present."""
        return self.resources.clock

    @property
    def database(self) -> Database:
        """Where the job table is."""
        return self.resources.database

    @property
    def store(self) -> JobStore:
        """The job table."""
        return self.resources.store

    @property
    def images(self) -> FileStore:
        """What came in."""
        return self.resources.images

    @property
    def artifacts(self) -> ArtifactStore:
        """What was made."""
        return self.resources.artifacts

    @property
    def cutouts(self) -> CutoutTable:
        """What was cut out alone."""
        return self.resources.cutouts

    @property
    def webhooks(self) -> WebhookTable:
        """What is sent to agents of their jobs' ends."""
        return self.resources.webhooks

    @property
    def registry(self) -> WorkerRegistry:
        """Which workers are alive."""
        return self.resources.registry

    def resolutions(self) -> Resolutions:
        """Return the octree resolutions of the model: as a worker says that is ready, else as its configuration does.

        Raises StoreUnavailable.
        """
        own = self.health.read().octree_resolution or self._configured_resolution
        return Resolutions(own, self.settings.max_octree_resolution)

    def takes_views(self) -> bool:
        """Return whether the model takes several views of an object, as `resolutions` knows it.

        Raises StoreUnavailable.
        """
        found = self.health.read().takes_views
        return self._configured_views if found is None else found

    @cached_property
    def _configured_views(self) -> bool:
        return configured_views(self.settings.model_path, self.settings.model_subfolder)

    @cached_property
    def _configured_resolution(self) -> int:
        return configured_resolution(self.settings.model_path, self.settings.model_subfolder)

    def start(self, *, alone: bool = False, on_ready: Callable[[], None] | None = None) -> None:
        """Begin to run jobs, if this process does, and to clear away what is over.

        alone : the process is the service's own, and is ended when a batch outlasts BATCH_SECONDS; whoever watches it
            starts a new one
        on_ready : called once jobs can be taken, on the worker's thread if this process has one
        """
        if self.worker is not None:
            if alone:
                self.watchdog.begin()
            self.worker.start(on_ready)
        self.resources.start()
        self.agents_task.start()
        for begin in self.at_start:
            begin()
        if self.worker is None and on_ready is not None:
            on_ready()

    def require_worker(self, began: float) -> None:
        """See that a job of a request would be run, here or elsewhere, or by a worker that is started for it.

        began : time.monotonic() at the request's beginning; what began before a drain is still taken, to wait in the
            queue for the next start
        Raises GpuBusy, ServiceStopping, StoreUnavailable.
        """
        if self.draining.since is None:
            if not self.settings.workers_on_demand:
                self.health.require_worker(own_worker=self.worker is not None)
        elif began > self.draining.since and not self._others_are_ready():
            raise ServiceStopping

    def _others_are_ready(self) -> bool:
        own = self.worker.owner if self.worker is not None else None
        return any(state.owner != own for state in self.health.read_anew().ready)

    def begin_drain(self, seconds: float | None = None) -> None:
        """Take no more jobs to run; what runs has so long, by default DRAIN_SECONDS.

        A drain that goes on is only made shorter by this. Returns at once; safe in a signal handler.
        """
        if self.worker is not None:
            self.worker.drain(seconds)
        self.draining.begin()

    def call_when_drained(self, then: Callable[[], None]) -> None:
        """Call this, on a thread that begins now, once a drain has begun and nothing runs here any more.

        Requests go on until then, so that callers can follow and fetch what is still made.
        """

        def run() -> None:
            self.draining.wait()
            if self.worker is not None:
                logger.info("No new jobs are taken; what runs has up to %.0f s.", self.settings.drain_seconds)
                self.worker.finish()
            self._end_waits()
            then()

        threading.Thread(target=run, name="drain", daemon=True).start()

    def _end_waits(self) -> None:
        self.stopping.set()
        for end in self.at_end:
            end()
        self.watch.stop()

    def stop(self) -> None:
        """Let what runs finish within DRAIN_SECONDS or hand it back, and close everything."""
        self.begin_drain()
        self._end_waits()
        if self.worker is not None:
            self.worker.stop()
        self.agents_task.stop()
        self.guard.write_audit_sums(all_of_them=True)
        self.resources.stop()


def _links(settings: Settings, resources: Resources) -> SignedLinks:
    keys = SqlLinkKeys(resources.database, resources.clock)
    lifetime = timedelta(seconds=settings.link_ttl_seconds)
    return SignedLinks(keys, resources.store.files.owner_of, resources.clock, lifetime)


def _agents_task(guard: AgentGuard, resources: Resources, seconds: float) -> PeriodicTask:
    """Return what follows the agents: the jobs of those that were removed, and what the audit log has summed."""

    def tend() -> None:
        guard.write_audit_sums()
        cancel_jobs(resources.store, resources.images, guard.removed_agents())

    return PeriodicTask("agents", seconds, tend)


def end_this_process() -> None:
    """Ask this process to end in good order, so that whoever watches it starts a new one."""
    os.kill(os.getpid(), signal.SIGTERM)


def _folders(settings: Settings) -> list[Path]:
    """Return where this process writes: what lies in an object store is not on a disk of ours."""
    files = Path(settings.files_url)
    return [settings.data_dir, files] if files.is_dir() else [settings.data_dir]


def _disk_is_full(folders: Sequence[Path]) -> bool:
    return full_folder(folders) is not None


def _notifier(settings: Settings, own: Notifier) -> Notifier:
    """Wakes the worker of this process, if it has one, and those beyond the broker, if there is one."""
    notifiers: list[Notifier] = [own] if settings.worker_enabled else []
    if settings.broker_url:
        from backend.worker.celery_app import make_celery
        from backend.worker.celery_notifier import CeleryNotifier

        notifiers.append(CeleryNotifier(make_celery(settings)))
    return Notifiers(*notifiers)
