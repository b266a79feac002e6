"""Who waits for a job in one process, while the worker is another: on PostgreSQL and Redis."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select

from backend.jobs.schema import nonces
from tests.support.fake_gpu import FakeProcessor
from tests.support.faults.web_harness import TIMEOUT_SECONDS, fake_worker, one_image, records_of, until, web_service
from tests.support.hostile import FORM
from tests.support.hostile_pictures import good_png
from tests.support.redis_backend import redis_server
from tests.support.running import API, RunningService
from tests.support.store_backends import empty_database

CALLERS = 6
LONGEST_WAIT = 60
HEARD_WITHIN = 40.0
"""Seconds within which all must have been answered: less than any of them was ready to wait."""


@pytest.mark.slow
def test_who_waits_in_one_process_hears_of_what_the_worker_of_another_did(tmp_path: Path) -> None:
    released = threading.Event()
    model = FakeProcessor(before_call=lambda _call: released.wait(TIMEOUT_SECONDS))
    settings = {
        "DATABASE_URL": empty_database("postgresql", tmp_path),
        "RATE_LIMIT_STORAGE_URL": redis_server().url,
        "NONCE_STORE": "database",
        "WEB_PROCESSES": 2,
        "SYNC_WAIT": LONGEST_WAIT,
    }
    with (
        web_service(tmp_path / "service", processes=2, works=False, **settings) as service,
        records_of(service) as found,
        fake_worker(service, model),
        ThreadPoolExecutor(CALLERS + 1) as pool,
    ):
        service.wait_for_health()
        sent = service.call("POST", f"{API}/generate-3d", one_image(good_png()), headers={"Content-Type": FORM})
        job_id = str(sent.json()["job_id"])
        until(lambda: found.counts() == {"processing": 1}, "the job runs")

        def asked() -> int:
            with found.database.read() as connection:
                return connection.execute(select(func.count()).select_from(nonces)).scalar_one()

        before = asked()
        heard = pool.map(lambda _: follow(service, job_id), range(CALLERS), timeout=HEARD_WITHIN)
        form = one_image(good_png(), **{"async": "false"})
        made = pool.submit(service.call, "POST", f"{API}/generate-3d", form, headers={"Content-Type": FORM})
        until(lambda: asked() > before + CALLERS, "all of them ask")
        released.set()
        assert set(heard) == {"completed"}
        assert made.result(HEARD_WITHIN).json()["status"] == "completed"


def follow(service: RunningService, job_id: str) -> str:
    """Return how a job ends, for a caller that waits as long as it may for each answer."""
    while True:
        status = str(service.get(f"/status/{job_id}?wait={LONGEST_WAIT}").json()["status"])
        if status != "processing":
            return status
