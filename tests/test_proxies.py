"""nginx and Caddy in front of the service, each with its file of deploy/: what agents send and get is as without."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

import backend
from backend.config import Settings
from orfeas_client import AgentClient
from tests.support.hostile import FORM, Part, encode_form
from tests.support.hostile_pictures import good_png
from tests.support.proxies import KINDS, NAME, Proxy, running_proxy
from tests.support.running import API, RunningService, running_service

PUBLIC = "203.0.113.7"
# Of a body: Caddy's HTTP library sends a head on together with the first 4 KB after it.
BEGUN = 65536


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run a service whose jobs wait, and which believes a proxy on this machine."""
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, RunningService, works=False, TRUSTED_PROXIES="127.0.0.1") as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def proxy(
    request: pytest.FixtureRequest, service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """Run each proxy in front of it."""
    with running_proxy(request.param, tmp_path_factory.mktemp(request.param), service.port) as running:
        yield running


def called(
    proxy: Proxy, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Send one request through a proxy; return status and body."""
    connection = proxy.connect()
    try:
        connection.request(method, target, body or None, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def large_png(size: int) -> bytes:
    """Return a picture of so many bytes: a small one with a chunk that readers pass over."""
    small = good_png()
    end = small.rindex(b"IEND") - 4
    data = bytes(size - len(small) - 12)
    chunk = b"orFs" + data
    return small[:end] + struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + small[end:]


@pytest.mark.parametrize(
    "target",
    [
        f"{API}/jobs?label=a%2Fb%20c%7e&status=queued&limit=3",
        f"{API}/jobs?status=queued&label=%C3%A9%2B+",
        f"{API}/jobs?label=a+b%26c",
    ],
)
def test_a_signed_path_and_query_go_on_as_they_came(proxy: Proxy, service: RunningService, target: str) -> None:
    status, body = called(proxy, "GET", target, headers=service.sign("GET", target))
    assert status == 200, body


def test_http_2_is_spoken_and_leaves_signatures_whole(proxy: Proxy, service: RunningService) -> None:
    target = f"{API}/me"
    headers = [part for name, value in service.sign("GET", target).items() for part in ("-H", f"{name}: {value}")]
    shown = [
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{http_code}",
        "--http2",
        "--cacert",
        str(proxy.certificate),
    ]
    told = subprocess.check_output(["curl", *shown, *headers, f"{proxy.address}{target}"], text=True)  # noqa: S603, S607
    assert told == "2 200"


def test_the_client_sends_a_picture_of_50_mb(proxy: Proxy, service: RunningService) -> None:
    picture = large_png(Settings().max_image_bytes)
    body = encode_form(Part("async", b"true"), Part("image", picture, "large.png", "image/png"))
    target = f"{API}/generate-3d"
    headers = {**service.sign("POST", target, body), "Content-Type": FORM}
    status, answer = called(proxy, "POST", target, body, headers)
    assert status == 202, answer


def test_a_request_is_refused_before_its_body_has_come(proxy: Proxy) -> None:
    """A proxy that keeps the body back until it is whole would wait for the rest."""
    context = ssl.create_default_context(cafile=proxy.certificate)
    head = f"POST {API}/generate-3d HTTP/1.1\r\nHost: {NAME}:{proxy.port}\r\nContent-Length: 1000000\r\n\r\n"
    with (
        socket.create_connection((NAME, proxy.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as connection,
    ):
        connection.sendall(head.encode() + bytes(BEGUN))
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_a_web_socket_is_opened(proxy: Proxy, service: RunningService) -> None:
    context = ssl.create_default_context(cafile=proxy.certificate)
    target = f"{API}/events"
    lines = [f"GET {target} HTTP/1.1", f"Host: {NAME}:{proxy.port}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="]
    lines += [f"{name}: {value}" for name, value in service.sign("GET", target).items()]
    with (
        socket.create_connection((NAME, proxy.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as connection,
    ):
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("proxy", ["nginx"], indirect=True)
def test_a_body_beyond_every_bound_is_refused_by_its_length(proxy: Proxy) -> None:
    """Caddy has no such bound: it counts what comes, and ends a request at 550 MB."""
    connection = proxy.connect()
    connection.putrequest("POST", f"{API}/batch")
    connection.putheader("Content-Length", str(600 << 20))
    connection.endheaders()
    connection.send(bytes(BEGUN))
    assert connection.getresponse().status == 413
    connection.close()


def test_connections_to_the_service_are_kept(proxy: Proxy, service: RunningService) -> None:
    before = ports_towards(service)
    connection = proxy.connect()
    for _ in range(20):
        connection.request("GET", f"{API}/health/live")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    connection.close()
    assert len(ports_towards(service) - before) <= 2


def ports_towards(service: RunningService) -> set[int]:
    """Return the port at the other end of each connection to the service, of those that have just ended, too."""
    connections = psutil.net_connections("tcp4")
    return {found.laddr.port for found in connections if found.raddr and found.raddr.port == service.port}


@pytest.mark.parametrize(
    "target", ["/metrics", "/metrics?a=b", "//metrics", "/%6detrics", "/./metrics", "/a/../metrics"]
)
def test_metrics_are_for_nobody_outside(proxy: Proxy, target: str) -> None:
    status, body = called(proxy, "GET", target)
    assert status in (403, 404)
    assert b"orfeas_" not in body


def test_the_service_sees_who_calls_and_believes_no_caller_about_that(proxy: Proxy, service: RunningService) -> None:
    target = f"{API}/jobs?label=whence"
    lies = {"X-Forwarded-For": PUBLIC, "Forwarded": f"for={PUBLIC}", "X-Forwarded-Proto": "http"}
    agent = service.add_agent(allowed_ips=["127.0.0.1"])
    assert called(proxy, "GET", target, headers={**service.sign("GET", target, agent=agent), **lies})[0] == 200
    agent = service.add_agent(allowed_ips=[PUBLIC])
    assert called(proxy, "GET", target, headers={**service.sign("GET", target, agent=agent), **lies})[0] == 403


def test_browsers_are_told_to_stay_with_https(proxy: Proxy) -> None:
    connection = proxy.connect()
    for target in (f"{API}/health/live", "/metrics", "/nowhere"):
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
    connection.close()


@pytest.mark.parametrize("path", ["/", "/docs", "/studio"])
def test_without_tls_people_are_led_to_it(proxy: Proxy, path: str) -> None:
    assert called_in_the_clear(proxy, path) == (308, f"https://{NAME}{path}")


@pytest.mark.parametrize("path", [f"{API}/me", f"{API}/health/live", "/mcp", "/metrics", "/openapi.json"])
def test_without_tls_programs_are_refused(proxy: Proxy, path: str) -> None:
    """One that was led on would send its token in the clear each time, and nobody would notice."""
    assert called_in_the_clear(proxy, path) == (403, None)


def called_in_the_clear(proxy: Proxy, path: str) -> tuple[int, str | None]:
    """Send a request without TLS; return the status, and where the answer leads."""
    connection = HTTPConnection(NAME, proxy.plain_port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location")
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("ciphers", "is_taken"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", True),
        ("ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA", False),
    ],
)
def test_tls_1_2_is_spoken_with_authenticated_ciphers_alone(proxy: Proxy, ciphers: str, is_taken: bool) -> None:
    context = ssl.create_default_context(cafile=proxy.certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    refusal = nullcontext() if is_taken else pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE")
    with socket.create_connection((NAME, proxy.port), timeout=30) as plain, refusal:
        context.wrap_socket(plain, server_hostname=NAME).close()


def test_older_tls_is_not_spoken(proxy: Proxy) -> None:
    context = ssl.create_default_context(cafile=proxy.certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((NAME, proxy.port), timeout=30) as plain,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        context.wrap_socket(plain, server_hostname=NAME)


def test_the_log_has_no_query(proxy: Proxy) -> None:
    called(proxy, "GET", f"{API}/download/{'a' * 32}.glb?signature=the-secret-of-a-link")
    deadline = time.monotonic() + 30
    while "a" * 32 not in (told := proxy.log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "a" * 32 in told
    assert "the-secret-of-a-link" not in told


@pytest.mark.parametrize("kind", KINDS)
def test_events_go_on_one_by_one(kind: str, tmp_path: Path) -> None:
    """Each is sent only when the one before has come through."""
    came = threading.Event()

    def serve(listener: socket.socket) -> None:
        while True:
            peer, _ = listener.accept()
            with peer:
                if not peer.recv(65536):
                    continue  # whoever only looks whether somebody is there
                peer.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for _ in range(3):
                    peer.sendall(b"9\r\ndata: x\n\n\r\n")
                    assert came.wait(30)
                    came.clear()
                peer.sendall(b"0\r\n\r\n")
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        with running_proxy(kind, tmp_path, listener.getsockname()[1]) as running:
            connection = running.connect()
            connection.request("GET", f"{API}/events")
            answer = connection.getresponse()
            for _ in range(3):
                assert answer.readline() + answer.readline() == b"data: x\n\n"
                came.set()
            assert answer.read() == b""
            connection.close()
        thread.join()


def test_the_python_client_goes_through(proxy: Proxy, service: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(proxy.certificate))
    agent = service.agent
    with AgentClient(proxy.address, agent.agent_id, agent.api_key) as client:
        assert client.health().version == backend.__version__
