"""The Model Context Protocol, as its own SDK's client speaks it, in both eras, and what else may come."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError

from backend.api.image_urls import ImageUrls
from backend.api.mcp.protocol import HANDSHAKE, MODERN
from backend.api.submissions import Submitter
from backend.auth.agents_file import update_agent
from backend.jobs.worker_registry import WorkerStatus
from tests.support.agent_service import AgentService, agent_service, report_worker
from tests.support.hostile_pictures import good_png
from tests.support.listening import listening
from tests.support.mcp_endpoint import META, Endpoint
from tests.support.outside_world import outside_world, page, redirect
from tests.support.workshop import eventually

IMAGE = base64.b64encode(good_png()).decode()
TOOLS = ["generate_3d", "generate_batch", "get_job", "wait_for_job", "list_jobs", "cancel_job", "get_preview"]
QUICK = {"quality": 1, "steps": 10, "color": "none"}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("mcp")
    with agent_service(folder, running=True, bearer_tokens=True) as service, listening(service.app) as port:
        yield Endpoint.of(service, port=port)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_sdk_s_client_makes_a_mesh_and_sees_it(endpoint: Endpoint, mode: str) -> None:
    heard: list[tuple[float, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        assert total == 100
        heard.append((progress, message))

    async def talk() -> Any:
        async with endpoint.client(mode=mode) as client:
            assert client.protocol_version == (MODERN if mode == "auto" else HANDSHAKE[0])
            assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
            return await client.call_tool("generate_3d", {"image": IMAGE, **QUICK}, progress_callback=hear)

    result = anyio.run(talk)
    assert not result.is_error, result.content
    told = result.structured_content
    assert (told["status"], told["progress"], told["mesh"]["watertight"]) == ("completed", 100, True)
    text, picture, link = result.content
    assert json.loads(text.text) == told
    assert (picture.type, picture.mime_type) == ("image", "image/webp")
    assert base64.b64decode(picture.data)[8:12] == b"WEBP"
    assert (link.type, link.mime_type) == ("resource_link", "model/gltf-binary")
    fetched = endpoint.service.app.test_client().get(
        link.uri.removeprefix(f"http://127.0.0.1:{endpoint.port}"), buffered=True
    )
    assert fetched.data[:4] == b"glTF"
    values = [value for value, _ in heard]
    assert values == sorted(set(values))


def test_a_job_is_followed_listed_looked_at_and_cancelled(endpoint: Endpoint) -> None:
    async def talk() -> dict[str, Any]:
        async with endpoint.client() as client:
            two = {"images": [IMAGE, f"data:image/png;base64,{IMAGE}"], **QUICK, "label": "pair", "wait_seconds": 0}
            batch = (await client.call_tool("generate_batch", two)).structured_content
            done = (await client.call_tool("wait_for_job", {"job_id": batch["batch_id"]})).structured_content
            job_id = done["items"][0]["job_id"]
            return {
                "batch": batch,
                "done": done,
                "job": (await client.call_tool("get_job", {"job_id": job_id})).structured_content,
                "list": (await client.call_tool("list_jobs", {"label": "pair"})).structured_content,
                "preview": await client.call_tool("get_preview", {"job_id": job_id}),
                "cancelled": (await client.call_tool("cancel_job", {"job_id": job_id})).structured_content,
            }

    found = anyio.run(talk)
    assert "wait_for_job" in found["batch"]["next"]
    assert (found["done"]["status"], found["done"]["counts"]["completed"]) == ("completed", 2)
    assert found["job"] == {**found["job"], "label": "pair", "status": "completed"}
    assert {job["job_id"] for job in found["list"]["jobs"]} == {item["job_id"] for item in found["done"]["items"]}
    assert found["preview"].content[0].type == "image"
    # What is finished stays.
    assert found["cancelled"]["status"] == "completed"


def test_one_that_waits_is_cancelled_and_whoever_waits_for_it_hears_of_that(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True) as service:
        job_id = service.submit()
        here = Endpoint.of(service)
        call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call"}
        waits = here.post({**call, "params": {"name": "wait_for_job", "arguments": {"job_id": job_id}}})
        parts = iter(waits.response)
        assert next(parts) == b": waiting\n\n"
        cancelled = here.post({**call, "params": {"name": "cancel_job", "arguments": {"job_id": job_id}}}).get_json()
        assert cancelled["result"]["structuredContent"]["status"] == "cancelled"
        event = b"".join(parts).decode()
        waits.close()
        answer = json.loads(event.partition("data: ")[2])
        assert (answer["id"], answer["result"]["structuredContent"]["status"]) == (7, "cancelled")
        other = service.submit()
        arguments = {"job_id": other, "wait_seconds": 0.1}
        late = here.post({**call, "params": {"name": "wait_for_job", "arguments": arguments}})
        assert '"status": "queued"' in b"".join(late.response).decode().replace("\\", "")
        late.close()


def test_without_a_key_nothing_is_told(endpoint: Endpoint) -> None:
    wrong = f"{endpoint.token[:-4]}AAAA"
    assert endpoint.post({}, Authorization=f"Bearer {wrong}").status_code == 401

    async def talk() -> None:
        async with endpoint.client(token=wrong) as client:
            await client.list_tools()

    with pytest.raises((MCPError, BaseExceptionGroup)):
        anyio.run(talk)


def test_tools_that_an_agent_may_not_use_are_neither_listed_nor_known(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True) as service:
        job_id = service.submit()
        update_agent(service.settings.agents_file, "ann", {"operations": ["status"]})
        here = Endpoint.of(service)
        listed = here.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).get_json()["result"]["tools"]
        assert [tool["name"] for tool in listed] == ["get_job", "wait_for_job", "list_jobs"]
        params = {"name": "cancel_job", "arguments": {"job_id": job_id}}
        answer = here.post({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, -32602)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({}, "MISSING_IMAGE"),
        ({"image": "/etc/passwd"}, "INVALID_IMAGE"),
        ({"image": "AAAA"}, "UNSUPPORTED_IMAGE"),
        ({"image": "data:text/html,hi"}, "INVALID_IMAGE"),
        ({"image": IMAGE, "quality": 11}, "INVALID_QUALITY"),
        ({"image": IMAGE, "qualty": 1}, "UNKNOWN_FIELD"),
        ({"image": IMAGE, 'a"; name="image': "x"}, "UNKNOWN_FIELD"),
        ({"image": IMAGE, "wait_seconds": 1e9}, "INVALID_PARAMETER"),
        ({"image": IMAGE, "label": {"a": 1}}, "INVALID_PARAMETER"),
        ({"image": [IMAGE, IMAGE]}, "TOO_MANY_IMAGES"),
    ],
)
def test_wrong_arguments_are_explained_to_the_model(endpoint: Endpoint, arguments: dict[str, Any], code: str) -> None:
    params = {"name": "generate_3d", "arguments": arguments}
    answer = endpoint.post({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    assert answer.status_code == 200
    result = answer.get_json()["result"]
    told = json.loads(result["content"][0]["text"])
    assert (result["isError"], told["code"]) == (True, code)
    assert told["advice"]


MODERN_HEADERS = {"MCP_Protocol_Version": MODERN, "Mcp_Method": "tools/list"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, -32700),
        ([LIST], {}, 400, -32600),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, {}, 400, -32600),
        ({**LIST, "method": "prompts/list"}, {}, 404, -32601),
        (LIST, {"MCP_Protocol_Version": "1999-01-01"}, 400, -32022),
        ({**LIST, "params": {"_meta": {**META, next(iter(META)): "2027-01-01"}}}, MODERN_HEADERS, 400, -32022),
        ({**LIST, "params": {"_meta": META}}, {**MODERN_HEADERS, "Mcp_Method": "ping"}, 400, -32020),
        ({**LIST, "params": {"_meta": META}}, {}, 400, -32020),
        ({**LIST, "params": {"_meta": {next(iter(META)): MODERN}}}, MODERN_HEADERS, 400, -32602),
        ({**LIST, "method": "tools/call", "params": {"name": "rm"}}, {}, 400, -32602),
    ],
)
def test_what_is_no_call_is_refused_as_the_protocol_says(
    endpoint: Endpoint, body: object, headers: dict[str, str], status: int, code: int
) -> None:
    answer = endpoint.post(body, **headers)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (status, code)


def test_a_modern_answer_says_what_it_is(endpoint: Endpoint) -> None:
    result = endpoint.post({**LIST, "params": {"_meta": META}}, **MODERN_HEADERS).get_json()["result"]
    assert (result["resultType"], result["cacheScope"]) == ("complete", "private")
    assert endpoint.post({"jsonrpc": "2.0", "method": "notifications/initialized"}).status_code == 202


@pytest.mark.parametrize(("origin", "status"), [(None, 200), ("http://evil.example", 403), ("null", 403), ("OWN", 200)])
def test_pages_of_others_may_not_call(endpoint: Endpoint, origin: str | None, status: int) -> None:
    own = f"http://localhost:{endpoint.port}"
    headers = {} if origin is None else {"Origin": own if origin == "OWN" else origin}
    assert endpoint.post(LIST, **headers).status_code == status


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_there_is_no_session_to_listen_to_or_to_end(endpoint: Endpoint, method: str) -> None:
    answer = endpoint.service.app.test_client().open("/mcp", method=method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_a_batch_counts_as_a_batch(tmp_path: Path) -> None:
    with agent_service(tmp_path, bearer_tokens=True, batch_rate_limit=1) as service:
        here = Endpoint.of(service)
        eventually(lambda: here.post(LIST).status_code == 200)
        params = {"name": "generate_batch", "arguments": {"images": []}}
        told = [
            json.loads(
                here.post({**LIST, "method": "tools/call", "params": params}).get_json()["result"]["content"][0]["text"]
            )
            for _ in range(2)
        ]
        assert [each["code"] for each in told] == ["MISSING_IMAGE", "RATE_LIMITED"]


def test_a_picture_may_have_an_address_where_that_is_allowed(tmp_path: Path) -> None:
    def call(service: AgentService, method: str, params: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        result: dict[str, Any] = service.call("POST", "/mcp", body, Content_Type="application/json").get_json()[
            "result"
        ]
        return result

    def made(service: AgentService, tool: str, **arguments: Any) -> Any:
        result = call(service, "tools/call", {"name": tool, "arguments": {**arguments, "wait_seconds": 0}})
        told = result["structuredContent"] if not result["isError"] else json.loads(result["content"][0]["text"])
        return told.get("code") or told["status"]

    address = "https://pictures.test/a.png"
    for name in ("world", "off", "on"):
        (tmp_path / name).mkdir()
    with outside_world(tmp_path / "world") as world:
        world.pages |= {"/a.png": page(good_png()), "/inside": redirect("https://127.0.0.1/a.png")}
        with agent_service(tmp_path / "off") as closed:
            report_worker(closed, WorkerStatus.READY)
            assert made(closed, "generate_3d", image=address) == "IMAGE_URL_REFUSED"
            assert "https" not in str(call(closed, "tools/list", {})["tools"][0]["inputSchema"]["properties"]["image"])
        with agent_service(tmp_path / "on", image_urls="public") as service:
            report_worker(service, WorkerStatus.READY)
            submitter = Submitter(service.services, ImageUrls(service.settings, world.outgoing()))
            known = service.app.extensions
            known["agent_mcp"] = replace(known["agent_mcp"], submitter=submitter)
            assert made(service, "generate_3d", image=address, format=["glb", "stl"], preview=False) == "queued"
            assert made(service, "generate_batch", images=[address, IMAGE]) == "queued"
            assert len(service.images()) == 3
            assert made(service, "generate_3d", image="https://pictures.test/inside") == "IMAGE_URL_REFUSED"
            assert made(service, "generate_3d", image=f"{address}.none") == "IMAGE_URL_FAILED"
            assert "https" in str(call(service, "tools/list", {})["tools"][0]["inputSchema"]["properties"]["image"])
