"""SIGTERM while callers wait and uploads come in: each gets a true answer, and the service ends with 0."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.faults.web_harness import behind, fake_worker, one_image, send_slowly, sized, until, web_service
from tests.support.hostile import FORM, Part, encode_form
from tests.support.hostile_pictures import good_png
from tests.support.redis_backend import redis_server
from tests.support.running import API, Answer, RunningService

WAITERS, UPLOADS = 6, 6


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_stopping_web_processes_promise_what_they_cannot_wait_for(tmp_path: Path, processes: int) -> None:
    settings = {
        "RATE_LIMIT_STORAGE_URL": redis_server().url if processes > 1 else "",
        "WEB_PROCESSES": processes,
    }
    with (
        web_service(tmp_path, processes=processes, works=False, **settings) as service,
        behind(service) as found,
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
    with web_service(tmp_path, DRAIN_SECONDS=60, MAX_BATCH_SIZE=1) as service, behind(service) as found:
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
