"""Jobs as tasks of the Model Context Protocol: by the SDK's client with an extension, and message by message."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError

from backend.api.mcp.protocol import HANDSHAKE, MODERN
from backend.api.mcp.tasks import EXTENSION, METHODS
from backend.auth.agents_file import update_agent
from backend.errors import NoForeground, StoreUnavailable
from backend.jobs.janitor import Janitor
from backend.jobs.store import JobStore
from backend.jobs.worker_registry import WorkerStatus
from tests.support.agent_service import agent_service, fail_with, report_worker
from tests.support.hostile_pictures import good_png
from tests.support.listening import listening
from tests.support.mcp_endpoint import CAPABILITIES, VERSION, Endpoint
from tests.support.mcp_tasks import Acknowledged, CancelTask, NewTask, TaskParams, Tasks, UpdateParams, UpdateTask
from tests.support.workshop import TIMEOUT_SECONDS, eventually

IMAGE = base64.b64encode(good_png()).decode()
QUICK: dict[str, Any] = {"quality": 1, "steps": 10, "color": "none"}
ONE: dict[str, Any] = {"name": "generate_3d", "arguments": {"image": IMAGE, **QUICK}}
TWO: dict[str, Any] = {"name": "generate_batch", "arguments": {"images": [IMAGE, IMAGE], **QUICK}}
DAY = 24 * 3600


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Endpoint]:
    """Give a service that takes jobs and runs none."""
    with agent_service(tmp_path, bearer_tokens=True) as service:
        report_worker(service, WorkerStatus.READY)
        yield Endpoint.of(service)


def call(endpoint: Endpoint, params: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a tool's call by a client that knows tasks."""
    result: dict[str, Any] = endpoint.ask("tools/call", params, EXTENSION).get_json()["result"]
    return result


def task(endpoint: Endpoint, task_id: str) -> dict[str, Any]:
    """Return a task as it is now."""
    state: dict[str, Any] = endpoint.ask("tasks/get", {"taskId": task_id}, EXTENSION).get_json()["result"]
    return state


def ended(endpoint: Endpoint, task_id: str) -> dict[str, Any]:
    """Return a task once it works no more."""
    eventually(lambda: task(endpoint, task_id)["status"] != "working")
    return task(endpoint, task_id)


def refused(answer: Any) -> tuple[int, int]:
    """Return an answer's HTTP status and its error's code."""
    return answer.status_code, answer.get_json()["error"]["code"]


def test_the_sdk_s_client_follows_a_task_to_the_result_of_the_plain_call(tmp_path: Path) -> None:
    may_run = threading.Event()
    tasks = Tasks(lambda _: may_run.set())
    with agent_service(tmp_path, running=True, bearer_tokens=True) as service, listening(service.app) as port:
        service.fake.before_call = lambda _: may_run.wait(TIMEOUT_SECONDS)
        endpoint = Endpoint.of(service, port=port)

        async def talk() -> tuple[Any, Any]:
            async with endpoint.client(extensions=[tasks]) as client:
                made = await client.call_tool("generate_3d", ONE["arguments"])
                return made, await client.call_tool("get_job", {"job_id": tasks.created[0].task_id})

        made, plain = anyio.run(talk)
    assert made.structured_content["status"] == "completed"
    assert made == plain
    assert [part.type for part in made.content] == ["text", "image", "resource_link"]
    statuses = [state.status for state in tasks.seen]
    assert (statuses[0], statuses[-1], set(statuses)) == ("working", "completed", {"working", "completed"})


def test_the_sdk_s_client_cancels_a_task(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True) as service, listening(service.app) as port:
        report_worker(service, WorkerStatus.READY)
        endpoint = Endpoint.of(service, port=port)

        async def talk() -> list[Acknowledged]:
            async with endpoint.client(extensions=[Tasks(print)]) as client:
                send = client.session.send_request
                new = await client.session.call_tool("generate_3d", ONE["arguments"], allow_claimed=True)
                assert isinstance(new, NewTask)
                update = UpdateTask(params=UpdateParams(task_id=new.task_id, input_responses={}))
                cancel = CancelTask(params=TaskParams(task_id=new.task_id))
                return [await send(update, Acknowledged), await send(cancel, Acknowledged)]

        assert [answer.result_type for answer in anyio.run(talk)] == ["complete", "complete"]
        assert [job["status"] for job in service.get("/jobs").get_json()["jobs"]] == ["cancelled"]
        assert service.images() == []


