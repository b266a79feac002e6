"""What happens around every request: its id, its line in the log, its count, and headers that no answer goes without.

This module does not know what is asked or answered.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from flask import Flask, Response, g, request

from backend.auth.agents import AgentConfig
from backend.auth.client_address import client_address
from backend.setting_values import IPNetwork
from backend.telemetry.logs import log_request, logged_jobs
from backend.telemetry.tracing import RequestTrace, Traces

REQUEST_ID_HEADER = "X-Request-ID"

WAITING = "orfeas.waiting"
"""Where the server's own way to wait stands in the environment of a request; see `waiting`."""

ARRIVAL = "orfeas.arrival"
"""Where the server says in the environment when a request's head was whole (time.monotonic), and if it is small."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
GUARDING_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": (
        "default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""What keeps browsers from doing anything with an answer, unless the answer says otherwise itself."""

_PROBES = ("/health", "/metrics")
"""Routes that machines ask without end."""

_FORBIDDEN = (401, 403)

access_log = logging.getLogger("backend.requests")


class RequestCounter(Protocol):
    """Counts requests."""

    def request_answered(self, route: str, method: str, status: int, code: str, seconds: float) -> None:
        """Count an answer; route : the rule it matched, "" for none; code : the error's, "" for none."""

    def answer_began(self, *, small: bool, seconds: float) -> None:
        """Count that an answer began so long after its request was there; small : as serve.exchange.is_small says."""


def give_requests_context(
    app: Flask,
    counter: RequestCounter,
    traces: Traces,
    covered: re.Pattern[str],
    trusted_proxies: Sequence[IPNetwork] = (),
) -> None:
    """Give each request its id, its headers and its line in the log; needed before the guard's init_app.

    traces : take in each request that is no probe
    covered : matches the start of the paths whose answers get them
    trusted_proxies : are believed about who calls
    """

    def begin() -> None:
        g.request_id = _request_id()
        g.request_began = time.monotonic()
        log_request(g.request_id)
        # Machines that look whether we live would drown all other traces.
        is_probe = any(part in request.path for part in _PROBES)
        g.trace = None if is_probe else traces.begin_request(request.headers.get)

    def finish(response: Response) -> Response:
        if not covered.match(request.path):
            return response
        response.headers[REQUEST_ID_HEADER] = g.request_id
        for name, value in GUARDING_HEADERS.items():
            response.headers.setdefault(name, value)
        _note(response, counter, trusted_proxies)
        return response

    def end(_error: BaseException | None) -> None:
        log_request("")
        _end_trace("request", 500)

    app.before_request(begin)
    app.after_request(finish)
    app.teardown_request(end)


def waiting() -> AbstractContextManager[object]:
    """Let others work while the request at hand waits, within the block, for a job or a notice.

    A call that waits keeps a thread, of which there are many (WEB_WAITING), but only a few of them work at once: one
    that waits outside such a block keeps another from its turn. Read nothing inside, and hold no connection to the
    database.
    """
    begin: Callable[[], AbstractContextManager[object]] = request.environ.get(WAITING, nullcontext)
    return begin()


def note_error(code: str, cause: str) -> None:
    """Say which error the request at hand ends with; cause : what only the log is told of it, "" for nothing."""
    g.error_code, g.error_cause = code, cause


def _request_id() -> str:
    """Return the caller's, where it can be written anywhere without harm: both logs then name the same request."""
    given = request.headers.get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _level(route: str, status: int) -> int:
    """Return how loud a request's line is: what is asked again and again, and goes well, would drown all else."""
    if any(part in route for part in _PROBES):
        # Who may not look is one line more than who looks well, and a health that is bad is no news every second.
        return logging.INFO if status in _FORBIDDEN else logging.DEBUG
    looks_only = request.method in ("GET", "HEAD") and "/download/" not in route
    return logging.DEBUG if looks_only and status < 400 else logging.INFO


def _note(response: Response, counter: RequestCounter, trusted_proxies: Sequence[IPNetwork]) -> None:
    seconds = time.monotonic() - g.request_began
    rule = request.url_rule
    route = rule.rule if rule is not None else ""
    code, cause = g.pop("error_code", ""), g.pop("error_cause", "")
    counter.request_answered(route, request.method, response.status_code, code, seconds)
    if arrival := request.environ.get(ARRIVAL):
        arrived, small = arrival
        counter.answer_began(small=small, seconds=time.monotonic() - arrived)
    agent = g.get("agent")
    peer, reported = request.environ.get("REMOTE_ADDR", ""), request.headers.get("X-Forwarded-For", "")
    told = {"http.request.method": request.method, "http.route": route, "orfeas.code": code}
    _end_trace(f"{request.method} {route}".strip(), response.status_code, **told, **_ids(agent))
    access_log.log(
        _level(route, response.status_code),
        "%s %s %d",
        request.method,
        request.path,
        response.status_code,
        extra={
            "route": route,
            "status": response.status_code,
            "code": code,
            "agent": agent.agent_id if agent else "",
            "milliseconds": round(seconds * 1000, 1),
            "address": str(client_address(peer, reported, trusted_proxies) or peer),
            **({"cause": cause} if cause else {}),
        },
    )


def _ids(agent: AgentConfig | None) -> dict[str, str]:
    return {
        "orfeas.request_id": g.request_id,
        "orfeas.agent": agent.agent_id if agent else "",
        "orfeas.job_ids": " ".join(logged_jobs()),
    }


def _end_trace(name: str, status: int, **attributes: str) -> None:
    """End the span of the request at hand, if it has one that goes on."""
    trace: RequestTrace | None = g.pop("trace", None)
    if trace is not None:
        trace.end(name, status, attributes)
