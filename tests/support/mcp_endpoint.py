"""/mcp of a service under test: asked by the SDK's client over a port, or message by message."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mcp import Client
from mcp.client.extension import ClientExtension
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from backend.api.mcp.protocol import MODERN
from backend.auth.agents_file import add_token
from tests.support.agent_service import AgentService

VERSION, CAPABILITIES = "io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities"
META = {VERSION: MODERN, CAPABILITIES: {}}
"""What a message of 2026-07-28 says of its client, where that knows no extension."""


@dataclass(frozen=True)
class Endpoint:
    """A service, the port that it listens on if it does, and an agent's token."""

    service: AgentService
    port: int
    token: str

    @classmethod
    def of(cls, service: AgentService, agent: str = "ann", port: int = 80) -> Endpoint:
        """Return the endpoint as an agent calls it, by a new token."""
        return cls(service, port, add_token(service.settings.agents_file, agent))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @asynccontextmanager
    async def client(
        self, token: str | None = None, mode: Any = "auto", extensions: Sequence[ClientExtension] = ()
    ) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        async with (
            create_mcp_http_client(headers=headers) as http,
            Client(streamable_http_client(self.url, http_client=http), mode=mode, extensions=extensions) as client,
        ):
            yield client

    def post(self, body: object, **headers: str) -> Any:
        """Send a message by the app's own test client; return the answer."""
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        at = f"http://localhost:{self.port}"
        return self.service.app.test_client().post("/mcp", data=data, headers=sent, base_url=at)

    def ask(self, method: str, params: dict[str, Any], *extensions: str, **headers: str) -> Any:
        """Send a message of 2026-07-28 whose client knows some extensions; return the answer.

        headers : in place of those that the message would have, without those that are ""
        """
        meta = {**META, CAPABILITIES: {"extensions": {name: {} for name in extensions}}}
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        name = str(params.get("taskId", params.get("name", "")))
        sent = {"MCP_Protocol_Version": MODERN, "Mcp_Method": method, "Mcp_Name": name, **headers}
        return self.post(message, **{name: value for name, value in sent.items() if value})
