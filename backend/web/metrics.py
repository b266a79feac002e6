"""What Prometheus may ask: requests, the queue, batches, stages, the device, failures.

One registry for each app. Counts are this process's own; the queue and the devices are everybody's, read when asked.
This module does not know who counts when, or who may ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from backend.errors import RateLimited, ServiceError
from backend.jobs import Clock
from backend.web.health import Health
from backend.work.worker_metrics import CANCELLED, COMPLETED, LEASE_LOST, RELEASED
from backend.work.worker_registry import WorkerState

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_ANSWER_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_STAGE_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_NOT_FAILED = (COMPLETED, CANCELLED, LEASE_LOST, RELEASED)


class ServiceMetrics:
    """Counts for one app; a worker_metrics.WorkerMetrics and a web_frame.RequestCounter. Any thread may call it."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._requests = Counter(
            "orfeas_requests", "Requests answered.", ("route", "method", "status", "code"), registry=registry
        )
        self._latency = Histogram(
            "orfeas_request_seconds", "Seconds to an answer.", ("route",), buckets=_ANSWER_SECONDS, registry=registry
        )
        self._limited = Counter("orfeas_rate_limited", "Requests refused with 429.", ("route",), registry=registry)
        self._batches = Histogram(
            "orfeas_batch_size", "Pictures in one device call.", buckets=_BATCH_SIZES, registry=registry
        )
        self._stages = Histogram(
            "orfeas_stage_seconds", "Seconds of a job's stage.", ("stage",), buckets=_STAGE_SECONDS, registry=registry
        )
        self._runs = Counter("orfeas_runs", "Runs of jobs that ended.", ("outcome",), registry=registry)
        self._failures = Counter("orfeas_job_failures", "Jobs that failed.", ("code",), registry=registry)

    def watch(self, read_health: Callable[[], Health], clock: Clock) -> None:
        """From now on tell also of the queue and the devices; once for each registry."""
        self._registry.register(_StateCollector(read_health, clock))

    def exposition(self) -> bytes:
        """Everything, as CONTENT_TYPE says."""
        return generate_latest(self._registry)

    def request_answered(self, route: str, method: str, status: int, code: str, seconds: float) -> None:
        """See RequestCounter."""
        # A caller makes up routes and methods; only those that exist become names in the registry's memory.
        known = method if route else "other"
        self._requests.labels(route or "none", known, str(status), code).inc()
        self._latency.labels(route or "none").observe(seconds)
        if status == RateLimited.status:
            self._limited.labels(route or "none").inc()

    def observe_batch(self, size: int) -> None:
        """See WorkerMetrics."""
        self._batches.observe(size)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """See WorkerMetrics."""
        self._stages.labels(stage).observe(seconds)

    def job_finished(self, outcome_code: str) -> None:
        """See WorkerMetrics."""
        self._runs.labels(outcome_code).inc()
        if outcome_code not in _NOT_FAILED:
            self._failures.labels(outcome_code).inc()


class _StateCollector(Collector):
    """The queue and the devices, read when Prometheus asks."""

    def __init__(self, read_health: Callable[[], Health], clock: Clock) -> None:
        self._read_health = read_health
        self._clock = clock

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: what is described beforehand would have to be read beforehand."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges; only that the store is away, when it is."""
        up = GaugeMetricFamily("orfeas_store_up", "Whether the job table can be read.")
        try:
            health = self._read_health()
        except ServiceError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _queue_gauges(health, self._clock())
        yield from _device_gauges(health.workers)


def _queue_gauges(health: Health, now: datetime) -> Iterator[GaugeMetricFamily]:
    counts = health.counts
    oldest = counts.oldest_queued_at
    waited = max(0.0, (now - oldest).total_seconds()) if oldest else 0.0
    yield GaugeMetricFamily("orfeas_queue_jobs", "Jobs that wait.", counts.queued)
    yield GaugeMetricFamily("orfeas_active_jobs", "Jobs that run.", counts.processing)
    yield GaugeMetricFamily("orfeas_queue_oldest_seconds", "How long the oldest waiting job has waited.", waited)


def _device_gauges(workers: tuple[WorkerState, ...]) -> Iterator[GaugeMetricFamily]:
    condition = GaugeMetricFamily("orfeas_workers", "Workers alive.", labels=("condition",))
    names = [state.condition.value for state in workers]
    for name in sorted(set(names)):
        condition.add_metric([name], names.count(name))
    yield condition
    memory = GaugeMetricFamily("orfeas_device_memory_bytes", "Memory of a device.", labels=("worker", "kind"))
    for state in workers:
        if state.memory_total is not None:
            memory.add_metric([state.owner, "total"], state.memory_total)
        if state.memory_free is not None:
            memory.add_metric([state.owner, "free"], state.memory_free)
    yield memory
