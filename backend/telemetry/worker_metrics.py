"""What Prometheus may ask of who runs jobs: batches, stages, runs, failures, and the process itself.

A worker apart has one for itself; a web process's has more (service_metrics.py). This module does not know who
counts when, or who may ask.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from backend.jobs.models import Job, Status
from backend.telemetry.counters import CounterFamily, Counts, HistogramFamily, Tally
from backend.telemetry.worker_metrics_protocol import CANCELLED, COMPLETED, DIED, LEASE_LOST, RELEASED

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_NOT_FAILED = (COMPLETED, CANCELLED, LEASE_LOST, RELEASED)

_BATCHES = HistogramFamily("orfeas_batch_size", "Pictures in one device call.", (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64))
_STAGES = HistogramFamily(
    "orfeas_stage_seconds",
    "Seconds of a job's stage.",
    (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640),
    ("stage",),
)
_RUNS = CounterFamily("orfeas_runs", "Runs of jobs that ended.", ("outcome",))
_FAILURES = CounterFamily("orfeas_job_failures", "Jobs that failed.", ("code",))


class CountedWork:
    """Counts for a process that runs jobs; a WorkerMetrics and QueueObserver. Any thread may call it."""

    def __init__(self, *others: CounterFamily | HistogramFamily) -> None:
        """others : families that are counted beside the work's own."""
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)
        self._tally = Tally((_BATCHES, _STAGES, _RUNS, _FAILURES, *others))
        self._registry = CollectorRegistry()
        self._registry.register(self._tally)

    def exposition(self) -> bytes:
        """Everything, as CONTENT_TYPE says."""
        return generate_latest(self._registry) + generate_latest(self._process)

    def share(self, counts: Counts) -> None:
        """From now on count together with other processes, and tell nothing that is this one's alone."""
        self._tally.share(counts)
        self._process = CollectorRegistry()

    def observe_batch(self, size: int) -> None:
        """See WorkerMetrics."""
        self._tally.add(_BATCHES.steps(size))

    def observe_stage(self, stage: str, seconds: float) -> None:
        """See WorkerMetrics."""
        self._tally.add(_STAGES.steps(seconds, stage))

    def job_finished(self, outcome_code: str) -> None:
        """See WorkerMetrics."""
        self._tally.add(_RUNS.steps(outcome_code))
        if outcome_code not in _NOT_FAILED:
            self._tally.add(_FAILURES.steps(outcome_code))

    def run_died(self, job: Job) -> None:
        """See QueueObserver."""
        self._tally.add(_RUNS.steps(DIED))
        if job.status is Status.FAILED:
            self._tally.add(_FAILURES.steps(job.error_code or ""))

    def wait_expired(self, job: Job) -> None:
        """See QueueObserver."""
        self._tally.add(_FAILURES.steps(job.error_code or ""))
