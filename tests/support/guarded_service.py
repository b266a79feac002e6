"""A tiny app behind the guard, an agent that calls it, and what may be wrong with a call."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, jsonify, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.agent_auth import AgentGuard, require_agent_token, sign_request
from backend.api.statuses import status_of
from backend.auth.agents import AgentConfig, AgentRegistry
from backend.auth.audit_log import AuditLog
from backend.auth.clock_jumps import SignedAt
from backend.auth.nonces import MemoryNonceStore
from backend.auth.rate_limits import RequestLimits
from backend.config import Settings
from backend.errors import AuthUnavailable, ServiceError
from orfeas_client.signing import digest_body

KEY = "secret-key-0123456789abcdef"
OLD_KEY = "former-key-0123456789abcdef"
NOW = 1_760_000_000
AGENT = AgentConfig("a1", (KEY, OLD_KEY))
FAULTS = {
    "missing": (401, "AUTH_MISSING"),
    "invalid": (401, "AUTH_INVALID"),
    "expired": (401, "AUTH_EXPIRED"),
    "disabled": (403, "AGENT_DISABLED"),
    "address": (403, "IP_NOT_ALLOWED"),
    "operation": (403, "OPERATION_NOT_ALLOWED"),
    "replayed": (401, "AUTH_REPLAYED"),
    "unavailable": (503, "AUTH_UNAVAILABLE"),
    "rate": (429, "RATE_LIMITED"),
    "body": (401, "AUTH_BODY_MISMATCH"),
}


PAIRS = [pair for pair in itertools.combinations(FAULTS, 2) if pair != ("replayed", "unavailable")]
"""Of two faults the earlier one is answered; a store that is away cannot know of a replay."""


class Agents(AgentRegistry):
    """Agents without a file."""

    def __init__(self, *agents: AgentConfig) -> None:
        self.known = {agent.agent_id: agent for agent in agents}

    def get(self, agent_id: str) -> AgentConfig | None:
        return self.known.get(agent_id)


class Unreachable(MemoryNonceStore):
    """A nonce store that is away."""

    def remember(self, *_: object) -> bool:
        raise AuthUnavailable(retry_after=7)


class Service:
    """A tiny app behind the guard, and an agent that calls it."""

    def __init__(self, folder: Path, *agents: AgentConfig, **settings: Any) -> None:
        self.now = float(NOW)
        self.settings = Settings(data_dir=folder, **settings)
        self.agents = Agents(*(agents or (AGENT,)))
        self.nonces = MemoryNonceStore()
        self.limits = RequestLimits(self.settings)
        self.app = self._make_app()
        self._numbers = itertools.count()

    def _make_app(self) -> Flask:
        app = Flask("tiny")

        def clock() -> datetime:
            return datetime.fromtimestamp(self.now, UTC)

        audit = AuditLog(self.settings.audit_log, clock)
        self.guard = AgentGuard(self.settings, self.agents, self, self.limits, audit, clock)
        self.guard.init_app(app)
        app.add_url_rule("/generate", "generate", generate, methods=["POST", "GET"])
        app.add_url_rule("/batch", "batch", batch, methods=["POST"])
        app.add_url_rule("/status/<path:name>", "status", status)
        app.add_url_rule("/open", "open", lambda: "open")
        app.register_error_handler(ServiceError, render)
        return app

    def remember(
        self, agent_id: str, nonce: str, now: datetime, ttl: timedelta, signed: SignedAt | None = None
    ) -> bool:
        return self.nonces.remember(agent_id, nonce, now, ttl, signed)

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def headers(self, method: str, target: str, body: bytes = b"", **changed: str) -> dict[str, str]:
        path, _, query = target.partition("?")
        values = {
            "agent_id": "a1",
            "timestamp": str(int(self.now)),
            "nonce": f"nonce-{next(self._numbers):06d}",
            "body_digest": digest_body(body),
            "key": KEY,
            **changed,
        }
        signature = sign_request(
            values["key"],
            method,
            path,
            query,
            values["agent_id"],
            int(values["timestamp"]),
            values["nonce"],
            values["body_digest"],
        )
        return {
            "X-Agent-ID": values["agent_id"],
            "X-Agent-Timestamp": values["timestamp"],
            "X-Agent-Nonce": values["nonce"],
            "X-Agent-Content-SHA256": values["body_digest"],
            "X-Agent-Signature": signature,
        }

    def call(self, method: str = "POST", target: str = "/generate", body: bytes = b"", **changed: str) -> TestResponse:
        return self.client.open(target, method=method, data=body, headers=self.headers(method, target, body, **changed))

    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.settings.audit_log.read_text().splitlines()]


def set_up_faults(service: Service, faults: Collection[str]) -> None:
    """Make those of the faults that lie in the agent or the service; a replayed nonce is "nonce-seen"."""
    agent = replace(
        AGENT,
        enabled="disabled" not in faults,
        allowed_ips=(ip_network("192.0.2.0/24"),) if "address" in faults else (),
        operations=frozenset({"status"} if "operation" in faults else {"generate"}),
        rate_limit=1 if "rate" in faults else 100,
    )
    service.agents.known["a1"] = agent
    if "rate" in faults:
        with service.app.test_request_context("/open"):
            service.limits.admit_agent(agent, "generate")
    if "replayed" in faults:
        moment = datetime.fromtimestamp(service.now, UTC)
        assert service.nonces.remember("a1", "nonce-seen", moment, timedelta(seconds=600))
    if "unavailable" in faults:
        service.nonces = Unreachable()


def render(error: ServiceError) -> tuple[Response, int]:
    retry_after = getattr(error, "retry_after", None)
    answer = jsonify(code=error.code, retry_after=retry_after, error=error.message, details=error.details)
    return answer, status_of(error)


@require_agent_token("generate")
def generate() -> Response:
    body = g.body.read()
    size = int(request.environ["CONTENT_LENGTH"])
    return jsonify(agent=g.agent.agent_id, body=body.decode("latin-1"), size=size, digest=digest_body(body))


@require_agent_token("batch")
def batch() -> Response:
    return jsonify(files=sorted(request.files), fields=request.form)


@require_agent_token("status")
def status(name: str) -> Response:
    return jsonify(name=name, query=request.args)


def answer(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json()["code"]


class Zeros(io.RawIOBase):
    """So many zero bytes, made as they are read; `seen` is called in between."""

    def __init__(self, size: int, seen: Callable[[], None] = lambda: None, breaks: bool = False) -> None:
        self.left, self.seen, self.breaks = size, seen, breaks

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.seen()
        if self.breaks and not self.left:
            raise ConnectionResetError
        size = min(len(buffer), self.left)
        buffer[:size] = bytes(size)
        self.left -= size
        return size
