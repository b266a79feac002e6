"""The sending end of a stream: bytes from any thread, put on a connection by the loop that owns it.

This module does not know what is sent, or who listens.
"""

from __future__ import annotations

from collections.abc import Callable

from backend.serve.connections import Connection

_LAST_CHUNK = b"0\r\n\r\n"


class ConnectionSink:
    """What a stream sends into; nothing here waits."""

    def __init__(self, connection: Connection, chunked: bool, push: Callable[[Connection, bytes, bool], None]) -> None:
        """Keep what is needed.

        chunked : whether the answer is in chunks
        push : has the loop put bytes on a connection, soon; True with the last ones
        """
        self._connection = connection
        self._chunked = chunked
        self._push = push

    @property
    def unsent(self) -> int:
        """Bytes that the other end has yet to take."""
        return self._connection.unsent_bytes

    def send(self, data: bytes) -> None:
        """Send these bytes behind all others."""
        self._push(self._connection, b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data, False)

    def end(self) -> None:
        """End the connection once all is sent."""
        self._push(self._connection, _LAST_CHUNK if self._chunked else b"", True)
