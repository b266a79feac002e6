"""Who listens to which jobs: one thread makes each event once and gives it to all who listen.

A topic is one agent's job or batch that somebody listens to. The job table's watch says that one has changed; the event
is made anew from the table, so that nothing hangs on what this process kept in mind. This module does not know how an
event travels.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from backend.api.describing import describe_with, jobs_of
from backend.api.events import Event, event_id, event_of
from backend.api.responses import Links
from backend.auth.agents import AgentConfig
from backend.errors import ServiceError
from backend.jobs import reading
from backend.jobs.ids import lowest_id
from backend.jobs.models import Batch, Job
from backend.jobs.watch import Follower
from backend.services import AgentServices

_log = logging.getLogger(__name__)
_CALM_SECONDS = 1.0
"""Between two events of one job that tell of progress alone."""

BEAT_SECONDS = 15.0
"""Between two signs of life of a stream."""

_TICK_SECONDS = 0.5
_DISCOVER_SECONDS = 0.4
_NEW_FOR = timedelta(seconds=60)
_RETRY_SECONDS = 1.0


class Listener(Protocol):
    """Whoever hears of topics; each call returns at once, and none raises."""

    @property
    def agent(self) -> AgentConfig:
        """Whose jobs it hears of."""
        ...

    @property
    def operation(self) -> str:
        """What its agent must be granted to go on listening."""
        ...

    @property
    def links(self) -> Links:
        """Where it finds what is told of."""
        ...

    def deliver(self, topic_id: str, event: Event) -> None:
        """Take an event of a job or batch."""
        ...

    def unknown(self, ids: Sequence[str]) -> None:
        """Learn which of the ids that it asked for are no job or batch of its agent."""
        ...

    def beat(self) -> None:
        """Show that the stream lives."""
        ...

    def beat_after(self) -> float:
        """Return in how many seconds that is due, at most."""
        ...

    def close(self) -> None:
        """End the stream: the service stops, or the agent may no longer listen."""
        ...


@dataclass(eq=False)
class _Topic:
    id: str
    agent_id: str
    follower: Follower | None = None
    listeners: dict[Listener, str] = field(default_factory=dict)
    """Each with the id of the event that it has."""

    @property
    def links(self) -> Links:
        return next(iter(self.listeners)).links


class EventHub:
    """Brings events to the listeners of one process; any thread may use it."""

    def __init__(self, services: AgentServices, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin no thread yet."""
        self._services = services
        self._monotonic = monotonic
        self._lock = threading.Condition()
        self._topics: dict[tuple[str, str], _Topic] = {}
        self._listeners: dict[Listener, float] = {}
        """When each is to be given its next sign of life."""
        self._dirty: dict[_Topic, None] = {}
        self._asked: list[Callable[[], None]] = []
        self._roaming: dict[Listener, frozenset[str]] = {}
        """Who hears of all of its agent's jobs, and which of the newest it knows of."""
        self._wishes: dict[Listener, Callable[[], None]] = {}
        """Which of a listener's wishes is its last one: an earlier one that is still read from the table is void."""
        self._thread: threading.Thread | None = None
        self._looked = 0.0
        self._is_stopping = False

    @property
    def listening(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def listen(self, listener: Listener, found: Iterable[Job | Batch]) -> None:
        """Tell a listener of each of some jobs and batches from now on: of what is otherwise than in these values."""
        with self._lock:
            if self._is_stopping:
                listener.close()
                return
            self._listeners.setdefault(listener, self._monotonic() + listener.beat_after())
            for each in found:
                self._join(listener, each)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="event hub", daemon=True)
                self._thread.start()
            self._lock.notify_all()

    def listen_to_all(self, listener: Listener) -> None:
        """Tell a listener of all of its agent's jobs from now on; those that are made later are told of at once."""

        def begin() -> None:
            agent_id = listener.agent.internal_id
            with self._services.database.read() as connection:
                active = reading.active_of(connection, agent_id)
                known = reading.newer_ids(connection, [agent_id], self._floor())
            with self._lock:
                if self._wishes.get(listener) is begin:
                    self._roaming[listener] = frozenset(known)
                    for job in active:
                        self._join(listener, job)

        self.listen(listener, [])
        self._wish(listener, begin)

    def listen_to(self, listener: Listener, ids: Sequence[str], last: Mapping[str, str]) -> None:
        """Tell a listener of these jobs and batches, and of no others: at once how each is, unless it knows that.

        last : the id of the event that it has, by job or batch
        """

        def begin() -> None:
            with self._services.database.read() as connection:
                found = reading.find_several(connection, ids)
            agent_id = listener.agent.internal_id
            own = {id: each for id, each in found.items() if jobs_of(each)[0].agent_id == agent_id}
            if self._wishes.get(listener) is not begin:
                return
            listener.unknown([id for id in ids if id not in own])
            self._tell_now(listener, [each for id, each in own.items() if event_id(each) != last.get(id)])
            with self._lock:
                if self._wishes.get(listener) is begin:
                    for each in own.values():
                        if not each.status.finished:
                            self._join(listener, each)

        self.leave(listener)
        self.listen(listener, [])
        self._wish(listener, begin)

    def _wish(self, listener: Listener, begin: Callable[[], None]) -> None:
        """Have a wish granted on the hub's thread, where it may wait for the job table; it replaces those before."""
        with self._lock:
            if listener in self._listeners:
                self._wishes[listener] = begin
                self._asked.append(begin)
                self._lock.notify_all()

    def leave(self, listener: Listener, topic_id: str | None = None) -> None:
        """Tell a listener no more of one job or batch, or of none at all."""
        with self._lock:
            if topic_id is None:
                self._listeners.pop(listener, None)
                self._roaming.pop(listener, None)
                self._wishes.pop(listener, None)
            of_agent = listener.agent.internal_id
            ids = [topic_id] if topic_id is not None else [id for agent, id in self._topics if agent == of_agent]
            for each in ids:
                self._part(listener, (of_agent, each))

    def stop(self) -> None:
        """End every stream, and let nobody listen any more."""
        with self._lock:
            self._is_stopping = True
            listeners, thread = list(self._listeners), self._thread
            self._lock.notify_all()
        for listener in listeners:
            listener.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_TICK_SECONDS)

    def _join(self, listener: Listener, found: Job | Batch) -> None:
        key = listener.agent.internal_id, found.id
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = _Topic(found.id, listener.agent.internal_id)
            topic.follower = self._services.watch.follow(jobs_of(found), lambda: self._mark(topic))
        else:
            # It may have been told of less than this topic has been.
            self._dirty[topic] = None
        topic.listeners[listener] = event_id(found)

    def _part(self, listener: Listener, key: tuple[str, str]) -> None:
        topic = self._topics.get(key)
        if topic is None:
            return
        topic.listeners.pop(listener, None)
        if not topic.listeners:
            del self._topics[key]
            self._dirty.pop(topic, None)
            if topic.follower is not None:
                topic.follower.end()

    def _mark(self, topic: _Topic) -> None:
        with self._lock:
            if topic.listeners:
                self._dirty[topic] = None
                self._lock.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._dirty and not self._asked and not self._is_stopping:
                    self._lock.wait(_TICK_SECONDS)
                if self._is_stopping or not self._listeners:
                    self._thread = None
                    return
                due, asked = list(self._dirty), self._asked
                self._dirty.clear()
                self._asked = []
            try:
                while asked:
                    asked[0]()
                    asked.pop(0)
                self._discover()
                self._tell(due)
                self._beat()
            except ServiceError as error:
                _log.warning("Who listens to jobs waits on: %s", error.message)
                self._again(due, asked)
            except Exception:  # noqa: BLE001 - the thread's edge
                _log.exception("Events could not be made.")
                self._again(due, asked[1:])

    def _again(self, due: Sequence[_Topic], asked: Sequence[Callable[[], None]]) -> None:
        with self._lock:
            self._asked[:0] = asked
            self._dirty.update(dict.fromkeys(topic for topic in due if topic.listeners))
        time.sleep(_RETRY_SECONDS)

    def _tell(self, due: Sequence[_Topic]) -> None:
        """Make the event of each topic, and give it to its listeners. Raises StoreUnavailable."""
        if not due:
            return
        with self._services.database.read() as connection:
            found = reading.find_several(connection, sorted({topic.id for topic in due}))
        outlooks = self._services.outlooks.of([job for each in found.values() for job in jobs_of(each)])
        for topic in due:
            with self._lock:
                listeners = dict(topic.listeners)
            if not listeners:
                continue
            now = _of_agent(found, topic)
            if now is None:
                self._end(list(listeners))
                continue
            if topic.follower is not None:
                topic.follower.note(jobs_of(now), _CALM_SECONDS)
            event = event_of(now, describe_with(outlooks, now, next(iter(listeners)).links))
            self._deliver(topic, listeners, event)
            if event.is_last:
                for listener in listeners:
                    self.leave(listener, topic.id)

    def _deliver(self, topic: _Topic, listeners: Mapping[Listener, str], event: Event) -> None:
        """Give an event to those who have another one."""
        new = [listener for listener, known in listeners.items() if known != event.id]
        for listener in new:
            listener.deliver(topic.id, event)
        with self._lock:
            topic.listeners.update((listener, event.id) for listener in new if listener in topic.listeners)

    def _discover(self) -> None:
        """Tell of jobs that were made since the last look, to who hears of all. Raises StoreUnavailable."""
        with self._lock:
            roaming = dict(self._roaming)
        now = self._monotonic()
        if not roaming or now < self._looked + _DISCOVER_SECONDS:
            return
        self._looked = now
        agents = {listener.agent.internal_id for listener in roaming}
        with self._services.database.read() as connection:
            newest = reading.newer_ids(connection, agents, self._floor())
            new = sorted({id for known in roaming.values() for id in newest.keys() - known})
            found = reading.find_several(connection, new)
        for listener, known in roaming.items():
            own = [id for id, agent_id in newest.items() if agent_id == listener.agent.internal_id]
            fresh = [found[id] for id in own if id not in known and id in found]
            self._tell_now(listener, fresh)
            with self._lock:
                if listener in self._roaming:
                    self._roaming[listener] = frozenset(own)
                    for each in fresh:
                        if not each.status.finished:
                            self._join(listener, each)

    def _floor(self) -> str:
        """Return an id below which no job is new any more, on whichever machine it was made."""
        return lowest_id(self._services.clock() - _NEW_FOR)

    def _tell_now(self, listener: Listener, found: Sequence[Job | Batch]) -> None:
        """Give a listener the events of jobs and batches as they are."""
        outlooks = self._services.outlooks.of([job for each in found for job in jobs_of(each)])
        for each in found:
            listener.deliver(each.id, event_of(each, describe_with(outlooks, each, listener.links)))

    def _beat(self) -> None:
        """Give a sign of life to whom it is due, and end the streams of agents that may no longer listen."""
        now = self._monotonic()
        with self._lock:
            due = [listener for listener, at in self._listeners.items() if at <= now]
        for listener in due:
            if not self._services.guard.may_still(listener.agent, listener.operation):
                self._end([listener])
                continue
            listener.beat()
            with self._lock:
                if listener in self._listeners:
                    self._listeners[listener] = now + listener.beat_after()

    def _end(self, listeners: Sequence[Listener]) -> None:
        for listener in listeners:
            self.leave(listener)
            listener.close()


def _of_agent(found: Mapping[str, Job | Batch], topic: _Topic) -> Job | Batch | None:
    """Return a topic's job or batch as it is now; None when it is gone."""
    now = found.get(topic.id)
    return now if now is not None and jobs_of(now)[0].agent_id == topic.agent_id else None
