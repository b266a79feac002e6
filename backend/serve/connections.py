"""A connection: bytes that came before their request was whole, and bytes of an answer that its reader has yet to take.

The loop of gunicorn_worker.py reads heads, flushes and lingers without ever waiting; a request's own thread may wait,
as long as the other end keeps its pace. Nothing here knows HTTP beyond where a head ends.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from enum import Enum, auto

from backend.api.streaming import Stream
from backend.errors import BadFraming, RequestTooSlow
from backend.serve.pace import Pace, Rate
from backend.serve.refusals import MOST_HEAD_BYTES

BODY = Rate(step_bytes=20_000, step_seconds=20, start_seconds=60, bytes_per_second=16_000)
"""How fast a body must come."""
ANSWER = Rate(step_bytes=20_000, step_seconds=20, start_seconds=60, bytes_per_second=16_000)
"""How fast an answer must be taken, while anything of it waits."""
LINGER = Rate(step_bytes=5_000, step_seconds=5, start_seconds=60, bytes_per_second=float("inf"))
"""How long the rest of a request that was refused is read, so that the refusal is not lost on its way."""

_READ_BYTES = 1 << 16
_UNSENT_BYTES = 1 << 18
"""What may wait to be sent before who writes a long answer has to wait, too."""
_OVERHEAD = (2, 1 << 20)
"""Bytes of a body in chunks: at most so many times its content, and so many beside."""
_NOT_SENT_BYTES = 1 << 17
_TCP_NOTSENT_LOWAT = 25  # Linux's; older Pythons do not name it
_STARTS_A_HEAD = re.compile(rb"(?:\r\n?)?(?:[A-Z]|\Z)")
_discarded = bytearray(1 << 18)


class Stage(Enum):
    """What the loop waits for; BUSY: nothing, a thread has the connection."""

    HEAD = auto()
    BUSY = auto()
    FLUSH = auto()
    STREAM = auto()
    LINGER = auto()


class Connection:
    """One caller's connection. Its socket never blocks; `recv` and `sendall` wait by themselves.

    client, server : addresses; unread : what came and is not parsed
    deadline : when the loop gives it up, by time.monotonic; pace : of what is moved, None while nothing must be
    stream : whose connection it is once its request is answered; None where it is nobody's
    arrived : when the head of the request at hand was whole, by time.monotonic
    is_kept : whether another request may come; has_begun : whether any of an answer was sent
    ends : whether its stream is over once all is sent
    """

    def __init__(self, sock: socket.socket, client: object, server: object) -> None:
        self.sock = sock
        self.client = client
        self.server = server
        self.stage = Stage.BUSY
        self.deadline = self.arrived = 0.0
        self.pace: Pace | None = None
        self.unread = b""
        self.is_kept = self.has_begun = self.ends = False
        self._unsent = bytearray()
        self._body: tuple[int | None, Pace] | None = None
        self._received = self._taken = 0
        self._may_wait = False
        self.stream: Stream | None = None
        self._aside: Callable[[], AbstractContextManager[object]] = nullcontext
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Or a slow reader's progress would be seen only once in many seconds.
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOT_SENT_BYTES)

    def fileno(self) -> int:
        """Return the socket's."""
        return self.sock.fileno()

    # On the loop

    def read_some(self) -> bool:
        """Keep what has come; return whether more may come. Raises OSError."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        self.unread += data
        return bool(data)

    @property
    def starts_well(self) -> bool:
        """Whether what came may be the start of a request."""
        return _STARTS_A_HEAD.match(self.unread) is not None

    @property
    def is_head_whole(self) -> bool:
        """Whether who reads the head need not wait for more: it is whole, or wrong already."""
        unread = self.unread
        if b"\r\n\r\n" in unread or len(unread) > MOST_HEAD_BYTES or not self.starts_well:
            return True
        return unread.count(b"\n") != unread.count(b"\r\n")

    @property
    def has_unsent(self) -> bool:
        """Whether some of an answer waits to be sent."""
        return bool(self._unsent)

    def flush_some(self) -> bool:
        """Send what can be sent now; return whether all is sent. Raises OSError."""
        while self._unsent:
            try:
                sent = self.sock.send(memoryview(self._unsent)[:_UNSENT_BYTES])
            except BlockingIOError:
                self.pace = self.pace or Pace(ANSWER)
                return False
            del self._unsent[:sent]
            if self.pace is not None:
                self.pace.note(sent)
        self.pace = None
        return True

    @property
    def unsent_bytes(self) -> int:
        """How much waits to be sent."""
        return len(self._unsent)

    def keep(self, data: bytes) -> None:
        """Keep bytes, to be sent by `flush_some`."""
        self._unsent += data

    def take_some(self) -> bytes | None:
        """Return what has come, b"" once no more will, None where nothing has. Raises OSError."""
        try:
            return self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return None

    def discard_some(self) -> bool:
        """Read on and keep nothing; return whether more may come. Raises OSError."""
        try:
            count = self.sock.recv_into(_discarded)
        except BlockingIOError:
            return True
        if self.pace is not None:
            self.pace.note(count)
        return count > 0

    def linger(self) -> None:
        """Say that no more will be sent, and begin to read what is left."""
        self.pace = Pace(LINGER)
        # Where the other end has gone there is nobody to tell.
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of it."""
        self.sock.close()

    # On a request's thread

    def begin(self, size: int | None, aside: Callable[[], AbstractContextManager[object]] | None) -> None:
        """Begin a request.

        size : what its body has by its Content-Length, None in chunks
        aside : gives up the thread's turn while `recv` waits; None: nothing here may wait
        """
        self._received = self._taken = 0
        self._body = (size, Pace(BODY, size)) if aside else None
        self._may_wait = aside is not None
        self._aside = aside or nullcontext
        self.has_begun = False

    def begin_answer(self) -> None:
        """Nothing more is read of the request; the thread has no turn from here on."""
        self._body = None
        self._aside = nullcontext

    def recv(self, size: int) -> bytes:
        """Return what has come of a body, b"" at its end; for gunicorn's parser. Raises RequestTooSlow, BadFraming."""
        if self._body is None:
            raise BadFraming
        while True:
            try:
                data = self.sock.recv(size)
            except BlockingIOError:
                self._wait_for_more(self._body[1])
                continue
            except OSError:
                # A connection that breaks is a body that breaks off.
                return b""
            self._note_received(len(data), *self._body)
            return data

    def note_taken(self, count: int) -> None:
        """Count bytes of a body that were handed on."""
        self._taken += count

    def ask(self, line: bytes) -> None:
        """Send what is not yet the answer. Raises OSError."""
        self._unsent += line
        self.flush_some()

    def sendall(self, data: bytes) -> None:
        """Send, or keep for the loop to send; wait while too much is kept. Raises OSError, also for slow readers."""
        self.has_begun = True
        self._unsent += data
        if self.flush_some() or not self._may_wait:
            return
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        while len(self._unsent) >= _UNSENT_BYTES:
            poll.poll(None if self.pace is None else _milliseconds(self.pace))
            if not self.flush_some() and self.pace is not None and self.pace.is_over:
                raise TimeoutError("The answer is taken too slowly.")

    def _wait_for_more(self, pace: Pace) -> None:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        with self._aside():
            poll.poll(_milliseconds(pace))
        _check(pace)

    def _note_received(self, count: int, size: int | None, pace: Pace) -> None:
        self._received += count
        pace.note(count)
        _check(pace)
        times, beside = _OVERHEAD
        if size is None and self._received > times * self._taken + beside:
            raise BadFraming("The body's chunks are too small for what is said of each.")


def _check(pace: Pace) -> None:
    if pace.is_over:
        raise RequestTooSlow(details={"bytes": BODY.step_bytes, "seconds": BODY.step_seconds})


def _milliseconds(pace: Pace) -> int:
    return max(1, int(1000 * (pace.expires - time.monotonic())) + 1)
