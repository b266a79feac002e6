"""A worker's /metrics: a small HTTP server on a thread of its own, beside the work.

A worker runs jobs whatever becomes of this: a port that is taken is logged once and tried again. Callers that are slow
or many hold a few threads for a few seconds; prometheus_client's own server has no bound on either (docs/decisions.md).
This module does not know what is on the page.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from backend.auth.loopback import Caller, MetricsReaders
from backend.periodic import endless_retries
from backend.telemetry.worker_metrics import CONTENT_TYPE

PATH = "/metrics"
_CALL_SECONDS = 5.0
"""How long a call may take, from its connection to its end."""
_MOST_CALLS = 16
_POLL_SECONDS = 0.5
_RETRY_SECONDS = 5.0

logger = logging.getLogger(__name__)


class MetricsServer:
    """Show those who may read it what a worker has counted, from `start` to `stop`."""

    def __init__(self, host: str, port: int, readers: MetricsReaders, render: Callable[[], bytes]) -> None:
        """Keep where to listen; nothing listens before `start`.

        port : 0 for no server at all; render : gives the page, called on any thread
        """
        self._address = (host.strip("[]"), port)
        self._readers = readers
        self._render = render
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, once. Returns at once and raises nothing: it listens when it can."""
        if self._address[1] and self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Let go of the port."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(2 * _POLL_SECONDS)

    def _serve(self) -> None:
        pauses = endless_retries(_RETRY_SECONDS, _RETRY_SECONDS).pauses()
        is_reported = False
        while not self._stopping.is_set():
            try:
                with _Listener(self._address, self._readers, self._render) as listener:
                    logger.info("Metrics are on port %d of %s.", self._address[1], self._address[0])
                    listener.serve_until(self._stopping)
            except (OSError, UnicodeError) as error:
                if not is_reported:
                    logger.error("No metrics on port %d of %s: %s", self._address[1], self._address[0], error)
                is_reported = True
                self._stopping.wait(next(pauses))


class _Listener(ThreadingMixIn, TCPServer):
    """Listen, with a thread for each call and no more than _MOST_CALLS."""

    # Connections of a child that was killed a moment ago do not hold the port.
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = _MOST_CALLS

    def __init__(self, address: tuple[str, int], readers: MetricsReaders, render: Callable[[], bytes]) -> None:
        self.readers, self.render = readers, render
        self._room = threading.BoundedSemaphore(_MOST_CALLS)
        self.address_family, _, _, _, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        super().__init__((str(found[0]), address[1]), _Call)

    def serve_until(self, stopping: threading.Event) -> None:
        """Answer calls until this is set."""
        self.timeout = _POLL_SECONDS
        while not stopping.is_set():
            self.handle_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a call on a thread of its own, or hang up when there are too many."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a call, within its time."""
        # A caller that sends byte after byte never meets a socket's own timeout.
        end = threading.Timer(_CALL_SECONDS, hang_up, (request,))
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log what goes wrong with one call; the standard library would print it."""
        logger.debug("A call for metrics failed.", exc_info=True)


class _Call(BaseHTTPRequestHandler):
    server: _Listener
    timeout = _CALL_SECONDS
    # Of what names none: answers have a status line, also those to what is no request.
    default_request_version = "HTTP/1.0"
    server_version, sys_version = "orfeas", ""

    def do_GET(self) -> None:
        """Answer with the page, and with nothing else."""
        if self.path.partition("?")[0] == PATH:
            self._answer(HTTPStatus.OK)
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse what is no request or has another method; nothing of it is repeated."""
        status = HTTPStatus(code)
        self._answer(HTTPStatus.NOT_FOUND if status is HTTPStatus.NOT_IMPLEMENTED else status)

    def log_message(self, format: str, *values: object) -> None:
        """Log no line for each scrape, unless that is wanted."""
        logger.debug(format, *values)

    def _answer(self, status: HTTPStatus) -> None:
        address, port = str(self.client_address[0]), int(self.server.server_address[1])
        # What is no request has no headers, and is told no more than that.
        headers = getattr(self, "headers", None)
        if headers is not None and not self.server.readers.admit(Caller(address, port, headers.get)):
            status = HTTPStatus.FORBIDDEN
        is_page = status is HTTPStatus.OK
        content = self.server.render() if is_page else f"{status.phrase}\n".encode()
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE if is_page else "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def hang_up(connection: socket.socket) -> None:
    """End a connection that another thread waits for; that thread wakes and closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It has ended by itself.
        return
