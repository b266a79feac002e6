"""The endpoint: one POST for each message, answered in JSON, or as a stream where a job is waited for.

A client that knows tasks is not made to wait: it gets one in place of the stream.

Nothing is remembered between two messages. This module does not know how a tool is carried out.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, current_app, g, request

from backend import __version__
from backend.agent_auth import TOOL_CALL, require_agent_token
from backend.api.describing import describe
from backend.api.event_hub import EventHub
from backend.api.event_streams import CONTENT_TYPE
from backend.api.following import links
from backend.api.mcp import protocol, tasks
from backend.api.mcp.calls import ToolCaller, Waits
from backend.api.mcp.results import error_result, job_result
from backend.api.mcp.tools import INSTRUCTIONS, Inputs, Tool, all_tools, tools_for
from backend.api.mcp.waiting import ResultStream
from backend.api.streaming import stream_response
from backend.api.submissions import Submitter
from backend.auth.loopback import Caller, is_from_here, require_own_page
from backend.errors import ServiceError, StoreUnavailable, TooManyStreams
from backend.jobs.models import Batch, Job
from backend.services import AgentServices

PATH = "/mcp"
_EXTENSION = "agent_mcp"
_SERVER = {"name": "orfeas", "title": "ORFEAS: pictures to 3D meshes", "version": __version__}
_NOT_TOLD = "The tool is unknown, or this agent was not granted what it needs."
_FINISHERS = 2


@dataclass(frozen=True)
class McpServer:
    """What the endpoint of an app works with."""

    services: AgentServices
    submitter: Submitter
    hub: EventHub
    finishers: ThreadPoolExecutor

    def tools(self) -> list[Tool]:
        """Return the tools that the agent at hand may use."""
        settings = self.services.settings
        return tools_for(g.agent.operations, Inputs(settings.image_urls != "off", bool(settings.text_to_image_model)))


def mcp_blueprint(services: AgentServices, submitter: Submitter, hub: EventHub) -> Blueprint:
    """Return /mcp for an app."""
    blueprint = Blueprint("mcp", __name__)
    finishers = ThreadPoolExecutor(_FINISHERS, "mcp result")
    server = McpServer(services, submitter, hub, finishers)
    services.at_end.append(lambda: finishers.shutdown(wait=False))
    blueprint.record(lambda state: state.app.extensions.update({_EXTENSION: server}))
    blueprint.add_url_rule(PATH, "message", message, methods=["POST"], provide_automatic_options=False)
    return blueprint


@require_agent_token(TOOL_CALL)
def message() -> Response:
    """Answer one message of the protocol."""
    server: McpServer = current_app.extensions[_EXTENSION]
    origin = _origin(server.services)
    try:
        found = protocol.read_message(g.body.read(), request.headers.get)
        return _answered(server, found, origin)
    except protocol.ProtocolError as error:
        return Response(protocol.refusal(error), error.status, content_type="application/json")


def _origin(services: AgentServices) -> str | None:
    """Return what our addresses begin with, None where nobody knows. Raises IpNotAllowed for another's page."""
    public, proxies = services.settings.public_url, services.settings.trusted_proxies
    caller = Caller.of(request.environ, request.headers.get)
    require_own_page(caller, public, proxies)
    return public or (request.host_url.rstrip("/") if is_from_here(caller, proxies) else None)


def _answered(server: McpServer, message: protocol.Message, origin: str | None) -> Response:
    """Return the answer to a message. Raises ProtocolError."""
    if message.id is None:
        return Response(status=202)
    if message.method == "tools/call":
        return _called(server, message, origin)
    if message.method in tasks.METHODS and message.is_modern:
        caller = ToolCaller(server.services, server.submitter, g.agent, links())
        return _json(message, tasks.answer(caller, message, lambda found: _told(caller, found, origin)))
    said = _said(server, message)
    if said is None:
        raise protocol.ProtocolError(protocol.METHOD_NOT_FOUND, "There is no such method here.", id=message.id)
    return _json(message, said)


def _said(server: McpServer, message: protocol.Message) -> dict[str, Any] | None:
    """Return what the server says of itself and its tools; None for another method, or one of the other era."""
    if message.method == "tools/list":
        return protocol.listed([tool.listed() for tool in server.tools()], message)
    if message.is_modern:
        discovered = protocol.discovered(_SERVER, INSTRUCTIONS, [tasks.EXTENSION])
        return discovered if message.method == "server/discover" else None
    if message.method == "initialize":
        return protocol.initialized(message.params, _SERVER, INSTRUCTIONS)
    return {} if message.method == "ping" else None


def _called(server: McpServer, message: protocol.Message, origin: str | None) -> Response:
    name, arguments = message.params.get("name"), message.params.get("arguments") or {}
    known = [tool.name for tool in server.tools()]
    if name not in known or not isinstance(arguments, dict):
        data = {"allowed": known}
        raise protocol.ProtocolError(protocol.INVALID_PARAMS, _NOT_TOLD, data, message.id)
    caller = ToolCaller(server.services, server.submitter, g.agent, links())
    try:
        if name == "generate_batch":
            server.services.guard.count_batch(g.agent)
        outcome = caller.call(name, arguments)
        if not isinstance(outcome, Waits):
            return _json(message, outcome)
        if outcome.seconds > 0 and not outcome.found.status.finished:
            if tasks.are_wanted(message):
                return _json(message, tasks.created(caller, outcome.found))
            return _waited(server, message, caller, outcome, origin)
        return _json(message, _told(caller, outcome.found, origin))
    except ServiceError as error:
        return _json(message, error_result(error))


def _told(caller: ToolCaller, found: Job | Batch, origin: str | None) -> dict[str, Any]:
    """Return the result that tells how a job or batch is. Raises StoreUnavailable, ArtifactStoreUnavailable."""
    return job_result(describe(caller.services, found, caller.links), origin, caller.pictures_of(found))


def _waited(
    server: McpServer, message: protocol.Message, caller: ToolCaller, waits: Waits, origin: str | None
) -> Response:
    """Return a stream that ends with the result. Raises TooManyStreams."""
    agent_id = caller.agent.internal_id
    if not server.services.stream_slots.take(agent_id):
        raise TooManyStreams(details={"job_id": waits.found.id})

    def finish() -> str:
        try:
            result = _told(caller, _now(caller.services, waits.found, agent_id), origin)
        except ServiceError as error:
            result = error_result(error)
        return protocol.answer(message, result)

    stream = ResultStream(
        server.hub,
        server.services.stream_slots,
        caller.agent,
        caller.links,
        waits.found,
        message,
        finish,
        server.finishers,
        time.monotonic() + waits.seconds,
        all_tools()[str(message.params["name"])].operation,
    )
    return stream_response(stream, b": waiting\n\n", CONTENT_TYPE)


def _now(services: AgentServices, found: Job | Batch, agent_id: str) -> Job | Batch:
    """Return a job or batch as it is now, or as it was where the table is away. Raises JobNotFound, Expired."""
    try:
        return services.store.find(found.id, agent_id)
    except StoreUnavailable:
        return found


def _json(message: protocol.Message, result: dict[str, Any]) -> Response:
    return Response(protocol.answer(message, result), content_type="application/json")