def test_a_task_says_how_far_its_job_is_when_to_ask_and_how_long_it_is_kept(waiting: Endpoint) -> None:
    clock = waiting.service.clock
    began = clock()
    new = call(waiting, ONE)
    assert new == {
        "resultType": "task",
        "taskId": new["taskId"],
        "status": "working",
        "statusMessage": new["statusMessage"],
        "createdAt": began.isoformat(),
        "lastUpdatedAt": began.isoformat(),
        "ttlMs": DAY * 1000,
        "pollIntervalMs": 1000,
    }
    assert new["statusMessage"].startswith("queued, 0 %, position 1 in the queue")
    assert waiting.service.get(f"/status/{new['taskId']}").get_json()["job_id"] == new["taskId"]
    clock.advance(100)
    # Its time runs from its end, which is not before now.
    assert task(waiting, new["taskId"]) == {**new, "resultType": "complete", "ttlMs": (DAY + 100) * 1000}
    assert waiting.ask("tasks/cancel", {"taskId": new["taskId"]}, EXTENSION).get_json()["result"] == {
        "resultType": "complete"
    }
    clock.advance(100)
    assert task(waiting, new["taskId"]) == {
        "resultType": "complete",
        "taskId": new["taskId"],
        "status": "cancelled",
        "statusMessage": "cancelled",
        "createdAt": began.isoformat(),
        "lastUpdatedAt": (began + timedelta(seconds=100)).isoformat(),
        "ttlMs": (DAY + 100) * 1000,
    }


def test_whoever_asks_as_often_as_it_is_told_to_is_not_refused(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True, rate_limit=30) as service:
        report_worker(service, WorkerStatus.READY)
        # 60 % of 30 calls a minute are one every 3.3 seconds.
        assert call(Endpoint.of(service), ONE)["pollIntervalMs"] == 4000


def test_any_process_answers_for_a_task_and_it_outlives_all_of_them(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True) as first, agent_service(tmp_path, bearer_tokens=True) as second:
        report_worker(first, WorkerStatus.READY)
        token = Endpoint.of(first).token
        new = call(Endpoint(first, 80, token), TWO)
        told = task(Endpoint(second, 80, token), new["taskId"])
        assert (told["status"], told["createdAt"]) == ("working", new["createdAt"])
    with agent_service(tmp_path, running=True, bearer_tokens=True) as third:
        endpoint = Endpoint(third, 80, token)
        state = ended(endpoint, new["taskId"])
        assert state["status"] == "completed"
        plain = call(endpoint, {"name": "wait_for_job", "arguments": {"job_id": new["taskId"]}})
        assert state["result"] == plain
        assert plain["structuredContent"]["counts"]["completed"] == 2
        assert "pollIntervalMs" not in state


def test_a_job_that_failed_is_a_task_that_completed_with_the_tool_s_error(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True) as service:
        report_worker(service, WorkerStatus.READY)
        endpoint = Endpoint.of(service)
        fail_with(service, NoForeground())
        new = call(endpoint, ONE)
        service.services.start()
        state = ended(endpoint, new["taskId"])
        assert (state["status"], state["statusMessage"], state["result"]["isError"]) == ("completed", "failed", True)
        assert state["result"]["structuredContent"]["error"]["code"] == "NO_FOREGROUND"
        assert state["result"] == call(endpoint, {"name": "get_job", "arguments": {"job_id": new["taskId"]}})


