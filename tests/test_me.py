"""GET /me: what an agent may do, what is left of its limits, and what the service says that it can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from backend.api.me import Operation
from backend.auth.agents import OPERATIONS
from backend.auth.agents_file import update_agent
from backend.hunyuan3d.mesh.offered import offered_formats
from backend.jobs.worker_registry import WorkerStatus
from tests.support.agent_service import API, AgentService, agent_service, image, refused, report_worker


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service whose worker does not run."""
    with agent_service(tmp_path, rate_limit=50, batch_rate_limit=5, max_active_jobs=4) as made:
        yield made


def limit(limit: int, remaining: int) -> dict[str, int]:
    return {"limit": limit, "remaining": remaining}


def limits_of(service: AgentService) -> dict[str, dict[str, int] | None]:
    """Return the agent's limits, without the seconds."""
    limits = service.get("/me").get_json()["limits"]
    return {
        name: None if state is None else limit(state["limit"], state["remaining"]) for name, state in limits.items()
    }


def test_an_agent_sees_its_operations_limits_and_jobs(service: AgentService) -> None:
    service.batch(image("images"), image("images"))
    answer = service.get("/me").get_json()
    assert answer["agent_id"] == "ann"
    assert answer["operations"] == ["generate", "batch", "status", "download"]
    assert answer["active_jobs"] == 2
    assert answer["webhook_prefixes"] == []
    assert limits_of(service) == {
        "rate_limit": limit(50, 47),
        "batch_rate_limit": limit(5, 4),
        "status_rate_limit": None,
        "max_active_jobs": limit(4, 2),
        "daily_jobs": None,
    }
    assert 0 < answer["limits"]["rate_limit"]["reset"] <= 60
    assert 0 < answer["limits"]["batch_rate_limit"]["reset"] <= 60


def test_what_an_agent_was_given_of_its_own_is_shown(service: AgentService) -> None:
    changes = {"status_rate_limit": 9, "daily_jobs": 3, "webhook_prefixes": ["https://example.org/hooks"]}
    update_agent(service.settings.agents_file, "ann", {**changes, "operations": ["status", "generate", "admin"]})
    service.submit()
    answer = service.get("/me").get_json()
    assert answer["operations"] == ["generate", "status", "admin"]
    assert answer["webhook_prefixes"] == ["https://example.org/hooks"]
    assert answer["limits"]["daily_jobs"] == {"limit": 3, "remaining": 2, "reset": 24 * 3600}
    # The submission counts towards the one, asking for this towards the other.
    assert limits_of(service)["rate_limit"] == limit(50, 49)
    assert limits_of(service)["status_rate_limit"] == limit(9, 6)


def test_an_agent_without_any_operation_may_ask(service: AgentService) -> None:
    update_agent(service.settings.agents_file, "ann", {"operations": []})
    assert service.get("/me").get_json()["operations"] == []
    assert refused(service.get("/jobs")) == (403, "OPERATION_NOT_ALLOWED")


def test_capabilities_are_what_the_service_does(service: AgentService) -> None:
    capabilities = service.get("/me").get_json()["capabilities"]
    assert capabilities["formats"] == list(offered_formats())
    # The demo checkpoint's own, known before a worker says so.
    assert (capabilities["default_resolution"], capabilities["max_octree_resolution"]) == (128, 512)
    assert [capabilities[name] for name in ("prompt", "views", "image_urls")] == [False, False, False]
    assert capabilities["model"] == "demo"
    report_worker(service, WorkerStatus.READY)
    assert service.get("/me").get_json()["capabilities"]["model"] == "m"


def test_it_is_signed_like_every_other_call(service: AgentService) -> None:
    assert service.app.test_client().get(f"{API}/me").status_code == 401


def test_every_operation_can_be_shown() -> None:
    assert get_args(Operation) == OPERATIONS
