"""A worker as it is run: what it says before it starts and while it runs, and what it never says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.support.redis import RedisServer
from tests.support.faults.harness import FAKE_WORKER, until, worker_harness
from tests.support.redis_backend import redis_server

PASSWORD = "s3cret-of-the-broker"  # noqa: S105


def refused(**settings: str) -> tuple[int, str]:
    """Exit code and words of a worker that cannot start."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    found = subprocess.run(
        [sys.executable, "-m", "backend.worker"], env={**kept, **settings}, capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
    return found.returncode, found.stderr


def test_a_worker_without_a_broker_says_what_to_set(tmp_path: Path) -> None:
    code, words = refused(ORFEAS_DATA_DIR=str(tmp_path))
    assert (code, words) == (2, "A worker apart needs CELERY_BROKER_URL, such as redis://HOST:6379/1.\n")


def test_a_worker_without_a_job_table_says_so(tmp_path: Path) -> None:
    code, words = refused(
        ORFEAS_DATA_DIR=str(tmp_path),
        CELERY_BROKER_URL="redis://127.0.0.1:1/0",
        DATABASE_URL=f"postgresql://orfeas:{PASSWORD}@/postgres?host={tmp_path}",
    )
    assert (code, words.count("\n")) == (2, 1)
    assert PASSWORD not in words


def lines_of(log: str) -> list[dict[str, str]]:
    """Read a worker's log; all of it must be JSON but Celery's word that it stops."""
    words = [line for line in log.splitlines() if line and not line.startswith("worker: ")]
    return [json.loads(line) for line in words]


@pytest.mark.slow
def test_all_that_a_worker_says_is_json(tmp_path: Path) -> None:
    redis = redis_server()
    with worker_harness(tmp_path, FAKE_WORKER, CELERY_BROKER_URL=redis.url, FAKE_STEP_SECONDS=0.3) as made:
        made.worker.start()
        made.submit(b"picture")
        made.await_running()
        made.worker.kill_child()
        made.await_done()
        redis.kill()
        redis.start()
        until(lambda: "Connection to broker lost" in made.worker.log, "it notices")
        made.submit(b"picture")
        made.await_done()
        assert made.worker.stop() == 0
        said = lines_of(made.worker.log)
    assert {"multiprocessing", "celery.worker.request", "celery.worker.consumer.consumer"} <= {
        line["logger"] for line in said
    }
    assert "DeprecationWarning" not in made.worker.log


@pytest.mark.slow
def test_a_worker_never_tells_its_brokers_password(tmp_path: Path) -> None:
    server = RedisServer()
    try:
        server.start()
        with server.client() as client:
            client.config_set("requirepass", "another-one")
        url = server.url.replace("redis://", f"redis://:{PASSWORD}@")
        with worker_harness(tmp_path, FAKE_WORKER, CELERY_BROKER_URL=url, LOG_LEVEL="DEBUG") as made:
            made.worker.start()
            made.submit(b"picture")
            until(lambda: "invalid username-password pair" in made.worker.log, "it is not let in")
            made.await_ready()
            until(lambda: "The broker cannot be reached" in made.worker.log, "nor can its notifier")
            assert made.worker.stop() == 0
            assert lines_of(made.worker.log)
            assert PASSWORD not in made.worker.log
            assert made.outcomes() == {"queued": 1}
    finally:
        server.destroy()
