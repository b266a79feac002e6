"""Server-Sent Events of one job or batch: its state now, then every change, until it is finished.

This module does not know who makes the events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flask import Response, request

from backend.api import event_hub
from backend.api.describing import describe
from backend.api.event_hub import EventHub
from backend.api.events import COMMENT, Event, event_id, event_of, stream_start
from backend.api.responses import Links
from backend.api.streaming import Sink, stream_response
from backend.auth.agents import AgentConfig
from backend.auth.wait_slots import WaitSlots
from backend.errors import TooManyStreams
from backend.jobs.models import Batch, Job
from backend.services import AgentServices

CONTENT_TYPE = "text/event-stream; charset=utf-8"
_MOST_UNSENT = 1 << 16
"""Bytes that a listener has yet to take beyond which it is told of no progress."""


@dataclass(eq=False)
class EventStream:
    """One listener to one job or batch, by Server-Sent Events.

    found : how it was when the listener came, which it knows
    """

    hub: EventHub
    slots: WaitSlots
    agent: AgentConfig
    links: Links
    found: Job | Batch
    operation: str = "status"
    sink: Sink | None = field(default=None, init=False)

    def begin(self, sink: Sink) -> None:
        """Take the sending end, and listen."""
        self.sink = sink
        if self.found.status.finished:
            sink.end()
        else:
            self.hub.listen(self, [self.found])

    def received(self, data: bytes) -> None:
        """Take nothing: who listens has nothing to say."""

    def ended(self) -> None:
        """Listen no more."""
        self.hub.leave(self)
        self.slots.give_back(self.agent.internal_id)

    def deliver(self, topic_id: str, event: Event) -> None:  # noqa: ARG002  it has one topic
        """Send an event; of progress none to one that takes it slowly."""
        if self.sink is None:
            return
        if event.is_last or self.sink.unsent < _MOST_UNSENT:
            self.sink.send(event.as_sse())
        if event.is_last:
            self.sink.end()

    def unknown(self, ids: Sequence[str]) -> None:
        """Take nothing: it asked for none by their ids."""

    def beat(self) -> None:
        """Send a comment."""
        if self.sink is not None:
            self.sink.send(COMMENT)

    def beat_after(self) -> float:
        """Return in how many seconds to send the next."""
        return event_hub.BEAT_SECONDS

    def close(self) -> None:
        """End the stream; whoever listens may come back and say which event it got last."""
        if self.sink is not None:
            self.sink.end()


def stream_events(
    services: AgentServices, hub: EventHub, agent: AgentConfig, links: Links, found: Job | Batch, last_id: str
) -> Response:
    """Return a stream of what becomes of a job or batch; nothing at all for a listener that has its last event.

    last_id : of the event that the listener has, "" for none. Raises TooManyStreams, StoreUnavailable.
    """
    now = event_id(found)
    if found.status.finished and now == last_id:
        # A browser's EventSource comes back after any other end.
        return Response(status=204)
    if request.method == "HEAD":
        return Response(content_type=CONTENT_TYPE)
    event = event_of(found, describe(services, found, links))
    first = stream_start() + (b"" if event.id == last_id else event.as_sse())
    if not services.stream_slots.take(agent.internal_id):
        raise TooManyStreams
    stream = EventStream(hub, services.stream_slots, agent, links, found)
    return stream_response(stream, first, CONTENT_TYPE)
