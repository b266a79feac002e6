"""Server-Sent Events: what a listener hears, over a real gunicorn and in any app, and across a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from backend.auth.agents_file import set_enabled
from backend.jobs.models import Report, Status
from tests.support.agent_service import API, AgentService, agent_service
from tests.support.served import ServedJobs
from tests.support.server_process import connected, raw_request
from tests.support.store_backends import new_jobs
from tests.support.workshop import eventually

STREAMS = 30


@dataclass(frozen=True)
class Told:
    """One event as it came."""

    id: str
    name: str
    data: dict[str, Any]


class Heard:
    """A stream of events that is read as it comes."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.status = int(stream.readline().split(b" ")[1])
        self.headers: dict[str, str] = {}
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        self._buffer = b""

    def events(self) -> Iterator[Told]:
        while True:
            while b"\n\n" not in self._buffer:
                chunk = self._chunk()
                if not chunk:
                    return
                self._buffer += chunk
            message, _, self._buffer = self._buffer.partition(b"\n\n")
            fields = dict(line.split(": ", 1) for line in message.decode().splitlines() if not line.startswith(":"))
            if "event" in fields:
                yield Told(fields["id"], fields["event"], json.loads(fields["data"]))

    def _chunk(self) -> bytes:
        size = int(self.stream.readline() or b"0", 16)
        data = self.stream.read(size)
        self.stream.readline()
        return data


@contextmanager
def listening(line: ServedJobs, job_id: str, last_id: str | None = None) -> Iterator[Heard]:
    target = f"{API}/status/{job_id}/events"
    more = {} if last_id is None else {"Last-Event-ID": last_id}
    with connected(line.server.port) as (connection, stream):
        connection.sendall(raw_request("GET", target, {**line.headers("GET", target), **more}))
        yield Heard(stream)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedJobs]:
    made = ServedJobs(tmp_path_factory.mktemp("line"), AGENT_WAITS=str(STREAMS))
    with made.server:
        yield made
    made.database.close()


def test_a_listener_hears_of_every_state_until_the_end(line: ServedJobs) -> None:
    job_id = line.job()
    with listening(line, job_id) as heard:
        assert (heard.status, heard.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert heard.headers["connection"] == "close"
        events = heard.events()
        first = next(events)
        assert (first.name, first.data["status"], first.data["job_id"]) == ("progress", "queued", job_id)
        running = line.run(job_id)
        assert next(events).data["status"] == "processing"
        line.store.report("w", [Report(running, 40, "sample 4/10", 6.0)], 600)
        third = next(events)
        assert (third.data["progress"], third.data["current_step"]) == (40, "sample 4/10")
        assert third.data["eta_seconds"] > 0
        line.store.cancel(job_id, line.agent_id)
        assert next(events).data["cancel_requested"] is True
        line.store.stop_cancelled(running)
        last = next(events)
        assert (last.name, last.data["status"]) == ("cancelled", "cancelled")
        assert last.data == line.get(f"{API}/status/{job_id}").json
        assert list(events) == []


def test_whoever_comes_back_hears_what_is_new_and_nothing_twice(line: ServedJobs) -> None:
    job_id = line.job()
    with listening(line, job_id) as heard:
        first = next(heard.events())
    with listening(line, job_id, first.id) as heard:
        line.store.cancel(job_id, line.agent_id)
        (last,) = heard.events()
        assert last.name == "cancelled"
    with listening(line, job_id, first.id) as heard:
        assert list(heard.events()) == [last]
    with listening(line, job_id, last.id) as heard:
        assert heard.status == 204


def test_a_batch_is_one_stream(line: ServedJobs) -> None:
    batch_id = line.store.submit(line.agent_id, new_jobs(2), queue_limit=100, agent_limit=100).batch_id
    assert batch_id is not None
    with listening(line, batch_id) as heard:
        events = heard.events()
        assert next(events).data["counts"]["queued"] == 2
        line.store.cancel_batch(batch_id, line.agent_id)
        last = next(events)
        assert (last.name, last.data["counts"]["cancelled"]) == ("cancelled", 2)
        assert list(events) == []


def test_many_streams_keep_no_thread_and_are_bounded(line: ServedJobs) -> None:
    job_id, before = line.job(), line.threads()
    with ExitStack() as stack:
        open_ones = [stack.enter_context(listening(line, job_id)) for _ in range(STREAMS)]
        events = [heard.events() for heard in open_ones]
        assert {next(each).name for each in events} == {"progress"}
        assert line.threads() - before < STREAMS / 2
        with listening(line, job_id) as refused:
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) > 0
        line.store.cancel(job_id, line.agent_id)
        assert [[event.name for event in each] for each in events] == [["cancelled"]] * STREAMS
    # Whoever has gone makes room.
    other = line.job()
    eventually(lambda: opened(line, other))
    line.store.cancel(other, line.agent_id)


def opened(line: ServedJobs, job_id: str) -> bool:
    with listening(line, job_id) as heard:
        return heard.status == 200


@pytest.mark.parametrize("id", ["0" * 32, "x"])
def test_others_jobs_and_unknown_ones_are_refused(line: ServedJobs, id: str) -> None:
    with listening(line, id) as heard:
        assert heard.status == 404


def test_across_a_restart_each_event_comes_once(tmp_path: Path) -> None:
    first = ServedJobs(tmp_path)
    with first.server:
        job_id = first.job()
        with listening(first, job_id) as heard:
            told = [next(heard.events())]
            first.server.process.terminate()
            # A service that ends lets its listeners go, who come back.
            told += heard.events()
    running = first.run(job_id)
    first.store.report("w", [Report(running, 50, "decode", 2.0)], 600)
    second = first.again()
    with second.server:
        with listening(second, job_id, told[-1].id) as heard:
            events = heard.events()
            told.append(next(events))
            second.complete(second.store.get(job_id, second.agent_id))
            told += events
        with listening(second, job_id, told[-1].id) as heard:
            assert heard.status == 204
    assert [(each.name, each.data["progress"]) for each in told] == [
        ("progress", 0),
        ("progress", 50),
        ("completed", 100),
    ]
    first.database.close()


def test_where_no_server_keeps_connections_a_thread_waits(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        job_id = service.submit()
        target = f"{API}/status/{job_id}/events"
        answer = service.app.test_client().get(target, headers=service.headers("GET", target))
        parts = iter(answer.response)
        assert b"event: progress" in next(parts)
        service.services.store.cancel(job_id, service.owner("ann"))
        assert b"event: cancelled" in b"".join(parts)  # type: ignore[arg-type]
        answer.close()
        assert service.services.store.get(job_id, service.owner("ann")).status is Status.CANCELLED
        assert room(service)


def room(service: AgentService) -> bool:
    agent_id = service.owner("ann")
    return service.services.stream_slots.take(agent_id)


def test_a_removed_agent_s_stream_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.api.event_hub.BEAT_SECONDS", 0.0)
    monkeypatch.setattr("backend.api.event_hub._TICK_SECONDS", 0.05)
    with agent_service(tmp_path) as service:
        job_id = service.submit()
        target = f"{API}/status/{job_id}/events"
        answer = service.app.test_client().get(target, headers=service.headers("GET", target))
        parts = iter(answer.response)
        assert b"event: progress" in next(parts)
        assert next(parts) == b": still here\n\n"
        set_enabled(service.settings.agents_file, "ann", False)
        assert set(parts) <= {b": still here\n\n"}
        answer.close()
