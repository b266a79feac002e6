"""A connection by itself, with the other end of it in hand: heads, slow bodies, slow readers, lingering."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import pytest

from backend.errors import BadFraming, RequestTooSlow
from backend.serve import connections
from backend.serve.connections import Connection


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours, ("127.0.0.1", 1), ("127.0.0.1", 2)), theirs


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = replace(connections.BODY, step_seconds=0.2, step_bytes=1000)
    monkeypatch.setattr(connections, "BODY", rate)
    monkeypatch.setattr(connections, "ANSWER", rate)


@pytest.mark.parametrize(
    ("came", "whole"),
    [
        (b"", False),
        (b"\r", False),
        (b"\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n", True),
        (b"get", True),
        (b"\x16\x03\x01", True),
        (b"GET / HTTP/1.1\n", True),
        (b"G" * 65_537, True),
    ],
)
def test_a_head_is_waited_for_until_it_is_whole_or_wrong(
    ends: tuple[Connection, socket.socket], came: bytes, whole: bool
) -> None:
    connection, _ = ends
    connection.unread = came
    assert connection.is_head_whole is whole


@pytest.mark.usefixtures("hasty")
def test_a_body_that_drips_is_given_up(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends
    connection.begin(5000, nullcontext)
    theirs.sendall(b"x" * 10)
    assert connection.recv(100) == b"x" * 10
    with pytest.raises(RequestTooSlow):
        connection.recv(100)


def test_no_body_is_read_where_none_is_due(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends
    theirs.sendall(b"GET")
    with pytest.raises(BadFraming):
        connection.recv(100)
    connection.begin(5, nullcontext)
    connection.begin_answer()
    with pytest.raises(BadFraming):
        connection.recv(100)


def test_an_answer_is_kept_for_who_does_not_read_it_yet(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends
    answer = bytes(10_000_000)
    connection.begin(0, None)
    connection.sendall(answer)
    kept = connection.has_unsent
    assert kept
    came = 0
    while connection.has_unsent:
        came += len(theirs.recv(1 << 20))
        connection.flush_some()
    while came < len(answer):
        came += len(theirs.recv(1 << 20))
    assert connection.pace is None


@pytest.mark.usefixtures("hasty")
def test_a_long_answer_waits_for_its_reader_and_gives_a_slow_one_up(ends: tuple[Connection, socket.socket]) -> None:
    connection, _theirs = ends
    connection.begin(0, nullcontext)
    connection.begin_answer()
    with pytest.raises(TimeoutError):
        connection.sendall(bytes(10_000_000))


def test_lingering_ends_with_the_other_end(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends
    theirs.sendall(b"x" * 100)
    connection.linger()
    assert theirs.recv(1) == b""
    assert connection.discard_some()
    assert connection.discard_some()
    theirs.close()
    assert not connection.discard_some()
