"""The client listens: each state once, across what breaks off, and it polls where there is nothing to listen to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orfeas_client import AgentClient, Job
from orfeas_client.cli import run
from orfeas_client.errors import NoEvents, NothingToLink, ServiceRefused
from orfeas_client.event_lines import ServerEvent, read_events
from tests.support.agent_service import AgentService, agent_service
from tests.support.hostile_pictures import good_png
from tests.support.listening import listening
from tests.support.served import ServedJobs
from tests.support.workshop import eventually


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedJobs]:
    made = ServedJobs(tmp_path_factory.mktemp("client"))
    with made.server:
        yield made
    made.database.close()


def client_of(line: ServedJobs) -> AgentClient:
    return AgentClient(f"http://127.0.0.1:{line.server.port}", "ann", line.key)


def test_each_state_is_given_once_until_the_end(line: ServedJobs) -> None:
    job_id = line.job()
    with client_of(line) as client:
        states = client.events(job_id)
        assert next(states).status == "queued"
        line.store.cancel(job_id, line.agent_id)
        assert [state.status for state in states] == ["cancelled"]


def test_one_client_waits_in_several_threads(line: ServedJobs) -> None:
    ids = [line.job() for _ in range(3)]
    with client_of(line) as client, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(client.wait, job_id) for job_id in ids]
        for job_id in reversed(ids):
            line.store.cancel(job_id, line.agent_id)
        assert [each.result(30).id for each in waiting] == ids


def test_it_polls_where_the_streams_are_taken(line: ServedJobs) -> None:
    job_id, others = line.job(), [line.job() for _ in range(3)]
    with client_of(line) as client:
        held = [client.events(other) for other in others]
        for each in held:
            next(each)
        with pytest.raises(NoEvents, match="open streams"):
            next(client_of(line).events(job_id))
        threading.Timer(0.3, line.store.cancel, (job_id, line.agent_id)).start()
        assert client.wait(job_id).status == "cancelled"
        for each in held:
            each.close()
    for other in others:
        line.store.cancel(other, line.agent_id)


def test_a_job_that_is_not_there_is_named(line: ServedJobs) -> None:
    with client_of(line) as client, pytest.raises(ServiceRefused) as refusal:
        client.wait("0" * 32)
    assert (refusal.value.code, refusal.value.job_id) == ("JOB_NOT_FOUND", "0" * 32)


@pytest.mark.parametrize("after", [False, True])
def test_json_may_be_asked_for_on_either_side(
    line: ServedJobs, after: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = line.job()
    line.store.cancel(job_id, line.agent_id)
    options = ["--url", f"http://127.0.0.1:{line.server.port}", "--agent-id", "ann", "--api-key", line.key]
    asked = ["events", job_id]
    # What was cancelled is no success.
    assert run([*options, *asked, "--json"] if after else [*options, "--json", *asked], {}) == 1
    assert json.loads(capsys.readouterr().out)["status"] == "cancelled"


def test_a_restart_is_sat_out(tmp_path: Path) -> None:
    line = ServedJobs(tmp_path)
    with line.server:
        job_id, port = line.job(), line.server.port
        client = client_of(line)
        states = client.events(job_id)
        assert next(states).status == "queued"
    again = line.again(port)
    with again.server:
        eventually(lambda: again.server.port == port)
        line.store.cancel(job_id, line.agent_id)
        assert [state.status for state in states] == ["cancelled"]
    client.close()
    line.database.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[AgentService, str]]:
    with agent_service(tmp_path, running=True) as service, listening(service.app) as port:
        yield service, f"http://127.0.0.1:{port}"


def test_a_mesh_s_picture_is_fetched(running: tuple[AgentService, str], tmp_path: Path) -> None:
    service, url = running
    now = service.clock().timestamp
    with AgentClient(url, "ann", service.keys["ann"], clock=now) as client:
        job = client.wait(client.generate(good_png(), quality=1, steps=10, color="none").id)
        assert isinstance(job, Job)
        assert client.preview(job.id, tmp_path / "mesh.webp").read_bytes()[8:12] == b"WEBP"
        bare = client.wait(client.generate(good_png(), quality=1, steps=10, color="none", preview=False).id)
        with pytest.raises(NothingToLink, match="no preview"):
            client.preview(bare.id, tmp_path)


def test_events_are_read_however_they_are_written() -> None:
    lines = [
        b": hello",
        b"",
        b"event: progress",
        b"id: 1",
        b'data: {"a":',
        b"data:1}",
        b"",
        b"data: x",
        b"",
        b"data: lost",
    ]
    assert list(read_events(lines)) == [ServerEvent("progress", '{"a":\n1}', "1"), ServerEvent("message", "x", "1")]
