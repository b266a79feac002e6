"""Nobody's slowness is another's: whatever many callers do, an ordinary one is answered. One process, all rows."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.faults.report import report_stamina
from tests.support.faults.slow_clients import Caller, Herd, Ordinary, head, ordinary_calls
from tests.support.faults.web_harness import fake_worker, one_image, records_of, sized, web_service
from tests.support.hostile import FORM
from tests.support.hostile_pictures import good_png
from tests.support.running import API, RunningService

GENERATE = f"{API}/generate-3d"
SECONDS = sized(1.5, 15.0)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("slow")
    settings = {"UNAUTHENTICATED_RATE_LIMIT": 1_000_000, "QUEUE_LIMIT": 10_000}
    with web_service(folder, works=False, **settings) as running:
        yield running


def expect_served(found: Ordinary) -> None:
    assert found.lost == 0
    assert set(found.answers) == {200}


def post(service: RunningService, size: int, *, signed: bool = True) -> tuple[bytes, bytes]:
    """Return the head and the body of an upload of about so many bytes."""
    body = one_image(good_png() + bytes(size))
    headers = service.sign("POST", GENERATE, body)
    if not signed:
        headers["X-Agent-Signature"] = "0" * 64
    return head("POST", GENERATE, {**headers, "Content-Type": FORM, "Content-Length": str(len(body))}), body


@pytest.mark.slow
@pytest.mark.parametrize("count", [64, 500])
def test_connections_that_send_nothing(service: RunningService, count: int) -> None:
    callers = [Caller() for _ in range(count)]
    with (
        Herd(service.port, callers, reopens=True),
        ordinary_calls(service, f"{count} connections that send nothing, reopened") as found,
    ):
        time.sleep(SECONDS)
    expect_served(found)


@pytest.mark.slow
def test_wrong_signatures_whose_body_drips(service: RunningService) -> None:
    callers = [Caller(*post(service, 100_000, signed=False), bytes_per_second=10) for _ in range(64)]
    with (
        Herd(service.port, callers) as herd,
        ordinary_calls(service, "64 POSTs with a wrong signature, body dripped") as found,
    ):
        time.sleep(SECONDS)
        herd.wait(lambda caller: caller.status == 401, 30)
    expect_served(found)


@pytest.mark.slow
def test_signed_uploads_that_drip(service: RunningService) -> None:
    callers = [Caller(*post(service, 100_000), bytes_per_second=10) for _ in range(40)]
    with Herd(service.port, callers) as herd, ordinary_calls(service, "40 signed uploads at 10 B/s") as found:
        time.sleep(sized(SECONDS, 30.0))
        # Each is ended by the minimum rate, and told so; a short run does not wait for that.
        assert set(herd.statuses) == sized({0}, {408})
        assert {caller.code for caller in callers} == sized({""}, {"REQUEST_TIMEOUT"})
    expect_served(found)


@pytest.mark.slow
def test_downloads_whose_reader_stalls(service: RunningService) -> None:
    job = service.call("POST", GENERATE, one_image(good_png()), headers={"Content-Type": FORM}).json()["job_id"]
    with fake_worker(service):
        name = service.wait(job)["download_url"].rpartition("/")[2]
    with records_of(service) as found_behind, (found_behind.folder / "artifacts" / name).open("ab") as file:
        file.truncate(20_000_000)
    service.pretend_worker()
    target = f"{API}/download/{name}"
    callers = [
        Caller(head("GET", target, service.sign("GET", target)), reads=False, buffer_bytes=4096) for _ in range(40)
    ]
    with Herd(service.port, callers), ordinary_calls(service, "40 downloads whose reader stalls") as found:
        time.sleep(sized(SECONDS, 30.0))
    expect_served(found)


@pytest.mark.slow
def test_honest_uploads_over_a_thin_line(service: RunningService) -> None:
    size = sized(150_000, 3_600_000)
    callers = [Caller(*post(service, size), bytes_per_second=125_000) for _ in range(40)]
    with (
        Herd(service.port, callers) as herd,
        ordinary_calls(service, "40 honest clients, 3.6 MB at 1 Mbit/s each") as found,
    ):
        deadline = time.monotonic() + 90
        while herd.statuses[0] and time.monotonic() < deadline:
            time.sleep(0.05)
    report_stamina("40 honest clients: uploads accepted", f"{herd.statuses[202]} of 40")
    assert herd.statuses == {202: 40}
    expect_served(found)


@pytest.mark.slow
def test_idle_connections_that_are_kept(service: RunningService) -> None:
    (process,) = service.web_processes()
    before = process.memory_info().rss
    callers = [Caller(head("GET", f"{API}/health", {})) for _ in range(1000)]
    with Herd(service.port, callers) as herd, ordinary_calls(service, "1,000 idle keep-alive connections") as found:
        herd.wait(lambda caller: caller.status == 200, 60)
        time.sleep(SECONDS)
        assert all(caller.ended is None for caller in callers)
        grown = process.memory_info().rss - before
    expect_served(found)
    report_stamina("1,000 idle keep-alive connections: memory", f"{grown / 2**20:.1f} MiB more")
    assert grown < 24 << 20


@pytest.mark.slow
def test_many_calls_that_wait(service: RunningService) -> None:
    agents = [service.add_agent() for _ in range(20)]
    jobs = [
        service.call("POST", GENERATE, one_image(good_png()), agent=agent, headers={"Content-Type": FORM}).json()
        for agent in agents
    ]
    callers = []
    for agent, job in zip(agents, jobs, strict=True):
        target = f"{API}/status/{job['job_id']}?wait=60"
        callers += [Caller(head("GET", target, service.sign("GET", target, agent=agent))) for _ in range(20)]
    (process,) = service.web_processes()
    before = process.memory_info().rss
    with Herd(service.port, callers) as herd, ordinary_calls(service, "400 calls of ?wait=60") as found:
        time.sleep(SECONDS)
        assert set(herd.statuses) == {0}
        grown = process.memory_info().rss - before
        for agent, job in zip(agents, jobs, strict=True):
            assert service.call("DELETE", f"{API}/jobs/{job['job_id']}", agent=agent).status == 200
        herd.wait(lambda caller: caller.status == 200, 30)
    expect_served(found)
    report_stamina("400 calls of ?wait=60: memory", f"{grown / 2**20:.1f} MiB more")
