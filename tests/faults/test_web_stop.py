"""SIGTERM while callers wait and uploads come in: each gets a true answer, and the service ends with 0."""

from __future__ import annotations

import http.client
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from backend.jobs.schema import jobs
from tests.support.faults.harness import FAKE_SERVICE
from tests.support.faults.web_harness import fake_worker, one_image, records_of, send_slowly, sized, until, web_service
from tests.support.hostile import FORM, Part, encode_form
from tests.support.hostile_pictures import good_png
from tests.support.redis_backend import redis_server
from tests.support.running import API, Answer, RunningService, running_service

WAITERS, UPLOADS = 6, 6


class SlowService(RunningService):
    """A service whose model is a fake that takes its time."""

    command = FAKE_SERVICE


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_stopping_web_processes_promise_what_they_cannot_wait_for(tmp_path: Path, processes: int) -> None:
    settings = {
        "RATE_LIMIT_STORAGE_URL": redis_server().url if processes > 1 else "",
        "WEB_PROCESSES": processes,
    }
    with (
        web_service(tmp_path, processes=processes, works=False, **settings) as service,
        records_of(service) as found,
    ):
        promised = stop_under_way(service, lambda: len(found.rows()) >= WAITERS)
        assert set(found.rows()) == promised
        assert found.files("spool") == set()
        service.start()
        with fake_worker(service):
            found.wait_until_done()
        assert found.counts() == {"completed": len(promised)}


@pytest.mark.slow
def test_stopping_service_finishes_its_batch_and_keeps_the_rest(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"DRAIN_SECONDS": 60, "MAX_BATCH_SIZE": 1, "FAKE_STEP_SECONDS": 0.3}
    with running_service(tmp_path, SlowService, **settings) as service, records_of(service) as found:
        promised = stop_under_way(service, lambda: len(found.rows()) >= WAITERS and found.counts()["processing"] > 0)
        counts = found.counts()
        assert set(found.rows()) == promised
        # What ran was finished, and nothing is left leased.
        assert counts["completed"] >= 1
        assert counts["queued"] + counts["completed"] == len(promised)
        if sized(False, True):
            service.start()
            found.wait_until_done()
            assert found.counts() == {"completed": len(promised)}


@pytest.mark.slow
def test_draining_service_refuses_new_jobs_and_answers_everything_else(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"DRAIN_SECONDS": 60, "MAX_BATCH_SIZE": 1, "FAKE_STEP_SECONDS": 0.8}
    with running_service(tmp_path, SlowService, **settings) as service:
        done = service.generate(good_png(), steps=10).json()
        named = {"Idempotency-Key": "the-running-one"}
        running = service.generate(good_png(), async_="true", headers=named).json()["job_id"]
        service.wait(running, until=["processing"])
        waiting = service.generate(good_png(), async_="true").json()["job_id"]
        service.send_signal(signal.SIGTERM)
        service.wait_for_health(503)
        health = service.send("GET", f"{API}/health", {})
        assert (health.refusal, health.json()["status"]) == ((503, "SERVICE_STOPPING"), "draining")
        refused = service.generate(good_png(), async_="true")
        assert refused.refusal == (503, "SERVICE_STOPPING")
        assert int(refused.headers["Retry-After"]) > 0
        # Sent again, it is no new job.
        again = service.generate(good_png(), async_="true", headers=named)
        assert (again.status, again.json()["job_id"]) == (202, running)
        assert service.status(running)["status"] == "processing"
        assert service.call("GET", done["download_url"]).status == 200
        cancelled = service.call("DELETE", f"{API}/jobs/{waiting}")
        assert (cancelled.status, cancelled.json()["status"]) == (200, "cancelled")
        assert service.ended() == 0
        with records_of(service) as found:
            assert {job_id: row[0] for job_id, row in found.rows().items()} == {
                done["job_id"]: "completed",
                running: "completed",
                waiting: "cancelled",
            }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), *sized([], [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])],
)
def test_second_signal_ends_a_draining_service_at_once(
    tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    with running_service(tmp_path, SlowService, DRAIN_SECONDS=3600, FAKE_STEP_SECONDS=5) as service:
        running = service.generate(good_png(), async_="true").json()["job_id"]
        service.wait(running, until=["processing"])
        service.send_signal(first)
        service.wait_for_health(503)
        assert service.status(running)["status"] == "processing"
        service.send_signal(second)
        assert service.ended() == 0
        assert f"job {running} is handed back" in service.log
        with records_of(service) as found, found.database.read() as connection:
            row = connection.execute(select(jobs.c.status, jobs.c.attempts)).one()
            assert (row.status.value, row.attempts) == ("queued", 0)


def stop_under_way(service: RunningService, is_time: Callable[[], bool]) -> set[str]:
    """Stop a service in the middle of requests; return the jobs that were promised by then."""
    body = encode_form(Part("image", good_png(), "a.png", "image/png"), Part("quality", b"1"), Part("steps", b"10"))
    target = f"{API}/generate-3d"

    def upload() -> Answer:
        slow = one_image(good_png(), quality=1, steps=10)
        return send_slowly(service, target, {**service.sign("POST", target, slow), "Content-Type": FORM}, slow, 3)

    with ThreadPoolExecutor(WAITERS + UPLOADS) as pool:
        headers = {"Content-Type": FORM}
        asked: list[Future[Answer]] = [
            pool.submit(service.call, "POST", target, body, headers=headers) for _ in range(WAITERS)
        ]
        until(is_time, "waiters wait")
        asked += [pool.submit(upload) for _ in range(UPLOADS)]
        time.sleep(1)
        service.stop()
        answers = [each.result() for each in asked]
    statuses = [answer.status for answer in answers]
    # One may have got its mesh just before.
    assert set(statuses[:WAITERS]) <= {200, 202}
    assert 202 in statuses[:WAITERS]
    assert statuses[WAITERS:] == [202] * UPLOADS
    with pytest.raises((OSError, http.client.HTTPException)):
        service.send("GET", f"{API}/health", {})
    return {str(answer.json()["job_id"]) for answer in answers}
