"""What Prometheus may ask of a service: its requests, the work it does, the queue, the workers and their devices.

One for each app. Counts are of this process, or of all processes of the service when they are shared; the queue and the
devices are everybody's, read when asked. This module does not know who counts when, or who may ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from backend.errors import ServiceError
from backend.jobs.health import Health
from backend.jobs.models import Clock
from backend.jobs.webhooks import Backlog
from backend.jobs.worker_registry import WorkerState, WorkerStatus
from backend.telemetry.counters import CounterFamily, HistogramFamily
from backend.telemetry.worker_metrics import PrometheusMetrics

_REQUESTS = CounterFamily("orfeas_requests", "Requests answered.", ("route", "method", "status", "code"))
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_LATENCY = HistogramFamily("orfeas_request_seconds", "Seconds to an answer.", _SECONDS, ("route",))
_FIRST_BYTE = HistogramFamily(
    "orfeas_first_byte_seconds",
    "Seconds from the whole head of a request until its answer began, the wait for a thread included.",
    _SECONDS,
    ("kind",),
)
_LIMITED = CounterFamily("orfeas_rate_limited", "Requests refused with 429.", ("route",))


class ServiceMetrics(PrometheusMetrics):
    """Count for one app; a request_context.RequestCounter too. Any thread may call it."""

    def __init__(self) -> None:
        super().__init__(_REQUESTS, _LATENCY, _FIRST_BYTE, _LIMITED)

    def watch(
        self, read_health: Callable[[], Health], clock: Clock, read_backlog: Callable[[], Backlog] | None = None
    ) -> None:
        """Show the queue, the devices and the webhooks, too, from now on; once for each app."""
        self._registry.register(_StateCollector(read_health, clock, read_backlog))

    def expect_requests(self, answers: Iterable[tuple[str, str, int, str]]) -> None:
        """Show these, and what is refused with 429, as 0 until they happen; answers : route, method, status, code."""
        for route, method, status, code in answers:
            self._tally.expect(_REQUESTS.steps(route, method, str(status), code))
            if status == 429:
                self._tally.expect(_LIMITED.steps(route))

    def request_answered(self, route: str, method: str, status: int, code: str, seconds: float) -> None:
        """Count it, as RequestCounter says."""
        # A caller makes up routes and methods; only those that exist become names that are kept.
        known = method if route else "other"
        counted = _REQUESTS.steps(route or "none", known, str(status), code)
        self._tally.add(chain(counted, _LATENCY.steps(seconds, route or "none")))
        if status == 429:
            self._tally.add(_LIMITED.steps(route or "none"))

    def answer_began(self, *, small: bool, seconds: float) -> None:
        """Count it, as RequestCounter says."""
        self._tally.add(_FIRST_BYTE.steps(seconds, "small" if small else "other"))


class _StateCollector(Collector):
    """The queue and the devices, read when Prometheus asks."""

    def __init__(
        self, read_health: Callable[[], Health], clock: Clock, read_backlog: Callable[[], Backlog] | None
    ) -> None:
        self._read_health = read_health
        self._read_backlog = read_backlog
        self._clock = clock

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing: what is described beforehand would have to be read beforehand."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges, or only that the job table is away when it is."""
        up = GaugeMetricFamily("orfeas_store_up", "Whether the job table can be read.")
        try:
            health = self._read_health()
            backlog = self._read_backlog() if self._read_backlog else Backlog(0, None)
        except ServiceError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        now = self._clock()
        yield from _queue_gauges(health, now)
        yield from _webhook_gauges(backlog, now)
        yield from _device_gauges(health.workers)


def _queue_gauges(health: Health, now: datetime) -> Iterator[GaugeMetricFamily]:
    counts = health.counts
    oldest = counts.oldest_queued_at
    waited = max(0.0, (now - oldest).total_seconds()) if oldest else 0.0
    full = "Whether the disk of the answering process has no room for more."
    yield GaugeMetricFamily("orfeas_disk_full", full, int(health.disk_full))
    yield GaugeMetricFamily("orfeas_queue_jobs", "Jobs that wait.", counts.queued)
    yield GaugeMetricFamily("orfeas_active_jobs", "Jobs that run.", counts.processing)
    yield GaugeMetricFamily("orfeas_queue_oldest_seconds", "How long the oldest waiting job has waited.", waited)


def _webhook_gauges(backlog: Backlog, now: datetime) -> Iterator[GaugeMetricFamily]:
    late = max(0.0, (now - backlog.due_at).total_seconds()) if backlog.due_at else 0.0
    pending = "Webhooks to be sent, those among them that wait to be tried again."
    yield GaugeMetricFamily("orfeas_webhooks_pending", pending, backlog.pending)
    yield GaugeMetricFamily("orfeas_webhooks_overdue_seconds", "For how long a webhook is due that nobody sends.", late)


def _device_gauges(workers: tuple[WorkerState, ...]) -> Iterator[GaugeMetricFamily]:
    # `condition` is the label's old name and has the same value.
    alive = GaugeMetricFamily("orfeas_workers", "Workers alive.", labels=("status", "condition"))
    # Statuses without a worker too: an alert needs a 0 to see.
    for status in WorkerStatus:
        alive.add_metric([status.value, status.value], sum(state.status is status for state in workers))
    yield alive
    memory = GaugeMetricFamily("orfeas_device_memory_bytes", "Memory of a device.", labels=("worker", "kind"))
    for state in workers:
        if state.memory_total is not None:
            memory.add_metric([state.owner, "total"], state.memory_total)
        if state.memory_free is not None:
            memory.add_metric([state.owner, "free"], state.memory_free)
    yield memory
