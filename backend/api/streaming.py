"""Answers that go on: how the app hands a connection over to the server, which keeps it without a thread.

A server that can do so puts a function into the environment of each request (`STREAM`). The app gives it a Stream and
ends its own work with the first bytes; from then on whoever has something to say sends it into the sink, from any
thread. Where the server cannot, a thread waits in its stead. This module does not know what is sent.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from flask import Response, request

from backend.api.request_context import waiting

STREAM = "orfeas.stream"
"""Where the server's own way to keep a connection stands in the environment of a request."""


class Sink(Protocol):
    """The sending end of a connection; any thread may use it, and none ever waits."""

    @property
    def unsent(self) -> int:
        """Bytes that the other end has yet to take."""
        ...

    def send(self, data: bytes) -> None:
        """Send these bytes behind all others."""
        ...

    def end(self) -> None:
        """End the connection once all is sent."""
        ...


class Stream(Protocol):
    """What becomes of a connection once it is the server's; each call returns at once, and none raises."""

    def begin(self, sink: Sink) -> None:
        """Take the sending end; called once."""
        ...

    def received(self, data: bytes) -> None:
        """Take what the other end sent."""
        ...

    def ended(self) -> None:
        """Learn that the connection is no more; called once, also when it never began."""
        ...


def can_keep() -> bool:
    """Return whether the server of the request at hand keeps connections."""
    return STREAM in request.environ


def stream_response(stream: Stream, first: bytes, content_type: str) -> Response:
    """Return an answer that begins with some bytes and goes on as the stream says."""
    offer: Callable[[Stream], None] | None = request.environ.get(STREAM)
    if offer is None:
        parts = _pulled(stream, first, waiting())
    else:
        offer(stream)
        parts = iter([first])
    # A proxy that collects what is sent would keep it from who waits for it.
    return Response(parts, content_type=content_type, headers={"X-Accel-Buffering": "no"})


class _QueueSink:
    def __init__(self) -> None:
        self.parts: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    @property
    def unsent(self) -> int:
        return 0

    def send(self, data: bytes) -> None:
        self.parts.put(data)

    def end(self) -> None:
        self.parts.put(None)


def _pulled(stream: Stream, first: bytes, waits: AbstractContextManager[object]) -> Iterator[bytes]:
    """Give what a stream sends, on the thread that sends the answer."""
    sink = _QueueSink()
    try:
        yield first
        with waits:
            stream.begin(sink)
            while (part := sink.parts.get()) is not None:
                yield part
    finally:
        stream.ended()
