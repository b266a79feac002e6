"""gunicorn's threaded worker, hardened: it waits for nobody for ever, and its own refusals are in the API's form.

What is no HTTP request never reaches the app: gunicorn refuses it, and would answer with a page that repeats parts of
it. This module does not know the app.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from gunicorn.http import errors as http_errors  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from backend.api.responses import ErrorAnswer
from backend.errors import BadRequest, ServiceError, StorageFull, StoreUnavailable
from backend.periodic import endless_retries
from backend.telemetry.metrics_server import hang_up

_HEAD_SECONDS = 5.0
"""How long a request line and its headers may take to come."""
_SILENT_SECONDS = 30
"""How long a body may pause on its way in, or an answer on its way out."""

_OPEN_RETRIES = endless_retries(1.0, 1.0)
"""Pauses between two tries to open what is away."""

_STATUSES: Mapping[type[Exception], HTTPStatus] = {
    http_errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    http_errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    http_errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    http_errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    http_errors.ParseException: HTTPStatus.BAD_REQUEST,
}


class AgentWorker(ThreadWorker):  # type: ignore[misc]
    """A worker whose threads no silent caller can keep."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._awaited: dict[Any, float] = {}

    def load_wsgi(self) -> None:
        """Open the app, waiting for a job table that is away or full.

        gunicorn ends the whole service when one new process cannot start: one that died while the job table was away
        would take all others with it, which still answer.
        """
        reported = ""
        pauses = _OPEN_RETRIES.pauses()
        while self.alive:
            try:
                super().load_wsgi()
            except (StoreUnavailable, StorageFull) as error:
                if error.message != reported:
                    self.log.warning("This process waits to start: %s", error.message)
                reported = error.message
                self.notify()
                time.sleep(next(pauses))
            else:
                return
        sys.exit(0)

    def handle(self, conn: Any) -> Any:
        """Read a request and answer it; runs on a thread of the pool."""
        self._awaited[conn] = time.monotonic()
        try:
            silence = struct.pack("ll", _SILENT_SECONDS, 0)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silence)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, silence)
            return super().handle(conn)
        finally:
            self._awaited.pop(conn, None)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose head has come."""
        self._awaited.pop(conn, None)
        return super().handle_request(req, conn)

    def murder_pending(self) -> None:
        """Hang up on those whose request does not come; the loop that accepts calls this every second."""
        super().murder_pending()
        latest = time.monotonic() - _HEAD_SECONDS
        for conn, since in list(self._awaited.items()):
            if since < latest:
                hang_up(conn.sock)

    def handle_error(self, _req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what could not be read as a request, and end its connection."""
        status = next((found for kind, found in _STATUSES.items() if isinstance(exc, kind)), None)
        request_id = uuid.uuid4().hex
        extra = {"refusal_id": request_id, "address": addr[0] if addr else ""}
        if status is None:
            self.log.error("A request could not be handled.", exc_info=exc, extra=extra)
        else:
            self.log.warning("Not a request: %s", exc, extra=extra)
        try:
            client.sendall(_response(status or HTTPStatus.INTERNAL_SERVER_ERROR, request_id))
        except OSError as error:
            self.log.debug("The refusal could not be sent: %s", error)


def _response(status: HTTPStatus, request_id: str) -> bytes:
    error = (ServiceError if status is HTTPStatus.INTERNAL_SERVER_ERROR else BadRequest)()
    body = ErrorAnswer(error=error.message, code=error.code, request_id=request_id, details={}).model_dump_json()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body.encode())}",
        f"X-Request-ID: {request_id}",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
    )
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()
