"""The API in an app: what is signed, how errors are answered, which headers answers carry, and /metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from backend.agent_api import register_agent_api
from backend.auth.agents_file import add_agent, update_agent
from backend.config import Settings
from backend.errors import ServiceError, StoreUnavailable
from backend.services import AgentServices
from backend.studio.pages import page_files
from tests.support.agent_service import (
    API,
    FORM,
    AgentService,
    agent_service,
    encode_form,
    image,
    refused,
)
from tests.support.hostile import Part

UNKNOWN = "0" * 32


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service whose worker does not run."""
    with agent_service(tmp_path) as made:
        yield made


SIGNED_CALLS = [
    ("POST", "/generate-3d"),
    ("POST", "/batch"),
    ("GET", f"/status/{UNKNOWN}"),
    ("GET", f"/download/{UNKNOWN}.glb"),
    ("DELETE", f"/jobs/{UNKNOWN}"),
    ("GET", "/jobs"),
    ("POST", f"/jobs/{UNKNOWN}/again"),
]


@pytest.mark.parametrize(("method", "path"), SIGNED_CALLS)
def test_every_call_but_health_is_signed(service: AgentService, method: str, path: str) -> None:
    response = service.checked(service.app.test_client().open(API + path, method=method))
    assert refused(response) == (401, "AUTH_MISSING")
    assert "WWW-Authenticate" in response.headers


@pytest.mark.parametrize(
    ("operations", "allowed"),
    [("generate", {0, 4, 6}), ("batch", {1}), ("status", {2, 5}), ("download", {3}), ("admin", set())],
)
def test_each_call_needs_its_operation(tmp_path: Path, operations: str, allowed: set[int]) -> None:
    with agent_service(tmp_path) as service:
        service.keys["eve"] = add_agent(service.settings.agents_file, "eve", operations=[operations])
        answers = [service.call(method, API + path, agent="eve") for method, path in SIGNED_CALLS]
        codes = [answer.get_json().get("code", "") for answer in answers]
    assert {k for k, code in enumerate(codes) if code != "OPERATION_NOT_ALLOWED"} == allowed


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", f"{API}/generate-3d", "POST"),
        ("OPTIONS", f"{API}/batch", "POST"),
        ("POST", f"{API}/health", "GET, HEAD"),
        ("TRACE", f"{API}/jobs", "GET, HEAD"),
        ("PUT", f"{API}/jobs/{UNKNOWN}", "DELETE"),
        ("DELETE", "/openapi.json", "GET, HEAD"),
    ],
)
def test_other_methods_are_told_which_there_are(service: AgentService, method: str, path: str, allowed: str) -> None:
    response = service.app.test_client().open(path, method=method)
    assert refused(response) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", API, f"{API}/", f"{API}/nothing", f"{API}/health/", "/docs/other.js"]
)
def test_what_is_nowhere_is_not_found(service: AgentService, path: str) -> None:
    client = service.app.test_client()
    answer = client.get(path)
    assert refused(answer) == (404, "NOT_FOUND")
    assert client.get(answer.get_json()["docs"]).status_code == 200


def test_request_id_is_the_caller_s_when_it_is_harmless(service: AgentService) -> None:
    client = service.app.test_client()
    assert client.get("/x", headers={"X-Request-ID": "abc-1.2_3"}).headers["X-Request-ID"] == "abc-1.2_3"
    for harmful in ("", "a b", "x" * 65, "<script>", "\u00e9"):
        assert len(client.get("/x", headers={"X-Request-ID": harmful}).headers["X-Request-ID"]) == 32


