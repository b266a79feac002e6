"""The whole service in one process, with a fake in the GPU's place only, and agents that sign what they send.

Every answer it gives is held against its own OpenAPI document.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema_rs
from werkzeug.test import TestResponse

from backend.auth.agents import load_agents
from backend.auth.agents_file import add_agent
from backend.auth.hmac_signing import sign_request
from backend.config import Settings
from backend.errors import ServiceError
from backend.jobs.health import HealthReader
from backend.jobs.worker_registry import WorkerState, WorkerStatus
from backend.main import create_app
from backend.runner.processor_protocol import ShapeProcessor
from backend.services import AgentServices
from orfeas_client.signing import digest_body
from tests.support.fake_gpu import FakeCall, FakeProcessor
from tests.support.hostile import BOUNDARY, FORM, Part, encode_form
from tests.support.hostile_pictures import good_png
from tests.support.store_backends import ManualClock, make_file

API = "/api/agent"
__all__ = ["API", "BOUNDARY", "FORM", "AgentService", "Part", "agent_service", "encode_form", "good_png"]


class AgentService:
    """An app with its services, and the agents ann and bob."""

    def __init__(self, folder: Path, processor: ShapeProcessor | None = None, **settings: Any) -> None:
        limits = dict.fromkeys(("rate_limit", "batch_rate_limit", "unauthenticated_rate_limit"), 10_000)
        given = {"data_dir": folder, "batch_wait_seconds": 0.0, "sync_wait_seconds": 20.0, **limits}
        self.settings = Settings(**{**given, **settings})
        self.clock = ManualClock()
        self.fake = FakeProcessor()
        known = load_agents(self.settings.agents_file) if self.settings.agents_file.exists() else {}
        self.keys = {
            name: known[name].api_keys[0] if name in known else add_agent(self.settings.agents_file, name)
            for name in ("ann", "bob")
        }
        database = folder / "orfeas.sqlite3"
        if self.settings.database_url == f"sqlite:///{database}" and not database.exists():
            make_file(database)
        opened = AgentServices.from_settings(
            self.settings, clock=self.clock, open_processor=lambda: processor or self.fake
        )
        # What was read is old at once: a test need not wait for a second to be over.
        now = itertools.count(step=60).__next__
        fresh = HealthReader(opened.store, opened.registry, now, opened.health.disk_full)
        self.services = replace(opened, health=fresh)
        self.app = create_app(self.settings, self.services)
        # A folder may be opened twice, which remembers nonces.
        opening = secrets.token_hex(4)
        self._nonces = (f"nonce-{opening}-{k:06d}" for k in itertools.count())

    @cached_property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.app.test_client().get("/openapi.json").data)
        return document

    def owner(self, agent: str) -> str:
        """Return the internal id that an agent's jobs belong to."""
        return load_agents(self.settings.agents_file)[agent].internal_id

    def headers(self, method: str, target: str, body: bytes = b"", agent: str = "ann") -> dict[str, str]:
        """Return the signing headers of a request."""
        path, _, query = target.partition("?")
        timestamp, nonce, digest = int(self.clock().timestamp()), next(self._nonces), digest_body(body)
        signature = sign_request(self.keys[agent], method, path, query, agent, timestamp, nonce, digest)
        return {
            "X-Agent-ID": agent,
            "X-Agent-Timestamp": str(timestamp),
            "X-Agent-Nonce": nonce,
            "X-Agent-Content-SHA256": digest,
            "X-Agent-Signature": signature,
        }

    def call(self, method: str, target: str, body: bytes = b"", *, agent: str = "ann", **headers: str) -> TestResponse:
        """Send a signed request; headers : others, with _ for -."""
        sent = {**self.headers(method, target, body, agent), **{n.replace("_", "-"): v for n, v in headers.items()}}
        return self.checked(self.app.test_client().open(target, method=method, data=body, headers=sent, buffered=True))

    def get(self, target: str, *, agent: str = "ann", **headers: str) -> TestResponse:
        """Send a signed GET of a target below the API's."""
        return self.call("GET", API + target, b"", agent=agent, **headers)

    def generate(self, *parts: Part, agent: str = "ann", **headers: str) -> TestResponse:
        """Ask for one mesh; without parts of a good picture, asynchronously."""
        parts = _without_preview(parts or (Part("async", b"true"), image()))
        sent = {"Content_Type": FORM, **headers}
        return self.call("POST", f"{API}/generate-3d", encode_form(*parts), agent=agent, **sent)

    def batch(self, *parts: Part, agent: str = "ann", **headers: str) -> TestResponse:
        """Ask for several meshes; without parts of two good pictures."""
        parts = _without_preview(parts or (image("images"), image("images")))
        sent = {"Content_Type": FORM, **headers}
        return self.call("POST", f"{API}/batch", encode_form(*parts), agent=agent, **sent)

    def submit(self, *parts: Part, agent: str = "ann") -> str:
        """Return the id of a job that waits."""
        response = self.generate(Part("async", b"true"), image(), *parts, agent=agent)
        assert response.status_code == 202
        return str(response.get_json()["job_id"])

    def made(self, *parts: Part) -> dict[str, Any]:
        """Return the answer for a mesh that was waited for."""
        response = self.generate(image(), *parts)
        assert response.status_code == 200
        answer: dict[str, Any] = response.get_json()
        return answer

    def images(self) -> list[str]:
        """Names of the pictures that are stored."""
        folder = self.settings.data_dir / "inputs"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def checked(self, response: TestResponse) -> TestResponse:
        """Return an answer once it was found to be one that the document describes."""
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", response.headers["X-Request-ID"])
        assert ("Retry-After" in response.headers) == _may_ask_again(response)
        path = response.request.path
        operation = self._operation(path, response.request.method)
        if operation is None:
            return response
        documented = operation["responses"][str(response.status_code)]
        if response.request.method == "HEAD" or "content" not in documented:
            return response
        schema = documented["content"][response.mimetype]["schema"]
        if response.mimetype == "application/json":
            whole = {**schema, "components": self.document["components"]}
            jsonschema_rs.Draft202012Validator(whole).validate(response.get_json())
        return response

    def _operation(self, path: str, method: str) -> dict[str, Any] | None:
        for template, item in self.document["paths"].items():
            if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), path):
                operation: dict[str, Any] | None = item.get({"HEAD": "get"}.get(method, method.lower()))
                return operation
        return None


