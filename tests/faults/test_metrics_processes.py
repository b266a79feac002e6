"""/metrics of many processes: web processes tell their sum, whoever dies; each worker tells of itself."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import create_server

import pytest

from benchmarks.support.ports import free_port
from tests.support.exposition import metric
from tests.support.faults.harness import FAKE_WORKER, WorkerHarness, worker_harness
from tests.support.faults.web_harness import until, web_service
from tests.support.redis_backend import redis_server
from tests.support.running import API, RunningService

pytestmark = pytest.mark.slow

JOBS = f"{API}/jobs"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    """Two web processes without a worker."""
    with web_service(tmp_path, processes=2, works=False, RATE_LIMIT_STORAGE_URL=redis_server().url) as made:
        yield made


def page(service: RunningService) -> bytes:
    answer = service.send("GET", "/metrics", {})
    assert answer.status == 200, answer.body
    return answer.body


def listed(service: RunningService) -> float:
    return metric(page(service), "orfeas_requests_total", route=JOBS, method="GET", status="200") or 0.0


def list_jobs(service: RunningService, count: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status for answer in pool.map(lambda _: service.get("/jobs"), range(count))} == {200}


def test_one_scrape_is_the_sum_and_the_queue_stands_in_it_once(service: RunningService) -> None:
    list_jobs(service, 60)
    # Whichever process answers, it tells the same.
    assert {listed(service) for _ in range(12)} == {60}
    text = page(service)
    assert text.count(b"\norfeas_queue_jobs ") == 1
    assert text.count(b'\norfeas_workers{condition="ready",status="ready"} 1.0') == 1
    assert metric(text, "orfeas_store_up") == 1
    assert metric(text, "orfeas_request_seconds_count", route=JOBS) == 60
    assert metric(text, "process_resident_memory_bytes") is None


def test_counts_stay_when_web_processes_die_or_are_exchanged(service: RunningService) -> None:
    list_jobs(service, 40)
    for k in range(1, 4):
        before = {process.pid for process in service.web_processes()}
        service.web_processes()[k % 2].kill()
        until(lambda: len({p.pid for p in service.web_processes()} - before) == 1, "a new process")  # noqa: B023
        service.wait_for_health()
        assert listed(service) == 40 * k
        list_jobs(service, 40)
        assert listed(service) == 40 * (k + 1)
    # As an operator exchanges all processes at once.
    before = {process.pid for process in service.web_processes()}
    service.web_processes()[0].parent().send_signal(signal.SIGHUP)
    until(lambda: not before & {p.pid for p in service.web_processes()}, "new processes")
    service.wait_for_health()
    list_jobs(service, 40)
    assert {listed(service) for _ in range(8)} == {200}


def test_one_web_process_tells_of_itself(tmp_path: Path) -> None:
    with web_service(tmp_path, works=False) as service:
        list_jobs(service, 8)
        text = page(service)
        assert metric(text, "orfeas_requests_total", route=JOBS, status="200") == 8
        assert metric(text, "process_resident_memory_bytes") is not None


def scraped(port: int) -> bytes:
    """Return a worker's page; empty when nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError:
        raise
    except OSError:
        return b""


def completed(port: int) -> float:
    return metric(scraped(port), "orfeas_runs_total", outcome="COMPLETED") or 0.0


@pytest.fixture
def port() -> int:
    """Where the worker tells its metrics."""
    return free_port()


@pytest.fixture
def made(tmp_path: Path, port: int) -> Iterator[WorkerHarness]:
    """Provide a worker, not started."""
    settings = {"CELERY_BROKER_URL": redis_server().url, "METRICS_PORT": port, "FAKE_STEP_SECONDS": 0.01}
    with worker_harness(tmp_path, FAKE_WORKER, **settings) as found:
        yield found


def test_a_worker_tells_what_it_did_and_so_does_its_next_child(made: WorkerHarness, port: int) -> None:
    made.worker.start()
    made.submit(b"1", b"2", b"3")
    made.await_done()
    until(lambda: completed(port) == 3, "three runs are told")
    text = scraped(port)
    assert (metric(text, "orfeas_batch_size_count") or 0) >= 1
    assert metric(text, "orfeas_batch_size_sum") == 3
    assert metric(text, "orfeas_stage_seconds_count", stage="export") == 3
    assert metric(text, "orfeas_queue_jobs") is None
    (child,) = made.worker.children()
    assert metric(text, "process_start_time_seconds") == pytest.approx(child.create_time(), abs=2)
    made.worker.kill_child()
    made.submit(b"4")
    made.await_done()
    until(lambda: completed(port) == 1, "the next child has the port")
    assert made.worker.stop() == 0
    assert scraped(port) == b""


def test_a_worker_whose_port_is_taken_works_and_takes_it_later(made: WorkerHarness, port: int) -> None:
    with create_server(("127.0.0.1", port)) as holder:
        made.worker.start()
        made.submit(b"1")
        made.await_done()
        made.await_ready()
        assert set(made.outcomes()) == {"completed"}
        assert made.worker.log.count("No metrics on port") == 1
        holder.close()
    until(lambda: completed(port) == 1, "the port is had")
    assert made.worker.stop() == 0
