"""The services that the integration tests share: each is started once in a process that runs tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.watched import WatchedService
from tests.support.running import running_service

WIDE = {
    # Tests show other addresses by X-Forwarded-For.
    "TRUSTED_PROXIES": "127.0.0.1",
    "UNAUTHENTICATED_RATE_LIMIT": 1_000_000,
    "MAX_ACTIVE_JOBS": 1_000_000,
    "MAX_IMAGE_BYTES": 12_000_000,
    "QUEUE_LIMIT": 10_000,
    "SWEEP_SECONDS": 1,
}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedService]:
    """The whole service with the demo checkpoint; its jobs run."""
    with running_service(tmp_path_factory.mktemp("service"), WatchedService, BATCH_WAIT=0.3, **WIDE) as running:
        yield running
        running.check_logs()


@pytest.fixture(scope="session")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedService]:
    """A web process whose worker never comes: jobs stay queued until they are cancelled."""
    folder = tmp_path_factory.mktemp("waiting")
    with running_service(folder, WatchedService, works=False, SYNC_WAIT=0, **WIDE) as running:
        yield running
        running.check_logs()
