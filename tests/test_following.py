"""Where answers say that jobs and files are: at PUBLIC_URL, or without a host, and never where Host says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent_service import API, AgentService, agent_service, field, image
from tests.support.workshop import eventually

PUBLIC = "https://meshes.example:8443"
EVIL = {"Host": "evil.example", "X_Forwarded_Host": "evil.example"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentService]:
    """Give a service that is told where it is reached, and whose worker runs."""
    with agent_service(tmp_path_factory.mktemp("public"), running=True, public_url=f"{PUBLIC}/") as made:
        yield made


def addresses(value: object) -> Iterator[str]:
    """Give every text in an answer that leads into the API."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from addresses(part)
    elif isinstance(value, str) and API in value:
        yield value


def answers(service: AgentService) -> list[Any]:
    """Return one of each answer that has addresses, and its Location where it has one."""
    sent = service.generate(field("color", "none"), field("async", "true"), image(), **EVIL)
    job_id = sent.get_json()["job_id"]
    eventually(lambda: service.get(f"/status/{job_id}").get_json()["status"] == "completed")
    batch = service.batch(**EVIL)
    batch_id = batch.get_json()["batch_id"]
    eventually(lambda: service.get(f"/status/{batch_id}").get_json()["status"] == "completed")
    again = service.call("POST", f"{API}/jobs/{job_id}/again", b"", **EVIL)
    read = [service.get(f"/{call}", **EVIL) for call in (f"status/{job_id}", f"status/{batch_id}", "jobs")]
    deleted = service.call("DELETE", f"{API}/jobs/{job_id}/files", b"", **EVIL)
    found = [sent, batch, again, *read, deleted]
    return [answer.get_json() for answer in found] + [
        answer.headers["Location"] for answer in found if "Location" in answer.headers
    ]


def test_every_address_begins_with_the_public_one(service: AgentService) -> None:
    found = list(addresses(answers(service)))
    assert len(found) > 20
    assert {address.partition(API)[0] for address in found} == {PUBLIC}
    assert service.document["servers"] == [{"url": PUBLIC}]


def test_without_one_addresses_have_no_host(tmp_path: Path) -> None:
    with agent_service(tmp_path, running=True) as relative:
        found = list(addresses(answers(relative)))
        assert len(found) > 20
        assert {address.partition(API)[0] for address in found} == {""}
        assert relative.document["servers"] == [{"url": "/"}]


def test_an_absolute_link_is_good_where_it_leads(service: AgentService) -> None:
    link = service.made(field("color", "none"))["signed_url"]
    assert link.startswith(f"{PUBLIC}{API}/download/")
    with service.app.test_client().get(link.removeprefix(PUBLIC)) as answer:
        assert answer.status_code == 200


@pytest.mark.parametrize("path", [f"{API}//health", f"{API}///jobs", "/docs//docs.js"])
def test_no_redirect_leads_where_the_caller_says(service: AgentService, path: str) -> None:
    answer = service.app.test_client().get(path, base_url="http://evil.example")
    assert "Location" not in answer.headers
    assert answer.status_code == 404
