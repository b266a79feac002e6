"""Who is told of which jobs, where wishes follow one another faster than the job table answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backend.api.event_hub import BEAT_SECONDS, EventHub
from backend.api.events import Event
from backend.api.responses import Links
from backend.auth.agents import AgentConfig, load_agents
from backend.jobs import reading
from tests.support.agent_service import agent_service
from tests.support.store_backends import submit
from tests.support.workshop import TIMEOUT_SECONDS, eventually


@dataclass(eq=False)
class Ear:
    """A listener that remembers what it was told."""

    agent: AgentConfig
    links: Links
    operation: str = "status"
    heard: list[tuple[str, str]] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def deliver(self, topic_id: str, event: Event) -> None:
        self.heard.append((topic_id, event.name))

    def unknown(self, ids: Sequence[str]) -> None:
        self.strangers += ids

    def beat(self) -> None: ...

    def beat_after(self) -> float:
        return BEAT_SECONDS

    def close(self) -> None: ...


def test_a_wish_that_is_still_looked_up_yields_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking, go_on = threading.Event(), threading.Event()
    look = reading.newer_ids

    def look_slowly(*given: Any) -> Any:
        found = look(*given)
        looking.set()
        assert go_on.wait(TIMEOUT_SECONDS)
        return found

    monkeypatch.setattr(reading, "newer_ids", look_slowly)
    with agent_service(tmp_path) as service:
        store, owner = service.services.store, service.owner("ann")
        named, other = submit(store, owner, 2)
        agent = load_agents(service.settings.agents_file)["ann"]
        ear = Ear(agent, Links(str, str, lambda _: None, lambda _: None))
        hub = EventHub(service.services)
        hub.listen_to_all(ear)
        assert looking.wait(TIMEOUT_SECONDS)
        hub.listen_to(ear, [named, "0" * 32], {})
        go_on.set()
        eventually(lambda: ear.heard == [(named, "progress")])
        for job_id in (other, named):
            store.cancel(job_id, owner)
        eventually(lambda: len(ear.heard) > 1)
        hub.stop()
    assert ear.heard[1:] == [(named, "cancelled")]
    assert ear.strangers == ["0" * 32]
