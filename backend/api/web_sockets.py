"""The WebSocket of an agent's events: those of all its jobs, or of the ones that it names.

The handshake is a request like any other, signed and counted; from then on the server's loop keeps the connection. This
module does not know who makes the events.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from flask import Response, request
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.events import Event as Frame
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError, generate_accept_token

from backend.api import event_hub
from backend.api.event_hub import EventHub
from backend.api.events import Event
from backend.api.responses import Links
from backend.api.streaming import Sink, can_keep, stream_response
from backend.auth.agents import AgentConfig
from backend.auth.loopback import Caller, require_own_page
from backend.auth.wait_slots import WaitSlots
from backend.errors import StreamsUnsupported, TooManyStreams, UpgradeRequired
from backend.jobs.ids import is_job_id
from backend.services import AgentServices

MOST_WATCHED = 500
_MOST_MESSAGE = 1 << 16
_MOST_UNSENT = 1 << 16
_VERSION = "13"
_PING = b"orfeas"
_WANTED = f'Send {{"watch": [id, …]}} with up to {MOST_WATCHED} ids of jobs or batches, and "last": {{id: event id}}.'


@dataclass(eq=False)
class AgentSocket:
    """One WebSocket of an agent. Its loop receives, others send."""

    hub: EventHub
    slots: WaitSlots
    agent: AgentConfig
    links: Links
    operation: str = "status"
    sink: Sink | None = field(default=None, init=False)
    protocol: Connection = field(default_factory=lambda: Connection(ConnectionType.SERVER), init=False)
    lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    text: str = field(default="", init=False)

    def begin(self, sink: Sink) -> None:
        """Take the sending end, and hear of everything."""
        self.sink = sink
        self.hub.listen_to_all(self)

    def received(self, data: bytes) -> None:
        """Take what the other end sent: which jobs it wants to hear of, or that it goes."""
        try:
            with self.lock:
                self.protocol.receive_data(data)
                events = list(self.protocol.events())
        except RemoteProtocolError:
            self._end(CloseReason.PROTOCOL_ERROR)
            return
        except LocalProtocolError:
            # Both ends have closed; what still comes is for nobody.
            return
        for event in events:
            if isinstance(event, Ping):
                self._send(event.response())
            elif isinstance(event, CloseConnection):
                self._send(event.response())
                if self.sink is not None:
                    self.sink.end()
            elif isinstance(event, TextMessage):
                self._take(event)
            elif isinstance(event, BytesMessage):
                self._end(CloseReason.UNSUPPORTED_DATA)
                return

    def ended(self) -> None:
        """Listen no more."""
        self.hub.leave(self)
        self.slots.give_back(self.agent.internal_id)

    def deliver(self, topic_id: str, event: Event) -> None:  # noqa: ARG002  the event says it
        """Send an event; of progress none to one that takes it slowly."""
        if self.sink is not None and (event.is_last or self.sink.unsent < _MOST_UNSENT):
            self._send(TextMessage(data=event.as_message()))

    def unknown(self, ids: Sequence[str]) -> None:
        """Say which of the ids that were asked for are none of the agent's."""
        if ids:
            self._refuse("JOB_NOT_FOUND", "There are no such jobs or batches.", list(ids))

    def beat(self) -> None:
        """Ping."""
        self._send(Ping(payload=_PING))

    def beat_after(self) -> float:
        """Return in how many seconds to do so again."""
        return event_hub.BEAT_SECONDS

    def close(self) -> None:
        """Say that the service goes, or that the agent may listen no more."""
        self._end(CloseReason.GOING_AWAY)

    def _take(self, message: TextMessage) -> None:
        self.text += message.data
        if len(self.text) > _MOST_MESSAGE:
            self._end(CloseReason.MESSAGE_TOO_BIG)
        elif message.message_finished:
            text, self.text = self.text, ""
            self._obey(text)

    def _obey(self, text: str) -> None:
        asked = _read(text)
        if asked is None:
            self._refuse("BAD_REQUEST", _WANTED, [])
            return
        ids, last = asked
        self.hub.listen_to(self, ids, last)

    def _refuse(self, code: str, text: str, ids: list[str]) -> None:
        self._send(TextMessage(data=json.dumps({"event": "error", "code": code, "error": text, "ids": ids})))

    def _end(self, reason: CloseReason) -> None:
        self._send(CloseConnection(code=reason))
        if self.sink is not None:
            self.sink.end()

    def _send(self, event: Frame) -> None:
        if self.sink is None:
            return
        try:
            # Bytes are sent in the order in which they are framed.
            with self.lock:
                self.sink.send(self.protocol.send(event))
        except LocalProtocolError:
            # It is closed already.
            return


def open_socket(services: AgentServices, hub: EventHub, agent: AgentConfig, links: Links) -> Response:
    """Return the answer that makes a request's connection a WebSocket.

    Raises UpgradeRequired, IpNotAllowed for another's page, StreamsUnsupported, TooManyStreams.
    """
    settings, caller = services.settings, Caller.of(request.environ, request.headers.get)
    key = request.headers.get("Sec-WebSocket-Key", "")
    is_meant = request.headers.get("Upgrade", "").lower() == "websocket"
    if not is_meant or not key or request.headers.get("Sec-WebSocket-Version") != _VERSION:
        raise UpgradeRequired
    require_own_page(caller, settings.public_url, settings.trusted_proxies)
    if not can_keep():
        raise StreamsUnsupported
    if not services.stream_slots.take(agent.internal_id):
        raise TooManyStreams
    answer = stream_response(AgentSocket(hub, services.stream_slots, agent, links), b"", "")
    answer.status_code = 101
    answer.headers.remove("Content-Type")
    accept = generate_accept_token(key.encode("latin-1", "replace")).decode()
    answer.headers.update({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept})
    return answer


def _read(text: str) -> tuple[list[str], dict[str, str]] | None:
    """Return which jobs a message asks for, and which events of them are known; None for what asks for nothing."""
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(asked, dict) or not set(asked) <= {"watch", "last"}:
        return None
    ids, last = asked.get("watch"), asked.get("last", {})
    if not isinstance(ids, list) or len(ids) > MOST_WATCHED or not isinstance(last, dict):
        return None
    if not all(isinstance(id, str) and is_job_id(id) for id in ids):
        return None
    if not all(isinstance(known, str) for known in last.values()):
        return None
    return list(dict.fromkeys(ids)), last
