"""The Model Context Protocol's messages: what a request must be, in both eras, and the forms of its answers.

Of 2026-07-28 each request says by itself which version it speaks; those of 2025 begin with a handshake, which here
leaves nothing behind. So there are no sessions, and any process answers any request. This module does not know HTTP, or
which tools there are.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

MODERN = "2026-07-28"
HANDSHAKE = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Versions that begin with `initialize`, newest first."""

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32020, -32021, -32022
_STATUSES = {METHOD_NOT_FOUND: HTTPStatus.NOT_FOUND, INTERNAL_ERROR: HTTPStatus.SERVICE_UNAVAILABLE}

_META = "_meta"
_VERSION = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
_SERVER_INFO = "io.modelcontextprotocol/serverInfo"
_FRESH_MILLISECONDS = 60_000
_ENCODED = re.compile(r"=\?base64\?(.*)\?=")

Header = Callable[[str], str | None]


class ProtocolError(Exception):
    """A message that is not answered as a call: JSON-RPC's code, a sentence, and the HTTP status."""

    def __init__(self, code: int, message: str, data: object = None, id: object = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data, self.id = code, message, data, id
        self.status = _STATUSES.get(code, HTTPStatus.BAD_REQUEST)


@dataclass(frozen=True)
class Message:
    """A request, or a notification, whose id is None; version : that it is spoken in."""

    id: str | int | None
    method: str
    params: Mapping[str, Any]
    version: str

    @property
    def is_modern(self) -> bool:
        """Whether it says all about itself."""
        return self.version == MODERN

    @property
    def progress_token(self) -> str | int | None:
        """What the client wants to hear of progress under, if it does."""
        meta = self.params.get(_META)
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        return token if isinstance(token, str | int) and not isinstance(token, bool) else None

    def declares(self, extension: str) -> bool:
        """Return whether its client says in this request that it knows an extension; one of 2025 cannot say so."""
        meta = self.params.get(_META)
        capabilities = meta.get(_CAPABILITIES) if isinstance(meta, dict) else None
        extensions = capabilities.get("extensions") if isinstance(capabilities, dict) else None
        return self.is_modern and isinstance(extensions, dict) and isinstance(extensions.get(extension), dict)


def read_message(body: bytes, header: Header) -> Message:
    """Return the message of a request. Raises ProtocolError."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(PARSE_ERROR, "The body is not JSON.") from error
    if not isinstance(found, dict) or found.get("jsonrpc") != "2.0":
        raise ProtocolError(
            INVALID_REQUEST, "The body must be one JSON-RPC 2.0 message; several at once are not taken."
        )
    id, method, params = found.get("id"), found.get("method"), found.get("params", {})
    if isinstance(id, bool) or not isinstance(id, str | int | None) or not isinstance(params, dict):
        raise ProtocolError(INVALID_REQUEST, "`id` must be a text or a whole number, and `params` an object.")
    if not isinstance(method, str):
        # An answer to a question; none is ever asked.
        raise ProtocolError(INVALID_REQUEST, "The message has no method.", id=id)
    return Message(id, method, params, _version_of(id, method, params, header))


def _version_of(id: str | int | None, method: str, params: Mapping[str, Any], header: Header) -> str:
    """Return the version that a message is in, once its headers agree with it. Raises ProtocolError."""
    meta = params.get(_META)
    said = meta.get(_VERSION) if isinstance(meta, dict) else None
    in_header = header("MCP-Protocol-Version")
    if method == "initialize" and said is None:
        return HANDSHAKE[0]
    if said is None and (in_header is None or in_header in HANDSHAKE):
        return in_header or HANDSHAKE[-1]
    version = said if said is not None else in_header
    if version != MODERN:
        data = {"supported": [MODERN, *HANDSHAKE], "requested": str(version)[:40]}
        raise ProtocolError(UNSUPPORTED_VERSION, "This version of the protocol is not spoken here.", data, id)
    if said is None or not isinstance(meta, dict) or not isinstance(meta.get(_CAPABILITIES), dict):
        raise ProtocolError(INVALID_PARAMS, f"params._meta must have {_VERSION} and {_CAPABILITIES}.", id=id)
    expected = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
    if method == "tools/call":
        expected["Mcp-Name"] = str(params.get("name"))
    elif method.startswith("tasks/") and header("Mcp-Name") is not None:
        # It leads a proxy to the process that keeps the task; here any of them does, so it may be missing.
        expected["Mcp-Name"] = str(params.get("taskId"))
    for name, value in expected.items():
        if _decoded(header(name)) != value:
            raise ProtocolError(HEADER_MISMATCH, f"The header {name} must be as the body has it.", id=id)
    return MODERN


def _decoded(value: str | None) -> str | None:
    """Return a header's value, as plain text where it was wrapped in base64; None for one that is wrapped badly."""
    match = _ENCODED.fullmatch(value or "")
    if match is None:
        return value
    try:
        return base64.b64decode(match[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def initialized(params: Mapping[str, Any], server: Mapping[str, str], instructions: str) -> dict[str, Any]:
    """Return the result of the handshake: the version that was asked for, or the newest that begins with one."""
    asked = params.get("protocolVersion")
    return {
        "protocolVersion": asked if asked in HANDSHAKE else HANDSHAKE[0],
        "capabilities": {"tools": {}},
        "serverInfo": dict(server),
        "instructions": instructions,
    }


def discovered(server: Mapping[str, str], instructions: str, extensions: Sequence[str]) -> dict[str, Any]:
    """Return what the server says of itself to who asks without a handshake; extensions : that it knows, by name."""
    return {
        "supportedVersions": [MODERN, *HANDSHAKE],
        "capabilities": {"tools": {}, "extensions": {name: {} for name in extensions}},
        "instructions": instructions,
        "ttlMs": _FRESH_MILLISECONDS,
        "cacheScope": "private",
        _META: {_SERVER_INFO: dict(server)},
    }


def listed(tools: list[dict[str, Any]], message: Message) -> dict[str, Any]:
    """Return the result that lists tools."""
    fresh = {"ttlMs": _FRESH_MILLISECONDS, "cacheScope": "private"} if message.is_modern else {}
    return {"tools": tools, **fresh}


def answer(message: Message, result: Mapping[str, Any]) -> str:
    """Return a result as JSON text."""
    whole = {"resultType": "complete", **result} if message.is_modern else result
    return json.dumps({"jsonrpc": "2.0", "id": message.id, "result": whole}, ensure_ascii=False)


def refusal(error: ProtocolError) -> str:
    """Return an error as JSON text."""
    said = {"code": error.code, "message": error.message} | ({} if error.data is None else {"data": error.data})
    return json.dumps({"jsonrpc": "2.0", "id": error.id, "error": said}, ensure_ascii=False)


def progress(token: str | int, value: float, text: str) -> str:
    """Return a notification of progress, per cent, as JSON text."""
    params = {"progressToken": token, "progress": value, "total": 100, "message": text}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}, ensure_ascii=False)


def as_event(text: str) -> bytes:
    """Return a message as a Server-Sent Event."""
    return f"event: message\ndata: {text}\n\n".encode()