def _without_preview(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Leave the preview away unless it is asked for: it takes longer than everything else."""
    return parts if any(part.name == "preview" for part in parts) else (*parts, field("preview", "false"))


def image(field: str = "image", content: bytes | None = None) -> Part:
    """Return a part with a small good picture."""
    return Part(field, good_png() if content is None else content, "cat.png", "image/png")


def field(name: str, value: str) -> Part:
    return Part(name, value.encode())


def report_worker(service: AgentService, status: WorkerStatus, owner: str = "w") -> None:
    """Have a worker report itself to a service."""
    state = WorkerState(owner, status, "m", "cuda", "GPU", 100, 40)
    service.services.registry.beat(state, 60)


def fail_with(service: AgentService, error: ServiceError) -> None:
    """Have every image end with this error from now on."""

    def spoil(call: FakeCall) -> None:
        service.fake.errors.update(dict.fromkeys(call.images, error))

    service.fake.before_call = spoil


@contextmanager
def agent_service(
    folder: Path, *, running: bool = False, processor: ShapeProcessor | None = None, **settings: Any
) -> Iterator[AgentService]:
    """Open a service, stopped at the end; running : its worker works; processor : in the fake's place."""
    service = AgentService(folder, processor, **settings)
    if running:
        service.services.start()
    try:
        yield service
    finally:
        service.services.stop()


def refused(response: TestResponse) -> tuple[int, str]:
    """Return an error's status and code, which stand in the answer as they should."""
    answer = response.get_json()
    assert answer["success"] is False
    assert answer["request_id"] == response.headers["X-Request-ID"]
    return response.status_code, answer["code"]


def _may_ask_again(response: TestResponse) -> bool:
    if response.status_code == 409:
        return bool(response.get_json()["code"] == "BATCH_UNFINISHED")
    if response.status_code in (429, 503):
        return bool(response.get_json()["code"] != "OUT_OF_MEMORY")
    if response.request.method == "HEAD" or response.mimetype != "application/json":
        return "Retry-After" in response.headers
    if response.status_code == 202:
        return True
    unfinished = response.get_json().get("status") in ("queued", "processing")
    return "/status/" in response.request.path and response.status_code == 200 and unfinished
