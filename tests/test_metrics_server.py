"""A worker's own /metrics: who is told, that nobody can stop it, and that it stops nobody."""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import pytest

from backend.auth.loopback import MetricsReaders
from backend.setting_values import IPNetwork
from backend.telemetry import metrics_server
from backend.telemetry.metrics_server import MetricsServer
from benchmarks.support.ports import free_port
from tests.support.workshop import eventually

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
ELSEWHERE = (ipaddress.ip_network("192.0.2.0/24"),)
TOKEN = "a-token-for-prometheus"  # noqa: S105


def get(request: str = "GET /metrics HTTP/1.1", *headers: str, port: int = 0) -> bytes:
    """Return a request from this machine, whose Host is right for the port."""
    return "\r\n".join((request, f"Host: localhost:{port}", *headers, "", "")).encode()


@contextmanager
def serving(port: int, allowed: Sequence[IPNetwork] = LOOPBACK, host: str = "127.0.0.1") -> Iterator[MetricsServer]:
    server = MetricsServer(host, port, MetricsReaders(tuple(allowed), TOKEN), lambda: b"told 1\n")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ask(port: int, request: bytes | None = None, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Status and body; 0 when nobody listens or the caller is hung up on."""
    request = get(port=port) if request is None else request
    try:
        with socket.create_connection((host, port), timeout=20) as connection:
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def test_who_may_is_told(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with serving(port):
        eventually(lambda: ask(port) == (200, b"told 1\n"))
        assert ask(port, get("GET /metrics?name=x HTTP/1.0", port=port)) == (200, b"told 1\n")
    assert ask(port) == (0, b"")
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def has_ipv6() -> bool:
    """Whether this machine has a loopback of that kind: some containers do not."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_it_listens_where_it_is_told() -> None:
    port = free_port("::1")
    with serving(port, (ipaddress.ip_network("::1/128"),), "::1"):
        eventually(lambda: ask(port, host="::1")[0] == 200)


@pytest.mark.parametrize("allowed", [ELSEWHERE, ()])
def test_others_are_refused_whatever_they_ask(allowed: Sequence[IPNetwork]) -> None:
    port = free_port()
    with serving(port, allowed):
        eventually(lambda: ask(port)[0] == 403)
        forged = b"GET /metrics HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
        for request in (forged, b"GET /nothing HTTP/1.1\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n"):
            assert ask(port, request) == (403, b"Forbidden\n")


def test_the_token_opens_it_from_anywhere_and_a_proxy_on_this_machine_does_not() -> None:
    port = free_port()
    with serving(port):
        eventually(lambda: ask(port)[0] == 200)
        assert ask(port, get("GET /metrics HTTP/1.1", "X-Forwarded-For: 127.0.0.1", port=port))[0] == 403
        assert ask(port, get("GET /metrics HTTP/1.1", port=port + 1))[0] == 403
    with serving(port, ()):
        eventually(lambda: ask(port)[0] == 403)
        assert ask(port, get("GET /metrics HTTP/1.1", f"Authorization: Bearer {TOKEN}", port=port))[0] == 200
        assert ask(port, get("GET /metrics HTTP/1.1", f"Authorization: Bearer {TOKEN}x", port=port))[0] == 403


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET / HTTP/1.1", 404),
        ("GET /metrics/ HTTP/1.1", 404),
        ("GET /metricsx HTTP/1.1", 404),
        ("POST /metrics HTTP/1.1", 404),
        ("HEAD /metrics HTTP/1.1", 404),
        ("<script> /metrics HTTP/1.1", 404),
        (b"GET /metrics HTTP/banana\r\n\r\n", 400),
        # To the last byte that is read: what is left unread would break the connection before its answer is.
        (b"GET /" + b"a" * (65537 - 5), 414),
        (b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 101, 431),
        (b"\x16\x03\x01\x00\xee\x01\x00\r\n\r\n", 400),
    ],
)
def test_nothing_else_is_there(request_: bytes | str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    with serving(port):
        eventually(lambda: ask(port)[0] == 200)
        found, body = ask(port, get(request_, port=port) if isinstance(request_, str) else request_)
        assert found == status
        assert b"script" not in body
        assert ask(port)[0] == 200
    assert capsys.readouterr() == ("", "")


def test_slow_callers_and_many_are_hung_up_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics_server, "_CALL_SECONDS", 3.0)
    monkeypatch.setattr(metrics_server, "_MOST_CALLS", 3)
    port = free_port()
    with serving(port), ExitStack() as stack:
        eventually(lambda: ask(port)[0] == 200)
        slow: list[socket.socket] = []
        while has_room(port):
            slow.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)))
        assert len(slow) >= 3
        drip(slow[-1])
        assert all(ended(each) for each in slow[:-1])
        eventually(lambda: ask(port)[0] == 200)
    assert capsys.readouterr() == ("", "")


def has_room(port: int) -> bool:
    """Ask three times: one call may be hung up on because another, which has its answer, is still being put away."""
    for _ in range(3):
        if ask(port)[0] == 200:
            return True
        time.sleep(0.1)
    return False


def drip(connection: socket.socket) -> None:
    """Send byte after byte until it is hung up on; fails when it never is."""
    connection.settimeout(0.2)

    def hung_up() -> bool:
        try:
            connection.sendall(b"G")
            return connection.recv(100) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    eventually(hung_up)


def ended(connection: socket.socket) -> bool:
    connection.settimeout(20)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_taken_port_is_said_once_and_had_when_it_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics_server, "_RETRY_SECONDS", 0.05)

    def errors() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]

    with closing(socket.create_server(("127.0.0.1", 0))) as holder:
        port = holder.getsockname()[1]
        with serving(port):
            eventually(lambda: len(errors()) == 1)
            time.sleep(0.3)
            holder.close()
            eventually(lambda: ask(port)[0] == 200)
    (said,) = errors()
    assert str(port) in said


@pytest.mark.parametrize("host", ["no such host", "192.0.2.77"])
def test_an_address_that_is_not_there_stops_nobody(host: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(free_port(), host=host):
        eventually(lambda: "No metrics on port" in caplog.text)


def test_the_next_server_has_the_port_at_once() -> None:
    port = free_port()
    for _ in range(3):
        with serving(port):
            eventually(lambda: ask(port)[0] == 200)


def test_without_a_port_there_is_no_server() -> None:
    with serving(0) as server:
        assert server._thread is None
