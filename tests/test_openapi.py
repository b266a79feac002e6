"""The OpenAPI document and the pages around it: sound, complete, and made of what the service itself uses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis

from backend import errors
from backend.api.operations import (
    ADD_FILE,
    AGAIN,
    BATCH,
    CANCEL,
    CUTOUT,
    DELETE_FILES,
    DOWNLOAD,
    EVENTS,
    GENERATE,
    HEALTH,
    JOBS,
    LIVE,
    ME,
    READY,
    SOCKET,
    STATUS,
)
from backend.api.statuses import status_of
from backend.api.uploads import VIEW_FIELDS
from backend.errors import ServiceError
from backend.validation import GenerateFields
from tests.support.agent_service import AgentService, agent_service

CALLS = {
    ("/api/agent/generate-3d", "post"): (GENERATE, "202"),
    ("/api/agent/batch", "post"): (BATCH, "202"),
    ("/api/agent/cutout", "post"): (CUTOUT, "200"),
    ("/api/agent/status/{job_id}", "get"): (STATUS, "200"),
    ("/api/agent/status/{job_id}/events", "get"): (EVENTS, "200"),
    ("/api/agent/events", "get"): (SOCKET, "101"),
    ("/api/agent/jobs", "get"): (JOBS, "200"),
    ("/api/agent/jobs/{job_id}", "delete"): (CANCEL, "200"),
    ("/api/agent/jobs/{job_id}/again", "post"): (AGAIN, "202"),
    ("/api/agent/jobs/{job_id}/files", "post"): (ADD_FILE, "200"),
    ("/api/agent/jobs/{job_id}/files", "delete"): (DELETE_FILES, "200"),
    ("/api/agent/download/{filename}", "get"): (DOWNLOAD, "200"),
    ("/api/agent/me", "get"): (ME, "200"),
    ("/api/agent/health", "get"): (HEALTH, "200"),
    ("/api/agent/health/live", "get"): (LIVE, "200"),
    ("/api/agent/health/ready", "get"): (READY, "200"),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentService]:
    with agent_service(tmp_path_factory.mktemp("service")) as made:
        yield made


@pytest.fixture(scope="module")
def document(service: AgentService) -> dict[str, Any]:
    return service.document


def nested(value: object) -> Iterator[dict[str, Any]]:
    """Every object in a piece of JSON."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from nested(part)
    elif isinstance(value, list):
        for part in value:
            yield from nested(part)


def test_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(document).validate()


def test_document_tells_of_every_call_and_no_other(service: AgentService, document: dict[str, Any]) -> None:
    assert {(path, method) for path, item in document["paths"].items() for method in item} == set(CALLS)
    rules = {rule.rule for rule in service.app.url_map.iter_rules() if rule.rule.startswith("/api/")}
    assert {re.sub(r"<([a-z_]+)>", r"{\1}", rule) for rule in rules} == set(document["paths"])


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [part["$ref"] for part in nested(document) if "$ref" in part]
    assert references
    for reference in references:
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


@pytest.mark.parametrize(("path", "method"), CALLS)
def test_every_call_says_how_it_may_end(document: dict[str, Any], path: str, method: str) -> None:
    operation = document["paths"][path][method]
    success = CALLS[path, method][1]
    statuses = set(operation["responses"])
    assert {success, "400", "405", "500"} <= statuses
    if not path.startswith("/api/agent/health"):
        counted = {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"}
        assert all(counted <= set(answer["headers"]) for answer in operation["responses"].values())
        assert {"401", "403", "411", "413", "429", "503", "507"} <= statuses
        assert all(set(alternative) for alternative in operation["security"])
    for answer in operation["responses"].values():
        assert answer["description"]
        assert "X-Request-ID" in answer["headers"]


def test_calls_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert sorted(names) == [
        "add_file",
        "again",
        "batch",
        "cancel",
        "cutout",
        "download",
        "events",
        "generate",
        "health",
        "job_events",
        "jobs",
        "live",
        "me",
        "ready",
        "remove_files",
        "status",
    ]


def test_every_call_stands_under_a_heading_that_is_explained(document: dict[str, Any]) -> None:
    used = {
        tag for calls in document["paths"].values() for call in calls.values() for tag in call.get("tags", ["none"])
    }
    assert used == {tag["name"] for tag in document["tags"] if tag["description"]}


def test_form_is_the_one_that_is_validated(document: dict[str, Any]) -> None:
    properties = dict(document["components"]["schemas"]["GenerateForm"]["properties"])
    for field in ("image", *VIEW_FIELDS):
        assert properties.pop(field)["format"] == "binary"
    assert properties == GenerateFields.model_json_schema(by_alias=True)["properties"]
    assert "async" not in document["components"]["schemas"]["BatchForm"]["properties"]


def test_every_signing_header_is_a_security_scheme(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    first, second, token = document["paths"]["/api/agent/jobs"]["get"]["security"]
    assert set(schemes) == {*first, *second, *token, "link"}
    assert all(schemes[name]["in"] == "header" and schemes[name]["name"] == name for name in (*first, *second))
    assert (schemes["token"]["type"], schemes["token"]["scheme"]) == ("http", "bearer")


def test_a_file_alone_is_fetched_by_a_link(document: dict[str, Any]) -> None:
    calls = [(path, call) for path, item in document["paths"].items() for call in item.values()]
    linked = {path for path, call in calls if {"link": []} in call.get("security", [])}
    assert linked == {"/api/agent/download/{filename}"}


@pytest.mark.parametrize("kind", [errors.QueueFull, errors.GpuBusy, errors.NoForeground, errors.InvalidAsync])
def test_refusals_are_told_with_code_and_sentence(document: dict[str, Any], kind: type[ServiceError]) -> None:
    answer = document["paths"]["/api/agent/generate-3d"]["post"]["responses"][str(status_of(kind))]
    assert f"| `{kind.code}` | {kind().message} |" in answer["description"]
    example = document["components"]["examples"][kind.code]["value"]
    assert (example["code"], example["error"]) == (kind.code, kind().message)
    assert kind.code in answer["content"]["application/json"]["examples"]


def test_only_what_is_left_out_of_a_job_made_again_is_as_it_was(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    fields, again = schemas["GenerateForm"]["properties"], schemas["AgainForm"]["properties"]
    assert set(again) == {name for name in fields if name != "image" and not name.startswith("view_")}
    assert [name for name, field in again.items() if "default" in field] == ["async"]
    body = document["paths"]["/api/agent/jobs/{job_id}/again"]["post"]["requestBody"]
    assert body["required"] is False


def test_page_needs_nothing_from_elsewhere(service: AgentService) -> None:
    client = service.app.test_client()
    page = client.get("/docs")
    assert page.mimetype == "text/html"
    assert "://" not in page.text
    assert "unsafe-eval" not in page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]
    for source in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        asset = client.get(f"/{source}")
        assert asset.status_code == 200
        assert asset.mimetype in ("text/css", "text/javascript")
        assert asset.data
    assert "<script>" not in page.text


def test_document_is_the_same_each_time(service: AgentService) -> None:
    client = service.app.test_client()
    first = client.get("/openapi.json")
    assert first.mimetype == "application/json"
    assert client.get("/openapi.json").data == first.data
    assert json.loads(first.data) == service.document