def test_a_task_is_its_agent_s_alone(waiting: Endpoint) -> None:
    task_id = call(waiting, ONE)["taskId"]
    other = Endpoint.of(waiting.service, "bob")
    for method in METHODS:
        answers = [
            other.ask(method, {"taskId": name, "inputResponses": {}}, EXTENSION) for name in (task_id, "0" * 32, "x")
        ]
        assert {refused(answer) for answer in answers} == {(400, -32602)}
        assert len({json.dumps(answer.get_json()) for answer in answers}) == 1
    assert task(waiting, task_id)["status"] == "working"


def test_a_task_ends_with_its_job_s_files(tmp_path: Path) -> None:
    with agent_service(tmp_path, running=True, bearer_tokens=True) as service:
        endpoint = Endpoint.of(service)
        job_id = service.made()["job_id"]
        state = task(endpoint, job_id)
        assert (state["status"], state["ttlMs"]) == ("completed", DAY * 1000)
        service.clock.advance(DAY)
        services = service.services
        Janitor(services.store, services.artifacts, services.images, service.clock, timedelta(hours=24)).sweep()
        answer = endpoint.ask("tasks/get", {"taskId": job_id}, EXTENSION)
        assert refused(answer) == (400, -32602)
        assert "over" in answer.get_json()["error"]["message"]


