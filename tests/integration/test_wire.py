"""Bytes on a socket, and the one exact answer to each; what is slow, in small steps, or given up half-way."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO

import pytest

from tests.support.probes import GENERATE, HEALTH, JOBS, OK, UNSIGNED, Answer, Probe, get, post, probes, signed
from tests.support.watched import WatchedService

PROBES = probes()
ANSWER_SECONDS = 30.0


@contextmanager
def connected(service: WatchedService) -> Iterator[tuple[socket.socket, BinaryIO]]:
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=ANSWER_SECONDS) as connection,
        connection.makefile("rb") as stream,
    ):
        yield connection, stream


def read_answer(stream: BinaryIO, *, head_only: bool = False) -> Answer:
    """Return the next answer, which must be in the API's form."""
    status = int(stream.readline().split(b" ", 2)[1])
    headers = http.client.parse_headers(stream)
    body = stream.read(int(headers.get("Content-Length", "0"))) if not head_only and status >= 200 else b""
    if status < 400 or head_only:
        return status, ""
    said = json.loads(body)
    assert said["success"] is False
    assert said["request_id"] == headers["X-Request-ID"]
    assert said["error"].endswith(".")
    return status, said["code"]


def test_there_are_as_many_probes_as_were_promised() -> None:
    assert len(PROBES) >= 150


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_each_probe_gets_its_answers_and_no_more(waiting: WatchedService, probe: Probe) -> None:
    with connected(waiting) as (connection, stream):
        # A service that refuses need not read on; what it said is there to be read all the same.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(probe.build(waiting))
            if probe.ends:
                connection.shutdown(socket.SHUT_WR)
        found = tuple(read_answer(stream, head_only=probe.head_only) for _ in probe.answers)
        assert found == probe.answers
        if probe.stays:
            connection.sendall(get())
            assert read_answer(stream) == OK
        else:
            assert stream.read() == b""


@pytest.mark.parametrize("step", [1, 7, 100])
def test_a_request_may_come_in_pieces(waiting: WatchedService, step: int) -> None:
    request = get(HEALTH, "X-A: " + "b" * 100)
    with connected(waiting) as (connection, stream):
        for start in range(0, len(request), step):
            connection.sendall(request[start : start + step])
        assert read_answer(stream) == OK


def test_heads_that_never_end_are_refused_after_a_while(waiting: WatchedService) -> None:
    starts = [b"G", get()[:-2], get()[:-4], b"GET / HTTP/1.1\r\nX-A: " + b"b" * 5000, get() + b"GET /"]
    with ExitStack() as stack:
        streams = []
        for start in starts:
            connection, stream = stack.enter_context(connected(waiting))
            connection.sendall(start)
            streams.append(stream)
        silent = stack.enter_context(connected(waiting))[1]
        assert read_answer(streams[-1]) == OK
        for stream in streams:
            assert read_answer(stream) == (408, "REQUEST_TIMEOUT")
            assert stream.read() == b""
        assert silent.read() == b""


def test_nobody_is_asked_for_a_body_before_the_signature_is_seen(waiting: WatchedService) -> None:
    body = b"x" * 1000
    lines = (f"Content-Length: {len(body)}", "Expect: 100-continue")
    with connected(waiting) as (connection, stream):
        connection.sendall(signed("POST", GENERATE, *lines, content=body, body=b"", wrong=True)(waiting))
        assert read_answer(stream) == (401, "AUTH_INVALID")
        assert stream.read() == b""
    with connected(waiting) as (connection, stream):
        connection.sendall(signed("POST", GENERATE, *lines, content=body, body=b"")(waiting))
        assert read_answer(stream) == (100, "")
        connection.sendall(body)
        assert read_answer(stream) == (400, "INVALID_FORM")


@pytest.mark.parametrize("size", [100_000, 20_000_000])
def test_an_early_refusal_reaches_clients_that_send_all_first(waiting: WatchedService, size: int) -> None:
    body = bytes(size)
    connection = http.client.HTTPConnection("127.0.0.1", waiting.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("POST", GENERATE, body, {"Content-Type": "text/plain"})
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["code"]) == UNSIGNED
    finally:
        connection.close()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{waiting.base_url}{GENERATE}", body))  # noqa: S310
    assert (refused.value.code, json.loads(refused.value.read())["code"]) == UNSIGNED


def sends(connection: socket.socket, data: bytes) -> bool:
    """Return whether the other end still takes what is sent."""
    try:
        connection.sendall(data)
    except OSError:
        return False
    return True


def test_a_refused_body_that_goes_on_is_cut_off(waiting: WatchedService) -> None:
    with connected(waiting) as (connection, stream):
        connection.sendall(post("Content-Length: 900000000", b"x" * 1000))
        assert read_answer(stream) == UNSIGNED
        # Nothing more is sent; who lingers for it does not do so for ever.
        assert stream.read() == b""
        waiting.wait_until(lambda: not sends(connection, b"x"))


def test_a_caller_that_hangs_up_leaves_nothing(waiting: WatchedService) -> None:
    before = waiting.files()
    for raw in (b"", b"GET", get(), signed("POST", GENERATE, "Content-Length: 900", body=b"x")(waiting)):
        with connected(waiting) as (connection, _):
            connection.sendall(raw)
    assert waiting.get("/jobs").refusal == OK
    waiting.wait_until(lambda: waiting.files("spool") == [])
    assert {name for name in waiting.files() if not name.startswith(("audit", "orfeas.sqlite3"))} <= set(before)


def test_answers_that_nobody_reads_keep_no_small_call_waiting(waiting: WatchedService) -> None:
    with connected(waiting) as (connection, _):
        with suppress(TimeoutError):
            connection.settimeout(1.0)
            while True:
                connection.sendall(signed("GET", f"{JOBS}")(waiting) * 20)
        assert waiting.get("/jobs").refusal == OK
