"""One request and its answer, on a thread: the app called with a body that is read when it is wanted, and not before.

This module does not know which thread that is, or what becomes of the connection.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from gunicorn.http import wsgi  # type: ignore[import-untyped]

from backend.api.request_context import ARRIVAL, WAITING
from backend.api.streaming import STREAM, Stream
from backend.errors import BadFraming, ServiceError
from backend.serve.connections import Connection
from backend.serve.turns import Turns

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ENDLESS = 1 << 60
_SMALL = re.compile(r"/metrics|/api/agent/(?:health(?:/[a-z]+)?|me|jobs(?:/[0-9a-f]{32})?|status/[0-9a-f]{32})")
_WAITS = re.compile(r"\bwait\b")


def is_small(request: Any) -> bool:
    """Return whether a request is answered at once from what is in its head: no body, no file, no waiting.

    What is not known here is not small: the threads kept for small calls never wait for a caller.
    """
    if body_size(request) != 0 or not _SMALL.fullmatch(request.path):
        return False
    return not _WAITS.search(unquote(request.query))


def body_size(request: Any) -> int | None:
    """Return how long a request's body is, None where it comes in chunks."""
    sizes = {name: value for name, value in request.headers if name in ("CONTENT-LENGTH", "TRANSFER-ENCODING")}
    # No length is too long to be refused, but some are for a sum.
    return None if "TRANSFER-ENCODING" in sizes else min(int(sizes.get("CONTENT-LENGTH", 0)), _ENDLESS)


class RequestBody(io.RawIOBase):
    """What the app reads as wsgi.input; who waits to be asked for the body is asked when it is first read."""

    def __init__(self, request: Any, connection: Connection) -> None:
        super().__init__()
        self._body = request.body
        self._connection = connection
        self._left = body_size(request)
        self._asks = bool(request._expected_100_continue)
        # gunicorn would ask before anybody has looked at the request.
        request._expected_100_continue = False
        self.is_over = self._left == 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, all of it but at the end. Raises RequestTooSlow, BadFraming."""
        if self.is_over or not len(buffer):
            return 0
        if self._asks:
            self._asks = False
            self._connection.ask(_CONTINUE)
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self._connection.note_taken(len(data))
        if self._left is not None:
            self._left -= len(data)
            if self._left and len(data) < len(buffer):
                raise BadFraming("The body broke off before the end that Content-Length names.")
        self.is_over = not self._left if self._left is not None else not data
        return len(data)

    def _read(self, size: int) -> bytes:
        try:
            data: bytes = self._body.read(size)
        except ServiceError:
            raise
        except Exception as error:
            # Whatever gunicorn finds wrong with chunks; some of it is an OSError.
            raise BadFraming("The body's chunks are malformed, or it broke off before its end.") from error
        return data


@dataclass(frozen=True)
class Kept:
    """What is left to do with a connection once its request's thread is done with it.

    keep : whether it may have another request; stream : what goes on with it, in chunks or not, in place of that
    """

    keep: bool
    stream: Stream | None = None
    chunked: bool = False


def answer(
    app: Callable[..., Any], request: Any, connection: Connection, config: Any, turns: Turns | None, *, keeps: bool
) -> Kept:
    """Answer a request; return what becomes of the connection. Raises OSError when the caller has gone.

    turns : what the thread takes to work, None where nothing may wait; keeps : whether connections are kept at all
    """
    aside = turns.given_up if turns else None
    connection.begin(body_size(request), aside)
    body = RequestBody(request, connection)
    response, environ = wsgi.create(request, connection, connection.client, connection.server, config)
    streams: list[Stream] = []
    environ |= {"wsgi.multithread": True, "wsgi.input": body, WAITING: aside or nullcontext, STREAM: streams.append}
    environ[ARRIVAL] = (connection.arrived, turns is None)
    goes_on = False
    try:
        with turns.taken() if turns else nullcontext():
            parts = app(environ, response.start_response)
        connection.begin_answer()
        # An app that offered a stream may have failed after that.
        goes_on = bool(streams) and response.status_code in (HTTPStatus.OK, HTTPStatus.SWITCHING_PROTOCOLS)
        try:
            if goes_on or not (keeps and body.is_over):
                response.force_close()
            for part in parts:
                response.write(part)
            _end_part(response, goes_on)
        finally:
            if hasattr(parts, "close"):
                parts.close()
    except BaseException:
        goes_on = False
        raise
    finally:
        if not goes_on:
            for stream in streams:
                stream.ended()
    if goes_on:
        return Kept(keep=False, stream=streams[0], chunked=response.chunked)
    return Kept(keep=not response.should_close())


def _end_part(response: Any, goes_on: bool) -> None:
    """End an answer, or what a stream begins with."""
    if goes_on:
        response.send_headers()
    else:
        response.close()
