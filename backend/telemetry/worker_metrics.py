"""What Prometheus may ask of a process that runs jobs: batches, stages, runs, failures, and the process itself.

A worker process counts with PrometheusMetrics; a web process's metrics are more (service_metrics.py). This module does
not know who counts when, or who may ask.
"""

from __future__ import annotations

from itertools import chain
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from backend import errors
from backend.jobs.models import Job, Status
from backend.telemetry.counters import CounterFamily, Counts, HistogramFamily, ShareFamily, Tally
from backend.telemetry.gpu_metrics import GpuCollector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

COMPLETED = "COMPLETED"
CANCELLED = "CANCELLED"
LEASE_LOST = "LEASE_LOST"
RELEASED = "RELEASED"
DIED = "DIED"
_NOT_FAILED = (COMPLETED, CANCELLED, LEASE_LOST, RELEASED)

FAILURE_CODES = tuple(
    sorted(
        {
            kind.code
            for kind in (
                errors.ServiceError,
                errors.NoForeground,
                errors.NoSurface,
                errors.GenerationError,
                errors.NonFiniteValues,
                errors.OutOfMemory,
                errors.InvalidMesh,
                errors.DecimationFailed,
                errors.ExportError,
                errors.DeviceLost,
                errors.WorkerDied,
                errors.JobExpired,
                errors.ImageLost,
                errors.InvalidImage,
                errors.RequestUnreadable,
                errors.StorageFull,
                errors.ArtifactStoreUnavailable,
            )
        }
    )
)
"""What jobs are known to fail with; another code appears when it first happens."""

_BATCHES = HistogramFamily("orfeas_batch_size", "Images in one device call.", (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64))
_CAPACITY = CounterFamily("orfeas_batch_capacity", "Images that those device calls had room for.")
_STAGES = HistogramFamily(
    "orfeas_stage_seconds",
    "Seconds of a job's stage.",
    (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640),
    ("stage",),
)
_RUNS = CounterFamily("orfeas_runs", "Runs of jobs that ended.", ("outcome",))
_FAILURES = CounterFamily("orfeas_job_failures", "Jobs that failed.", ("code",))
_DEVICE_BUSY = CounterFamily("orfeas_device_busy_seconds", "Seconds in which the device had a batch's work.")
_DEVICE_WANTED = CounterFamily("orfeas_device_wanted_seconds", "Seconds in which jobs waited for the device or ran.")
_DEVICE_SHARE = ShareFamily(
    "orfeas_device_busy_share", "The first of these two in the second, since the start.", _DEVICE_BUSY, _DEVICE_WANTED
)


class WorkerMetrics(Protocol):
    """Count what a worker does; called from several threads, must be quick and never raise."""

    def observe_batch(self, size: int, capacity: int) -> None:
        """Count a device call that was given `size` images and had room for `capacity`."""

    def observe_device(self, busy: float, wanted: float) -> None:
        """Count a batch's seconds: in which the device had work, and in which jobs waited for it or ran."""

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Count how long a stage of one job took; stage : a field's name of jobs.metadata.StageSecondsOut."""

    def job_finished(self, outcome_code: str) -> None:
        """Count a run that ended: COMPLETED, CANCELLED, LEASE_LOST, RELEASED (it waits again), or its error's code."""


class NoMetrics:
    """Count nothing."""

    def observe_batch(self, size: int, capacity: int) -> None:
        """Do nothing."""

    def observe_device(self, busy: float, wanted: float) -> None:
        """Do nothing."""

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Do nothing."""

    def job_finished(self, outcome_code: str) -> None:
        """Do nothing."""


class PrometheusMetrics:
    """Count for a process that runs jobs; a WorkerMetrics and a QueueObserver. Any thread may call it."""

    def __init__(self, *others: CounterFamily | HistogramFamily) -> None:
        """Count from zero.

        others : families that are counted beside the work's own
        """
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)
        work = (_BATCHES, _CAPACITY, _STAGES, _RUNS, _FAILURES, _DEVICE_BUSY, _DEVICE_WANTED, _DEVICE_SHARE)
        self._tally = Tally((*work, *others))
        self._tally.expect(chain(*(_RUNS.steps(outcome) for outcome in (*_NOT_FAILED, DIED, *FAILURE_CODES))))
        self._tally.expect(chain(*(_FAILURES.steps(code) for code in FAILURE_CODES)))
        self._registry = CollectorRegistry()
        self._registry.register(self._tally)

    def exposition(self) -> bytes:
        """Return all numbers as the text that CONTENT_TYPE names."""
        return generate_latest(self._registry) + generate_latest(self._process)

    def watch_gpus(self) -> None:
        """Show this machine's GPUs, too, from now on; once, in a process that runs jobs."""
        self._registry.register(GpuCollector())

    def share(self, counts: Counts) -> None:
        """Count together with other processes from now on, and show nothing that is this one's alone."""
        self._tally.share(counts)
        self._process = CollectorRegistry()

    def observe_batch(self, size: int, capacity: int) -> None:
        """Count it, as WorkerMetrics says."""
        self._tally.add((*_BATCHES.steps(size), *_CAPACITY.steps(amount=capacity)))

    def observe_device(self, busy: float, wanted: float) -> None:
        """Count it, as WorkerMetrics says."""
        self._tally.add((*_DEVICE_BUSY.steps(amount=busy), *_DEVICE_WANTED.steps(amount=wanted)))

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Count it, as WorkerMetrics says."""
        self._tally.add(_STAGES.steps(seconds, stage))

    def job_finished(self, outcome_code: str) -> None:
        """Count it, as WorkerMetrics says."""
        self._tally.add(_RUNS.steps(outcome_code))
        if outcome_code not in _NOT_FAILED:
            self._tally.add(_FAILURES.steps(outcome_code))

    def run_died(self, job: Job) -> None:
        """Count it, as QueueObserver says."""
        self._tally.add(_RUNS.steps(DIED))
        if job.status is Status.FAILED:
            self._tally.add(_FAILURES.steps(job.error_code or ""))

    def wait_expired(self, job: Job) -> None:
        """Count it, as QueueObserver says."""
        self._tally.add(_FAILURES.steps(job.error_code or ""))
