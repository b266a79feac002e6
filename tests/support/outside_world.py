"""A small world to call: a server with a certificate of its own, and names that resolve as a test says.

Every connection goes to the server, whatever address was asked for; the addresses are kept.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from backend.outgoing import Outgoing

PUBLIC = "93.184.216.34"
HOSTS = ("pictures.test", "other.test")

Page = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class World:
    """Names with their addresses, one list for each time that they are asked for, and pages by path.

    connected : the addresses that were connected to; asked : the names that were resolved; seen : requests as they came
    """

    names: dict[str, list[list[str]]] = field(default_factory=dict)
    pages: dict[str, Page] = field(default_factory=dict)
    connected: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    port: int = 0
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a name: those of HOSTS are public, an address is itself, as the system has it."""
        self.asked.append(host)
        if host in self.names:
            answers = self.names[host]
            return answers.pop(0) if len(answers) > 1 else answers[0]
        if host in HOSTS:
            return [PUBLIC]
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [str(address[0]) for *_, address in found]

    def connect(self, address: tuple[str, int], seconds: float) -> socket.socket:
        """Connect to the server, whatever the address."""
        self.connected.append(address[0])
        return socket.create_connection(("127.0.0.1", self.port), seconds)

    def outgoing(self) -> Outgoing:
        """Return what calls into this world."""
        return Outgoing(self.resolve, self.context, self.connect)


def page(
    body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None, length: int | None = None
) -> Page:
    """Return a page; length : what it says that its body has, its own when None."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirect(url: str) -> Page:
    """Return a page that sends its reader elsewhere."""
    return page(status=302, headers={"Location": url})


@contextmanager
def outside_world(folder: Path) -> Iterator[World]:
    """Give a world whose server runs; folder : for its certificate."""
    key, certificate = folder / "world.key", folder / "world.pem"
    names = ",".join(f"DNS:{name}" for name in HOSTS)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-keyout", str(key), "-out", str(certificate), "-days", "9", "-subj", "/CN=world"]
    subprocess.run([*command, *subject, "-addext", f"subjectAltName={names}"], check=True, capture_output=True)  # noqa: S603
    world = World(context=ssl.create_default_context(cafile=certificate))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            world.seen.append((self.command, self.path, dict(self.headers)))
            world.pages.get(self.path, page(status=404))(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing: a caller that goes away is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    server.block_on_close = False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    world.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
