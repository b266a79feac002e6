"""The services that the integration tests share: each is started once in a process that runs tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.agent_calls import OK, cancel
from tests.support.running import running_service
from tests.support.watched import WIDE, WatchedService


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedService]:
    """Provide the whole service with the demo checkpoint; its jobs run."""
    with running_service(tmp_path_factory.mktemp("service"), WatchedService, BATCH_WAIT=0.3, **WIDE) as running:
        yield running
        running.check_logs()


@pytest.fixture(scope="session")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedService]:
    """Provide a web process whose worker never comes: jobs stay queued until they are cancelled."""
    folder = tmp_path_factory.mktemp("waiting")
    with running_service(folder, WatchedService, works=False, SYNC_WAIT=0, **WIDE) as running:
        yield running
        running.check_logs()


@pytest.fixture
def queue(waiting: WatchedService) -> Iterator[WatchedService]:
    """Provide the service in which jobs wait, without jobs; those that a test leaves are cancelled."""
    before = len(waiting.agents)
    yield waiting
    for agent in (waiting.agent, *waiting.agents[before:]):
        for job in waiting.get("/jobs?limit=100", agent=agent).json()["jobs"]:
            if job["status"] == "queued":
                assert cancel(waiting, job["job_id"], agent).refusal == OK
