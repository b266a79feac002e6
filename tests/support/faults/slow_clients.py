"""Slow callers, by the hundred, on one thread: silent, dripping, honest on a thin line, stalled, idle, waiting.

Beside them an ordinary caller is timed. This module does not know what the service should make of them.
"""

from __future__ import annotations

import http.client
import json
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.support.faults.report import report_stamina
from tests.support.faults.web_harness import until
from tests.support.running import API, RunningService

ORDINARY_SECONDS = 8.0
_TICK = 0.05


@dataclass(eq=False)
class Caller:
    """One slow caller's connection.

    request : sent at once; body : sent after it at so many bytes a second; reads : whether it takes what comes
    """

    request: bytes = b""
    body: bytes = b""
    bytes_per_second: float = 0.0
    reads: bool = True
    buffer_bytes: int = 0
    came: bytearray = field(default_factory=bytearray)
    sent: int = 0
    began: float = 0.0
    ended: float | None = None
    sock: socket.socket | None = None

    @property
    def status(self) -> int:
        """The answer's status, past any 100; 0 while there is none."""
        for head in self.came.split(b"HTTP/1.1 ")[1:]:
            if head[:3] != b"100":
                return int(head[:3])
        return 0

    @property
    def code(self) -> str:
        """The answer's code, "" where there is none."""
        _, _, body = self.came.rpartition(b"\r\n\r\n")
        try:
            return str(json.loads(body).get("code", ""))
        except ValueError:
            return ""

    def open(self, port: int) -> None:
        """Connect anew and send the request."""
        self.sock = socket.socket()
        if self.buffer_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer_bytes)
        self.sock.settimeout(30)
        self.sock.connect(("127.0.0.1", port))
        self.sock.sendall(self.request)
        self.sock.setblocking(False)
        self.began, self.ended, self.sent = time.monotonic(), None, 0

    def close(self) -> None:
        """Hang up."""
        if self.sock is not None:
            self.sock.close()

    def send_more(self) -> None:
        """Send what its rate allows by now."""
        due = min(len(self.body), int((time.monotonic() - self.began) * self.bytes_per_second))
        if self.sock is None or self.ended is not None or due <= self.sent:
            return
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self.sent += self.sock.send(self.body[self.sent : due])

    def read_some(self) -> bool:
        """Take what has come; return whether more may come."""
        assert self.sock is not None
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        self.came += data
        if not data:
            self.ended = time.monotonic()
        return bool(data)


class Herd:
    """Callers that go on until the block ends, on a thread of their own.

    reopens : whether who is hung up on calls again
    """

    def __init__(self, port: int, callers: list[Caller], *, reopens: bool = False) -> None:
        self.callers = callers
        self._port = port
        self._reopens = reopens
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._poller = selectors.DefaultSelector()

    def __enter__(self) -> Herd:
        for caller in self.callers:
            self._open(caller)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)
        for caller in self.callers:
            caller.close()
        self._poller.close()

    @property
    def statuses(self) -> Counter[int]:
        """How often each status was answered; 0: not yet."""
        return Counter(caller.status for caller in self.callers)

    def wait(self, is_there: Callable[[Caller], bool], seconds: float) -> None:
        """Wait until it holds for all callers."""
        until(lambda: all(map(is_there, self.callers)), str(self.statuses), seconds)

    def _open(self, caller: Caller) -> None:
        caller.open(self._port)
        if caller.reads:
            assert caller.sock is not None
            self._poller.register(caller.sock, selectors.EVENT_READ, caller)

    def _run(self) -> None:
        senders = [caller for caller in self.callers if caller.body]
        while not self._stopping.is_set():
            began = time.monotonic()
            for key, _ in self._poller.select(_TICK):
                if not key.data.read_some():
                    self._poller.unregister(key.fileobj)
                    key.data.close()
                    if self._reopens:
                        self._open(key.data)
            for caller in senders:
                caller.send_more()
            time.sleep(max(0.0, began + _TICK - time.monotonic()))


@dataclass
class Ordinary:
    """What an ordinary caller got: seconds of each answer, and how many it never got."""

    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    answers: Counter[int] = field(default_factory=Counter)

    def at(self, part: float) -> float:
        """Return the time within which so great a part was answered."""
        times = sorted(self.seconds)
        return times[min(len(times) - 1, int(part * len(times)))] if times else float("nan")

    @property
    def figure(self) -> str:
        """All of it in a few words."""
        asked = len(self.seconds) + self.lost
        if not self.seconds:
            return f"0 of {asked}"
        return (
            f"{len(self.seconds)} of {asked}; median {1000 * self.at(0.5):.0f} ms, "
            f"99 % {1000 * self.at(0.99):.0f} ms, worst {1000 * self.at(1):.0f} ms"
        )


@contextmanager
def ordinary_calls(service: RunningService, load: str) -> Iterator[Ordinary]:
    """Call /health and GET /jobs in turns beside the block, each on a new connection and given up after 8 s.

    load : what the block does, for the report
    """
    found, stopping = Ordinary(), threading.Event()
    agent = service.add_agent()

    def run() -> None:
        paths = [f"{API}/health", f"{API}/jobs"]
        while not stopping.is_set():
            target = paths[len(found.seconds) % 2]
            headers = {} if target.endswith("health") else service.sign("GET", target, agent=agent)
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=ORDINARY_SECONDS)
            try:
                connection.request("GET", target, headers=headers)
                response = connection.getresponse()
                response.read()
                found.seconds.append(time.monotonic() - began)
                found.answers[response.status] += 1
            except (OSError, http.client.HTTPException):
                found.lost += 1
            finally:
                connection.close()
            stopping.wait(0.02)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stopping.set()
        thread.join(2 * ORDINARY_SECONDS)
        report_stamina(load, found.figure)


def head(method: str, target: str, headers: dict[str, str]) -> bytes:
    """Return a request's head."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()
