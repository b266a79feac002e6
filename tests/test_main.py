"""The app put together, and the development server in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backend.agent_api import services_of
from backend.auth.agents_file import add_agent
from backend.config import Settings
from backend.errors import AgentsFileError
from backend.main import create_app
from tests.support.agent_service import AgentService
from tests.support.server_process import DEVELOPMENT, REPOSITORY, ServerProcess, raw_request

ROUTES = {
    "/api/agent/generate-3d",
    "/api/agent/batch",
    "/api/agent/cutout",
    "/api/agent/status/<job_id>",
    "/api/agent/status/<job_id>/events",
    "/api/agent/events",
    "/api/agent/jobs",
    "/api/agent/jobs/<job_id>",
    "/api/agent/jobs/<job_id>/again",
    "/api/agent/jobs/<job_id>/files",
    "/api/agent/me",
    "/api/agent/download/<filename>",
    "/api/agent/health",
    "/api/agent/health/live",
    "/api/agent/health/ready",
    "/llms.txt",
    "/mcp",
    "/openapi.json",
    "/docs",
    "/docs/<name>",
    "/metrics",
    "/",
    "/studio",
    "/studio/<path:name>",
    "/studio/session",
}


def test_importing_the_web_side_imports_no_model() -> None:
    modules = "backend.main, backend.serve.gunicorn_worker, backend.batch_processor, backend.api.uploads"
    heavy = "{'torch', 'transformers', 'diffusers', 'celery'} & set(sys.modules)"
    program = f"import sys, threading, {modules}; assert not {heavy}, {heavy}; assert threading.active_count() == 1"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_app_has_these_routes_and_no_others(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path, auth_enabled=False))
    assert {rule.rule for rule in app.url_map.iter_rules()} == ROUTES
    services_of(app).stop()


def test_app_is_made_as_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORFEAS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("AGENT_AUTH_ENABLED", "false")
    services = services_of(create_app())
    assert services.settings == Settings(data_dir=tmp_path, auth_enabled=False)
    services.stop()


def test_app_needs_agents(tmp_path: Path) -> None:
    with pytest.raises(AgentsFileError, match="create the first agent"):
        create_app(Settings(data_dir=tmp_path))


def test_two_apps_of_one_process_have_nothing_in_common(tmp_path: Path) -> None:
    first, second = AgentService(tmp_path / "a"), AgentService(tmp_path / "b")
    job_id = first.submit()
    assert first.get(f"/status/{job_id}").status_code == 200
    second.keys = first.keys
    assert second.get(f"/status/{job_id}").status_code == 401
    accepted = b'orfeas_requests_total{code="",method="POST",route="/api/agent/generate-3d",status="202"}'
    assert accepted in first.services.metrics.exposition()
    assert accepted not in second.services.metrics.exposition()
    first.services.stop()
    second.services.stop()


def test_development_server_serves_and_stops(tmp_path: Path) -> None:
    key = add_agent(tmp_path / "agents.json", "ann")
    with ServerProcess(DEVELOPMENT, tmp_path) as server:
        assert server.ask(raw_request("GET", "/api/agent/health", {})).refusal == (503, "GPU_BUSY")
        for target in (
            "/api/agent/jobs?label=%2F&limit=5",
            "/api/agent/%6Aobs?label=a%20b",
            "/api/agent/jobs?label=%C3%A9",
        ):
            assert server.ask(raw_request("GET", target, signed(key, target))).status == 200
        assert server.ask(raw_request("GET", "/nowhere", {})).refusal == (404, "NOT_FOUND")
        server.process.terminate()
        assert server.ended() == 0
    assert "for development only" in server.output
    assert key not in server.output


def signed(key: str, target: str) -> dict[str, str]:
    import time

    from backend.auth.hmac_signing import sign_request
    from orfeas_client.signing import digest_body

    path, _, query = target.partition("?")
    now, nonce = int(time.time()), f"nonce-{time.monotonic_ns()}"
    return {
        "X-Agent-ID": "ann",
        "X-Agent-Timestamp": str(now),
        "X-Agent-Nonce": nonce,
        "X-Agent-Content-SHA256": digest_body(b""),
        "X-Agent-Signature": sign_request(key, "GET", path, query, "ann", now, nonce, digest_body(b"")),
    }


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [({"RATE_LIMIT": "none"}, "RATE_LIMIT must be a whole number"), ({}, "There is no agents file")],
)
def test_development_server_that_cannot_start_says_why(
    tmp_path: Path, environment: dict[str, str], sentence: str
) -> None:
    with ServerProcess(DEVELOPMENT, tmp_path, **environment) as server:
        assert server.ended() == 2
        assert sentence in server.output
        assert "Traceback" not in server.output
