"""The studio over HTTP: its files, and the exchange of a code for a key.

The page itself is an agent like any other: it signs what it asks for. This module does not know what the page does.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from typing import Literal

from flask import Blueprint, Flask, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from backend.api.error_handlers import json_response
from backend.api.responses import Success
from backend.auth.loopback import Caller, is_from_here
from backend.auth.studio_codes import StudioCodes
from backend.errors import (
    BadRequest,
    EndpointNotFound,
    FileTooLarge,
    IpNotAllowed,
    LengthRequired,
    StudioCodeInvalid,
)
from backend.services import AgentServices
from backend.studio.invitation import PAGE, studio_agent

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml; charset=utf-8",
}
_INDEX, _OPEN_INDEX = "index.html", "index.html without signatures"
_AUDITED = ("studio", "code")
"""What the audit log calls the exchange, and what it is done with."""

_MOST_BYTES = 1000
_RELEASE = re.compile(r"([0-9a-f]{16})/(.+)")
_FOREVER = "public, max-age=31536000, immutable"


class SessionAnswer(Success):
    """With what the browser signs from now on."""

    agent_id: Literal["studio"] = "studio"
    api_key: str


def register_studio(app: Flask, services: AgentServices) -> None:
    """Put the studio into an app that has the API; `/` leads there."""
    studio = Blueprint("studio", __name__)

    def home() -> AnyResponse:
        return redirect(PAGE, 302)

    def page() -> Response:
        return _file(_INDEX if services.settings.auth_enabled else _OPEN_INDEX)

    def file(name: str) -> Response:
        return _file(name)

    def session() -> Response:
        return _session(services)

    for rule, view, method in (
        ("/", home, "GET"),
        (PAGE, page, "GET"),
        (f"{PAGE}/<path:name>", file, "GET"),
        (f"{PAGE}/session", session, "POST"),
    ):
        studio.add_url_rule(rule, view_func=view, methods=[method], provide_automatic_options=False)
    app.register_blueprint(studio)


def _session(services: AgentServices) -> Response:
    """Exchange a code for the key of the studio's agent, for a browser of this machine alone."""
    settings = services.settings
    with services.guard.visit(*_AUDITED) as visit:
        if not is_from_here(Caller.of(request.environ, request.headers.get), settings.trusted_proxies):
            raise IpNotAllowed("A code opens the studio on this machine alone, at localhost and past no proxy.")
        StudioCodes(services.resources.database, services.clock).redeem(_code())
        visit.verified = True
        agent = studio_agent(settings.agents_file)
        visit.agent_id = agent.agent_id
    return json_response(SessionAnswer(api_key=agent.api_key))


def _code() -> str:
    """Return the code of the request's body, JSON `{"code": "…"}`."""
    if request.content_length is None:
        raise LengthRequired
    if request.content_length > _MOST_BYTES:
        raise FileTooLarge
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError) as error:
        raise BadRequest('Send JSON: {"code": "…"}.') from error
    code = body.get("code") if isinstance(body, dict) else None
    if not isinstance(code, str):
        raise StudioCodeInvalid
    return code


def _file(name: str) -> Response:
    """Return a file of the page. Raises EndpointNotFound.

    name : in a folder that is called by this release's digest, browsers keep it; a page that was opened before an
        upgrade gets the new file in the old folder
    """
    named = _RELEASE.fullmatch(name)
    release, name = named.groups() if named else ("", name)
    if name not in page_files():
        raise EndpointNotFound
    content, content_type, digest = page_files()[name]
    response = Response(content, content_type=content_type)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = _FOREVER if release == _release() else "no-cache"
    response.headers["Vary"] = "Accept-Encoding"
    if request.accept_encodings["gzip"] > 0:
        response.set_data(_gzipped(name))
        response.headers["Content-Encoding"] = "gzip"
        digest += "-gzip"
    response.set_etag(digest)
    response.make_conditional(request)
    return response


@cache
def _gzipped(name: str) -> bytes:
    return gzip.compress(page_files()[name][0], mtime=0)


@cache
def _release() -> str:
    """Return what is another for every other page: a digest of all files that it loads."""
    digests = sorted(f"{name} {digest}" for name, (_, _, digest) in _read_files().items())
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]


@cache
def page_files() -> dict[str, tuple[bytes, str, str]]:
    """Return every file of the page by its path: its bytes, its type and a digest of it."""
    found = dict(_read_files())
    index = found[_INDEX][0].replace(b'"/studio/', f'"{PAGE}/{_release()}/'.encode())
    found[_INDEX] = _made(index, _TYPES["html"])
    found[_OPEN_INDEX] = _made(index.replace(b"<body>", b"<body data-open>"), _TYPES["html"])
    return found


@cache
def _read_files() -> dict[str, tuple[bytes, str, str]]:
    found: dict[str, tuple[bytes, str, str]] = {}
    for path in (files("backend.studio") / "page").iterdir():
        kind = _TYPES.get(path.name.rpartition(".")[2])
        if kind and path.is_file():
            content = path.read_bytes()
            found[path.name] = _made(content, kind)
    return found


def _made(content: bytes, kind: str) -> tuple[bytes, str, str]:
    return content, kind, hashlib.sha256(content).hexdigest()