def test_unforeseen_error_tells_nothing(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("the secret lies in /srv/secret")

    monkeypatch.setattr(service.services.store, "find", break_down)
    response = service.get(f"/status/{UNKNOWN}")
    assert refused(response) == (500, "INTERNAL_ERROR")
    assert "secret" not in response.text
    assert response.get_json()["details"] == {}


def test_own_fault_of_the_service_tells_nothing(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise ServiceError("The file /srv/secret is damaged.", details={"path": "/srv/secret"})

    monkeypatch.setattr(service.services.store, "find", break_down)
    response = service.get(f"/status/{UNKNOWN}")
    assert refused(response) == (500, "INTERNAL_ERROR")
    assert "secret" not in response.text


def test_why_a_store_is_away_is_for_the_log_alone(
    service: AgentService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        try:
            raise OSError("the certificate of\n db.internal is another's")
        except OSError as error:
            raise StoreUnavailable from error

    monkeypatch.setattr(service.services.store, "find", away)
    with caplog.at_level(logging.INFO, logger="backend.requests"):
        response = service.get(f"/status/{UNKNOWN}")
    assert refused(response) == (503, "STORE_UNAVAILABLE")
    assert "db.internal" not in response.text
    (line,) = [vars(record) for record in caplog.records if record.name == "backend.requests"]
    assert line["cause"] == "OSError: the certificate of db.internal is another's"


@pytest.mark.parametrize("path", [f"{API}/health", f"{API}/jobs", "/nowhere", "/docs", "/openapi.json", "/metrics"])
def test_every_answer_is_guarded_against_browsers(service: AgentService, path: str) -> None:
    headers = service.app.test_client().get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    policy = headers["Content-Security-Policy"].split("; ")
    sources = ("default-src", "object-src", "base-uri", "form-action", "frame-ancestors")
    assert {f"{source} 'none'" for source in sources} <= set(policy)


def test_every_text_says_its_charset(service: AgentService) -> None:
    client, job_id = service.app.test_client(), service.submit()
    pages = ["/docs", "/docs/docs.js", "/docs/swagger-ui.css", "/llms.txt", "/metrics", "/studio"]
    answers = [client.get(path) for path in (*pages, *(f"/studio/{name}" for name in page_files() if " " not in name))]
    answers.append(
        client.get(f"{API}/status/{job_id}/events", headers=service.headers("GET", f"{API}/status/{job_id}/events"))
    )
    types = [answer.headers["Content-Type"] for answer in answers]
    assert {answer.status_code for answer in answers} == {200}
    assert "image/svg+xml; charset=utf-8" in types
    assert [kind for kind in types if not kind.endswith("; charset=utf-8")] == []
    answers[-1].close()


def test_the_line_of_a_request_names_who_called_and_not_the_proxy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for proxies, told in (((ip_network("127.0.0.1"),), "203.0.113.7"), ((), "127.0.0.1")):
        with agent_service(tmp_path, trusted_proxies=proxies) as service, caplog.at_level(logging.INFO):
            caplog.clear()
            service.app.test_client().get(f"{API}/nothing", headers={"X-Forwarded-For": "203.0.113.7"})
            (line,) = [vars(record) for record in caplog.records if record.name == "backend.requests"]
            assert line["address"] == told


def plain_app(folder: Path) -> tuple[Flask, AgentServices]:
    """Return an app with pages and error handlers of its own, and the API in it."""
    app = Flask("plain", static_folder=None)

    @app.get("/own")
    def own() -> str:
        return "own"

    @app.get("/broken")
    def broken() -> str:
        raise ServiceError("own")

    @app.errorhandler(ServiceError)
    def handle(_: ServiceError) -> tuple[str, int]:
        return "own handler", 418

    settings = Settings(data_dir=folder, auth_enabled=False)
    return app, register_agent_api(app, AgentServices.from_settings(settings))


def test_api_lives_in_any_app(tmp_path: Path) -> None:
    app, services = plain_app(tmp_path)
    client = app.test_client()
    assert client.get(f"{API}/jobs").get_json() == {"success": True, "jobs": [], "next_cursor": None}
    assert refused(client.get(f"{API}/nothing")) == (404, "NOT_FOUND")
    assert refused(client.get(f"{API}/status/{UNKNOWN}")) == (404, "JOB_NOT_FOUND")
    assert client.get("/openapi.json").get_json()["openapi"] == "3.1.0"
    services.stop()


def test_other_pages_of_the_app_stay_its_own(tmp_path: Path) -> None:
    app, services = plain_app(tmp_path)
    client = app.test_client()
    own, missing, broken = client.get("/own"), client.get("/missing"), client.get("/broken")
    assert (own.text, broken.text, broken.status_code) == ("own", "own handler", 418)
    assert (missing.status_code, missing.mimetype) == (404, "text/html")
    assert not any("X-Request-ID" in response.headers for response in (own, missing, broken))
    services.stop()


def test_api_is_put_into_an_app_as_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORFEAS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("AGENT_AUTH_ENABLED", "false")
    services = register_agent_api(Flask("plain"))
    assert services.settings.data_dir == tmp_path
    services.stop()


def test_metrics_are_for_some_addresses_only(service: AgentService) -> None:
    client = service.app.test_client()
    assert client.get("/metrics").status_code == 200
    elsewhere = client.get("/metrics", environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
    assert refused(elsewhere) == (403, "IP_NOT_ALLOWED")
    claimed = client.get(
        "/metrics", headers={"X-Forwarded-For": "127.0.0.1"}, environ_overrides={"REMOTE_ADDR": "192.0.2.7"}
    )
    assert refused(claimed) == (403, "IP_NOT_ALLOWED")


def test_metrics_do_not_open_through_a_proxy_on_this_machine_but_for_the_token(tmp_path: Path) -> None:
    token = "a-token-for-prometheus"  # noqa: S105
    with agent_service(tmp_path, metrics_token=token) as service:
        client = service.app.test_client()
        for headers in ({"Host": "orfeas.example"}, {"X-Forwarded-Proto": "https"}, {"Origin": "http://evil.example"}):
            assert refused(client.get("/metrics", headers=headers)) == (403, "IP_NOT_ALLOWED")
        bearer = {"Host": "orfeas.example", "Authorization": f"Bearer {token}"}
        assert client.get("/metrics", headers=bearer).status_code == 200


def test_metrics_are_for_agents_with_admin_wherever_they_call_from(service: AgentService) -> None:
    update_agent(service.settings.agents_file, "ann", {"operations": ["admin"]})
    client = service.app.test_client()

    def ask(agent: str) -> TestResponse:
        headers = service.headers("GET", "/metrics", agent=agent)
        return client.get("/metrics", headers=headers, environ_overrides={"REMOTE_ADDR": "192.0.2.7"})

    assert b"orfeas_queue_jobs" in ask("ann").data
    assert refused(ask("bob")) == (403, "OPERATION_NOT_ALLOWED")
    # Whoever signs is checked, even here.
    unsigned = client.get("/metrics", headers={"X-Agent-ID": "ann"})
    assert refused(unsigned) == (401, "AUTH_MISSING")


def test_metrics_are_for_nobody_when_no_address_is_named(tmp_path: Path) -> None:
    with agent_service(tmp_path, metrics_allowed=()) as service:
        assert refused(service.app.test_client().get("/metrics")) == (403, "IP_NOT_ALLOWED")


def test_signed_request_reaches_a_form_that_is_spooled(service: AgentService) -> None:
    body = encode_form(Part("async", b"true"), image())
    # The signature covers a query as it was sent; that the call takes none is told after it.
    response = service.call("POST", f"{API}/generate-3d?trace=1&a=%20b", body, Content_Type=FORM)
    assert refused(response) == (400, "UNKNOWN_FIELD")
    response = service.call("POST", f"{API}/generate-3d", body, Content_Type=FORM)
    assert response.status_code == 202
    assert list(service.settings.spool_dir.iterdir()) == []
