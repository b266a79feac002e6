"""The WebSocket of an agent's events, as a client of another's making speaks to a real gunicorn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection

from backend.api.event_hub import EventHub
from backend.api.responses import Links
from backend.api.web_sockets import AgentSocket
from backend.auth.agents import load_agents
from tests.support.agent_service import API, agent_service, refused
from tests.support.served import ServedJobs
from tests.support.store_backends import submit
from tests.support.workshop import TIMEOUT_SECONDS

TARGET = f"{API}/events"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedJobs]:
    made = ServedJobs(tmp_path_factory.mktemp("sockets"))
    with made.server:
        yield made
    made.database.close()


@contextmanager
def opened(line: ServedJobs) -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{line.server.port}{TARGET}"
    with connect(url, additional_headers=line.headers("GET", TARGET), compression=None) as socket:
        yield socket


def heard(socket: ClientConnection) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(socket.recv(TIMEOUT_SECONDS))
    return told


def ask(socket: ClientConnection, **asked: object) -> None:
    socket.send(json.dumps(asked))


def test_it_tells_of_the_jobs_that_are_named_and_of_no_others(line: ServedJobs) -> None:
    first, other = line.job(), line.job()
    with opened(line) as socket:
        ask(socket, watch=[first, "0" * 32])
        refusal, told = heard(socket), heard(socket)
        assert (refusal["event"], refusal["code"], refusal["ids"]) == ("error", "JOB_NOT_FOUND", ["0" * 32])
        assert (told["event"], told["data"]["job_id"], told["data"]["status"]) == ("progress", first, "queued")
        for job_id in (other, first):
            line.store.cancel(job_id, line.agent_id)
        last = heard(socket)
        assert (last["event"], last["data"]["job_id"]) == ("cancelled", first)
        assert last["data"] == line.get(f"{API}/status/{first}").json


def test_whoever_comes_back_hears_what_is_new_and_nothing_twice(line: ServedJobs) -> None:
    job_id, done = line.job(), line.job()
    with opened(line) as socket:
        ask(socket, watch=[job_id, done])
        known = {told["data"]["job_id"]: told["id"] for told in (heard(socket), heard(socket))}
    line.store.cancel(done, line.agent_id)
    with opened(line) as other, opened(line) as socket:
        ask(other, watch=[job_id])
        assert heard(other)["data"]["job_id"] == job_id
        ask(socket, watch=[job_id, done], last=known)
        told = heard(socket)
        assert (told["event"], told["data"]["job_id"]) == ("cancelled", done)
        line.store.cancel(job_id, line.agent_id)
        told = heard(socket)
        assert (told["event"], told["data"]["job_id"]) == ("cancelled", job_id)


def test_what_comes_after_the_end_is_for_nobody(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        agent = load_agents(service.settings.agents_file)["ann"]
        links = Links(str, str, lambda _: None, lambda _: None)
        socket = AgentSocket(EventHub(service.services), service.services.stream_slots, agent, links)
        ends = Connection(ConnectionType.CLIENT).send(CloseConnection(code=1000))
        socket.received(ends)
        socket.protocol.send(CloseConnection(code=1000))
        socket.received(ends)


def test_without_names_it_tells_of_all_of_the_agent_s_jobs(line: ServedJobs) -> None:
    early = line.job()
    with opened(line) as socket:
        # Once it answers, it listens.
        socket.ping().wait(TIMEOUT_SECONDS)
        submit(line.store, "somebody else")
        late = line.job()
        told = heard(socket)
        assert (told["event"], told["data"]["job_id"]) == ("progress", late)
        line.store.cancel(early, line.agent_id)
        assert (heard(socket)["event"]) == "cancelled"
        line.store.cancel(late, line.agent_id)
        last = heard(socket)
        assert (last["event"], last["data"]["job_id"]) == ("cancelled", late)


@pytest.mark.parametrize("text", ["{", "[]", '{"watch": ["x"]}', '{"watch": [], "other": 1}', '{"last": {"a": 1}}'])
def test_what_it_does_not_understand_it_says(line: ServedJobs, text: str) -> None:
    with opened(line) as socket:
        socket.send(text)
        assert heard(socket)["code"] == "BAD_REQUEST"


@pytest.mark.parametrize(("message", "code"), [("x" * 100_000, 1009), (b"binary", 1003)])
def test_what_it_does_not_take_ends_it(line: ServedJobs, message: str | bytes, code: int) -> None:
    with opened(line) as socket:
        socket.send(message)
        with pytest.raises(ConnectionClosed) as end:
            socket.recv(TIMEOUT_SECONDS)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == code


def test_it_is_signed_and_bounded(line: ServedJobs) -> None:
    url = f"ws://127.0.0.1:{line.server.port}{TARGET}"
    with pytest.raises(InvalidStatus) as refusal:
        connect(url)
    assert refusal.value.response.status_code == 401
    with opened(line), opened(line), opened(line), pytest.raises(InvalidStatus) as refusal:
        connect(url, additional_headers=line.headers("GET", TARGET))
    assert refusal.value.response.status_code == 429


def test_a_plain_request_and_a_server_that_cannot_are_told_so(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        answer = service.get("/events")
        assert refused(answer) == (426, "UPGRADE_REQUIRED")
        assert answer.headers["Upgrade"] == "websocket"
        upgrade = {
            "Upgrade": "websocket",
            "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec_WebSocket_Version": "13",
        }
        assert refused(service.get("/events", **upgrade)) == (501, "STREAMS_UNSUPPORTED")


@pytest.mark.parametrize(
    ("origin", "refusal"),
    [
        ("https://evil.example", (403, "IP_NOT_ALLOWED")),
        ("null", (403, "IP_NOT_ALLOWED")),
        ("https://meshes.example", (501, "STREAMS_UNSUPPORTED")),
    ],
)
def test_a_page_of_others_opens_none(tmp_path: Path, origin: str, refusal: tuple[int, str]) -> None:
    """What is refused for another reason was let through to there: this server keeps no connections."""
    upgrade = {"Upgrade": "websocket", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec_WebSocket_Version": "13"}
    with agent_service(tmp_path, public_url="https://meshes.example") as service:
        assert refused(service.get("/events", Origin=origin, **upgrade)) == refusal


def test_a_service_that_ends_closes_it(tmp_path: Path) -> None:
    line = ServedJobs(tmp_path)
    with line.server, opened(line) as socket:
        socket.ping().wait(TIMEOUT_SECONDS)
        line.server.process.terminate()
        with pytest.raises(ConnectionClosed) as end:
            socket.recv(TIMEOUT_SECONDS)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 1001
    line.database.close()
