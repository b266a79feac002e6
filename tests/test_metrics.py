"""What Prometheus is told: numbers asserted as its own parser reads them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from backend.api.error_reference import JOBS
from backend.errors import NoForeground, StoreUnavailable
from backend.jobs.health import Health
from backend.jobs.models import QueueCounts
from backend.jobs.webhooks import Backlog
from backend.jobs.worker_registry import WorkerState, WorkerStatus
from backend.telemetry.service_metrics import ServiceMetrics
from backend.telemetry.worker_metrics import PrometheusMetrics
from tests.support.agent_service import API, AgentService, agent_service, image
from tests.support.exposition import metric
from tests.support.fake_gpu import FakeCall
from tests.support.workshop import eventually

START_MINUTES = timedelta(minutes=5)


def scraped(service: AgentService) -> bytes:
    response = service.app.test_client().get("/metrics")
    assert response.status_code == 200
    page: bytes = response.data
    return page


def test_a_fresh_service_shows_every_known_failure_as_0(tmp_path: Path) -> None:
    """An alert on growth sees nothing when a number appears as 1: its first failure would be missed."""
    with agent_service(tmp_path) as service:
        text = scraped(service)
    failures = set(JOBS) - {"CANCELLED", "WORKER_STOPPED"}
    for code in (*failures, "STORAGE_FULL", "STORAGE_UNAVAILABLE", "INTERNAL_ERROR"):
        assert metric(text, "orfeas_job_failures_total", code=code) == 0, code
        assert metric(text, "orfeas_runs_total", outcome=code) == 0, code
    for outcome in ("COMPLETED", "CANCELLED", "LEASE_LOST", "RELEASED", "DIED"):
        assert metric(text, "orfeas_runs_total", outcome=outcome) == 0
    for route, method in ((f"{API}/status/<job_id>", "GET"), (f"{API}/generate-3d", "POST")):
        for status, code in (("500", "INTERNAL_ERROR"), ("503", "STORE_UNAVAILABLE"), ("507", "STORAGE_FULL")):
            found = metric(text, "orfeas_requests_total", route=route, method=method, status=status, code=code)
            assert found == 0, (route, code)
        assert metric(text, "orfeas_rate_limited_total", route=route) == 0
    refused = {"route": f"{API}/batch", "method": "POST", "status": "503"}
    for code in ("GPU_BUSY", "QUEUE_FULL", "SERVICE_STOPPING"):
        assert metric(text, "orfeas_requests_total", code=code, **refused) == 0


def test_a_fresh_worker_shows_every_known_failure_as_0() -> None:
    text = PrometheusMetrics().exposition()
    assert metric(text, "orfeas_job_failures_total", code="OUT_OF_MEMORY") == 0
    assert metric(text, "orfeas_runs_total", outcome="DIED") == 0


def test_requests_are_counted_by_route_and_code(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        for name in ("0" * 32, "1" * 32):
            service.get(f"/status/{name}")
        service.get("/jobs")
        service.app.test_client().get(f"{API}/made-up/by/somebody")
        text = scraped(service)
    route = f"{API}/status/<job_id>"
    assert metric(text, "orfeas_requests_total", route=route, method="GET", status="404", code="JOB_NOT_FOUND") == 2
    assert metric(text, "orfeas_requests_total", route=f"{API}/jobs", status="200", code="") == 1
    assert metric(text, "orfeas_requests_total", route="none", method="other", code="NOT_FOUND") == 1
    assert metric(text, "orfeas_request_seconds_count", route=route) == 2
    assert b"made-up" not in text


def test_made_up_methods_and_paths_take_no_memory(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        client = service.app.test_client()
        client.get("/first")
        size = scraped(service).count(b"\n")
        for k in range(20):
            client.open(f"/path-{k}", method=f"METHOD{k}")
        assert scraped(service).count(b"\n") - size <= 40
        assert b"METHOD" not in scraped(service)


def test_refused_rates_are_counted(tmp_path: Path) -> None:
    with agent_service(tmp_path, max_active_jobs=1) as service:
        service.submit()
        assert service.generate().status_code == 429
        text = scraped(service)
    assert metric(text, "orfeas_rate_limited_total", route=f"{API}/generate-3d") == 1


def test_batches_stages_and_failures_are_counted(tmp_path: Path) -> None:
    def spoil(call: FakeCall) -> None:
        service.fake.errors.update(dict.fromkeys(call.images, NoForeground()))

    with agent_service(tmp_path, running=True) as service:
        service.made()
        service.fake.before_call = spoil
        assert service.generate(image()).status_code == 422
        eventually(lambda: metric(scraped(service), "orfeas_runs_total", outcome="NO_FOREGROUND") == 1)
        text = scraped(service)
    assert metric(text, "orfeas_runs_total", outcome="COMPLETED") == 1
    assert metric(text, "orfeas_job_failures_total", code="NO_FOREGROUND") == 1
    assert metric(text, "orfeas_job_failures_total", code="COMPLETED") is None
    assert metric(text, "orfeas_batch_size_count") == 2
    assert metric(text, "orfeas_stage_seconds_count", stage="sample") is not None


def test_queue_and_devices_are_told(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        service.submit()
        service.clock.advance(90)
        service.submit()
        state = WorkerState("w", WorkerStatus.READY, "m", "cuda", "GPU", 100, 40)
        service.services.registry.beat(state, 60)
        text = scraped_fresh(service)
    assert metric(text, "orfeas_store_up") == 1
    assert metric(text, "orfeas_queue_jobs") == 2
    assert metric(text, "orfeas_active_jobs") == 0
    assert metric(text, "orfeas_queue_oldest_seconds") == 90
    assert metric(text, "orfeas_workers", status="ready", condition="ready") == 1
    assert metric(text, "orfeas_workers", status="failed", condition="failed") == 0
    assert metric(text, "orfeas_device_memory_bytes", worker="w", kind="total") == 100
    assert metric(text, "orfeas_device_memory_bytes", worker="w", kind="free") == 40


def scraped_fresh(service: AgentService) -> bytes:
    """Return what a registry of its own shows of the service now, whatever was read a moment ago."""
    metrics = ServiceMetrics()
    metrics.watch(service.services.health.read, service.clock)
    return metrics.exposition()


def test_store_that_is_away_is_told_and_breaks_nothing(tmp_path: Path) -> None:
    def away() -> Health:
        raise StoreUnavailable

    with agent_service(tmp_path) as service:
        metrics = ServiceMetrics()
        metrics.watch(away, service.clock)
        text = metrics.exposition()
    assert metric(text, "orfeas_store_up") == 0
    assert metric(text, "orfeas_queue_jobs") is None
    assert metric(text, "process_resident_memory_bytes") is not None


def test_runs_that_died_and_jobs_that_waited_too_long_are_counted(tmp_path: Path) -> None:
    with agent_service(tmp_path, max_attempts=1) as service:
        job_id = service.submit()
        store = service.services.store
        (leased,) = store.lease("doomed", 1, 0)
        assert leased.id == job_id
        store.reclaim()
        service.submit()
        store.expire_queued(service.clock())
        text = scraped(service)
    assert metric(text, "orfeas_runs_total", outcome="DIED") == 1
    assert metric(text, "orfeas_job_failures_total", code="GENERATION_FAILED") == 1
    assert metric(text, "orfeas_job_failures_total", code="EXPIRED") == 1


def test_webhooks_that_nobody_sends_are_seen(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        now, metrics = service.clock(), ServiceMetrics()
        backlog = Backlog(2, now - START_MINUTES)
        metrics.watch(lambda: Health(QueueCounts(0, 0, None), ()), service.clock, lambda: backlog)
        text = metrics.exposition()
        assert metric(scraped(service), "orfeas_webhooks_pending") == 0
    assert metric(text, "orfeas_webhooks_pending") == 2
    assert metric(text, "orfeas_webhooks_overdue_seconds") == 300


@pytest.mark.parametrize("waiting", [0, 3])
def test_oldest_job_is_as_old_as_it_is(tmp_path: Path, waiting: int) -> None:
    with agent_service(tmp_path) as service:
        now = service.clock()
        oldest = now - START_MINUTES if waiting else None
        metrics = ServiceMetrics()
        metrics.watch(lambda: Health(QueueCounts(waiting, 0, oldest), ()), service.clock)
        text = metrics.exposition()
    assert metric(text, "orfeas_queue_oldest_seconds") == (300 if waiting else 0)


def test_the_devices_share_is_what_it_was_busy_of_what_it_was_wanted() -> None:
    metrics = PrometheusMetrics()
    assert metric(metrics.exposition(), "orfeas_device_busy_share") is None
    metrics.observe_device(3.0, 4.0)
    metrics.observe_device(1.5, 2.0)
    text = metrics.exposition()
    assert metric(text, "orfeas_device_busy_seconds_total") == 4.5
    assert metric(text, "orfeas_device_wanted_seconds_total") == 6.0
    assert metric(text, "orfeas_device_busy_share") == 0.75
