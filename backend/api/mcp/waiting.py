"""Who waits for a tool's result: progress as it comes, then the result, on a connection that keeps no thread.

This module does not know what a result looks like.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from backend.api import event_hub
from backend.api.event_hub import EventHub
from backend.api.events import COMMENT, Event
from backend.api.mcp import protocol
from backend.api.responses import Links
from backend.api.streaming import Sink
from backend.auth.agents import AgentConfig
from backend.auth.wait_slots import WaitSlots
from backend.jobs.models import Batch, Job

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class ResultStream:
    """One call of a tool that waits for a job or batch.

    finish : makes the JSON text of the answer, of how things are then; executor : on whose threads that is done
    operation : what the agent needs for the tool
    deadline : by time.monotonic(), when the answer is given however things are
    """

    hub: EventHub
    slots: WaitSlots
    agent: AgentConfig
    links: Links
    found: Job | Batch
    message: protocol.Message
    finish: Callable[[], str]
    executor: ThreadPoolExecutor
    deadline: float
    operation: str
    sink: Sink | None = field(default=None, init=False)
    is_over: bool = field(default=False, init=False)
    reported: int = field(default=-1, init=False)

    def begin(self, sink: Sink) -> None:
        """Take the sending end, and listen."""
        self.sink = sink
        self.hub.listen(self, [self.found])

    def received(self, data: bytes) -> None:
        """Take nothing."""

    def ended(self) -> None:
        """Listen no more; the job goes on."""
        self.is_over = True
        self.hub.leave(self)
        self.slots.give_back(self.agent.internal_id)

    def deliver(self, topic_id: str, event: Event) -> None:  # noqa: ARG002  it has one topic
        """Report progress, where the client wants to hear of it; after the last event, answer."""
        if event.is_last:
            self._answer()
            return
        token = self.message.progress_token
        # Progress has to grow: a run that died begins anew.
        if token is not None and self.sink is not None and event.progress > self.reported:
            self.reported = event.progress
            self.sink.send(protocol.as_event(protocol.progress(token, event.progress, event.step)))

    def unknown(self, ids: Sequence[str]) -> None:
        """Take nothing: it asked for none by their ids."""

    def beat(self) -> None:
        """Send a comment; answer when the time is over."""
        if time.monotonic() >= self.deadline:
            self._answer()
        elif self.sink is not None:
            self.sink.send(COMMENT)

    def beat_after(self) -> float:
        """Return in how many seconds to give the next sign of life."""
        return max(0.0, min(event_hub.BEAT_SECONDS, self.deadline - time.monotonic()))

    def close(self) -> None:
        """Answer at once, however things are: the service stops."""
        self._answer()

    def _answer(self) -> None:
        if not self.is_over and self.sink is not None:
            self.is_over = True
            self.executor.submit(self._send_answer, self.sink)

    def _send_answer(self, sink: Sink) -> None:
        try:
            sink.send(protocol.as_event(self.finish()))
        except Exception:  # noqa: BLE001 - the thread's edge
            _log.exception("A tool's result could not be made.")
        finally:
            sink.end()