@pytest.mark.parametrize("method", METHODS)
def test_who_does_not_declare_tasks_may_not_ask_about_one(waiting: Endpoint, method: str) -> None:
    answer = waiting.ask(method, {"taskId": waiting.service.submit(), "inputResponses": {}}, "com.example/other")
    assert refused(answer) == (400, -32021)
    assert answer.get_json()["error"]["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}


def test_who_does_not_declare_tasks_waits_as_ever(waiting: Endpoint) -> None:
    # What a client of 2025-11-25 would ask for a task with; it means nothing here.
    params = {"name": "generate_3d", "arguments": {**ONE["arguments"], "wait_seconds": 0.1}, "task": {"ttl": 1000}}
    headers = {"MCP_Protocol_Version": MODERN, "Mcp_Method": "tools/call", "Mcp_Name": "generate_3d"}
    declared: list[dict[str, Any]] = [
        {},
        {"extensions": {}},
        {"extensions": {EXTENSION: None}},
        {"extensions": [EXTENSION]},
        {"tasks": {}},
    ]
    for capabilities in declared:
        whole = {**params, "_meta": {VERSION: MODERN, CAPABILITIES: capabilities}}
        answer = waiting.post({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": whole}, **headers)
        assert said_in_stream(answer)["resultType"] == "complete", capabilities


def test_clients_of_2025_know_nothing_of_tasks(waiting: Endpoint) -> None:
    hello = {"protocolVersion": HANDSHAKE[0], "capabilities": {"extensions": {EXTENSION: {}}}, "clientInfo": {}}
    result = waiting.post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).get_json()["result"]
    assert result["capabilities"] == {"tools": {}}
    params = {"taskId": waiting.service.submit(), "inputResponses": {}}
    for method in METHODS:
        answer = waiting.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        assert refused(answer) == (404, -32601)
    arguments = {**ONE["arguments"], "wait_seconds": 0.1}
    params = {"name": "generate_3d", "arguments": arguments, "task": {"ttl": 1000}}
    answer = waiting.post({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    assert said_in_stream(answer)["structuredContent"]["status"] == "queued"


def said_in_stream(answer: Any) -> dict[str, Any]:
    """Return the result at the end of a stream."""
    assert answer.mimetype == "text/event-stream"
    text = b"".join(answer.response).decode()
    answer.close()
    result: dict[str, Any] = json.loads(text.rpartition("data: ")[2])["result"]
    return result


def test_the_server_says_that_it_knows_tasks(waiting: Endpoint) -> None:
    result = waiting.ask("server/discover", {}).get_json()["result"]
    assert result["capabilities"] == {"tools": {}, "extensions": {EXTENSION: {}}}
    for method in ("tasks/list", "tasks/result"):
        assert refused(waiting.ask(method, {}, EXTENSION)) == (404, -32601)


def test_calls_that_begin_nothing_or_do_not_wait_are_no_tasks(waiting: Endpoint) -> None:
    at_once = call(waiting, {"name": "generate_3d", "arguments": {**ONE["arguments"], "wait_seconds": 0}})
    assert (at_once["resultType"], at_once["structuredContent"]["status"]) == ("complete", "queued")
    job_id = at_once["structuredContent"]["job_id"]
    assert task(waiting, job_id)["status"] == "working"
    bad = call(waiting, {"name": "generate_3d", "arguments": {"image": "AAAA"}})
    assert (bad["resultType"], bad["isError"]) == ("complete", True)
    # To cancel a task that only waited would be to cancel the job of another call.
    waits = {"name": "wait_for_job", "arguments": {"job_id": job_id, "wait_seconds": 0.1}}
    assert said_in_stream(waiting.ask("tools/call", waits, EXTENSION))["resultType"] == "complete"


def test_who_may_only_make_jobs_is_told_of_its_tasks(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True) as service:
        report_worker(service, WorkerStatus.READY)
        update_agent(service.settings.agents_file, "ann", {"operations": ["batch"]})
        update_agent(service.settings.agents_file, "bob", {"operations": ["download"]})
        ann, bob = Endpoint.of(service), Endpoint.of(service, "bob")
        new = call(ann, TWO)
        assert task(ann, new["taskId"])["status"] == "working"
        # As with cancel_job.
        assert refused(ann.ask("tasks/cancel", {"taskId": new["taskId"]}, EXTENSION)) == (400, -32602)
        assert refused(bob.ask("tasks/get", {"taskId": new["taskId"]}, EXTENSION)) == (400, -32602)
        assert task(ann, new["taskId"])["status"] == "working"


@pytest.mark.parametrize(
    ("params", "code"),
    [({}, -32602), ({"taskId": 7}, -32602), ({"taskId": "a" * 10_000}, -32602), ({"taskId": "\u2603"}, -32602)],
    ids=["none", "a number", "long", "a snowman"],
)
def test_what_is_no_id_names_no_task(waiting: Endpoint, params: dict[str, Any], code: int) -> None:
    assert refused(waiting.ask("tasks/get", params, EXTENSION, Mcp_Name="")) == (400, code)


def test_an_update_answers_questions_that_were_asked(waiting: Endpoint) -> None:
    task_id = call(waiting, ONE)["taskId"]
    before = task(waiting, task_id)
    given = {"taskId": task_id, "inputResponses": {"never asked": {"action": "accept"}}}
    assert waiting.ask("tasks/update", given, EXTENSION).get_json()["result"] == {"resultType": "complete"}
    assert task(waiting, task_id) == before
    assert refused(waiting.ask("tasks/update", {"taskId": task_id}, EXTENSION)) == (400, -32602)


def test_a_header_that_names_another_task_is_refused(waiting: Endpoint) -> None:
    params = {"taskId": call(waiting, ONE)["taskId"]}
    assert refused(waiting.ask("tasks/get", params, EXTENSION, Mcp_Name="0" * 32)) == (400, -32020)
    assert waiting.ask("tasks/get", params, EXTENSION, Mcp_Name="").status_code == 200


def test_a_job_table_that_is_away_ends_no_task(waiting: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = call(waiting, ONE)["taskId"]

    def away(*_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "find", away)
        answer = waiting.ask("tasks/get", {"taskId": task_id}, EXTENSION)
    assert refused(answer) == (503, -32603)
    assert answer.get_json()["error"]["data"] == {"code": "STORE_UNAVAILABLE", "retry_after": 5}
    assert task(waiting, task_id)["status"] == "working"


def test_a_task_that_is_not_there_is_an_error_of_the_sdk_s_client(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True) as service, listening(service.app) as port:
        endpoint = Endpoint.of(service, port=port)

        async def talk() -> None:
            async with endpoint.client(extensions=[Tasks(print)]) as client:
                cancel = CancelTask(params=TaskParams(task_id="0" * 32))
                with pytest.raises(MCPError, match="no such task"):
                    await client.session.send_request(cancel, Acknowledged)

        anyio.run(talk)
