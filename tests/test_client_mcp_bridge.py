"""`orfeas-client mcp`, as the SDK's client starts and speaks to it: what it signs, and which files it reads."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from backend.api.mcp.protocol import HANDSHAKE, MODERN
from orfeas_client import AgentClient
from tests.support.agent_service import AgentService, agent_service
from tests.support.fake_gpu import nothing
from tests.support.hostile_pictures import good_png
from tests.support.listening import listening
from tests.support.mcp_tasks import Tasks
from tests.support.workshop import TIMEOUT_SECONDS


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentService, str]]:
    with agent_service(tmp_path_factory.mktemp("bridge"), running=True) as service:
        # The bridge signs by this machine's clock.
        service.clock.now = datetime.now(UTC)
        with listening(service.app) as port:
            yield service, f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_host_makes_a_mesh_of_a_file(served: tuple[AgentService, str], tmp_path: Path, mode: Any) -> None:
    service, url = served
    (tmp_path / "mug.png").write_bytes(good_png())
    program = bridge(url, service.keys["ann"], tmp_path)

    async def talk() -> tuple[Any, Any]:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            async with Client(stdio_client(program, errlog=nowhere), mode=mode) as client:
                assert client.protocol_version == (MODERN if mode == "auto" else HANDSHAKE[0])
                tools = {tool.name: tool for tool in (await client.list_tools()).tools}
                assert str(tmp_path) in tools["generate_3d"].input_schema["properties"]["image"]["description"]
                given = {"image": str(tmp_path / "mug.png"), "quality": 1, "steps": 10, "color": "none"}
                made = await client.call_tool("generate_3d", given)
                return made, await client.call_tool("generate_3d", {"image": "/etc/passwd"})

    made, refused = anyio.run(talk)
    assert made.structured_content["status"] == "completed"
    assert [part.type for part in made.content] == ["text", "image", "resource_link"]
    assert refused.is_error
    assert "LOCAL_FILE" in refused.content[0].text


def test_a_host_that_knows_tasks_follows_one(served: tuple[AgentService, str], tmp_path: Path) -> None:
    service, url = served
    (tmp_path / "mug.png").write_bytes(good_png())
    may_run = threading.Event()
    service.fake.before_call = lambda _: may_run.wait(TIMEOUT_SECONDS)
    tasks = Tasks(lambda _: may_run.set())
    given = {"image": str(tmp_path / "mug.png"), "quality": 1, "steps": 10, "color": "none"}

    async def talk() -> Any:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            program = bridge(url, service.keys["ann"], tmp_path)
            async with Client(stdio_client(program, errlog=nowhere), extensions=[tasks]) as client:
                return await client.call_tool("generate_3d", given)

    made = anyio.run(talk)
    service.fake.before_call = nothing
    assert (tasks.seen[0].status, tasks.seen[-1].status) == ("working", "completed")
    assert made.structured_content["job_id"] == tasks.created[0].task_id
    assert [part.type for part in made.content] == ["text", "image", "resource_link"]


def bridge(url: str, key: str, folder: Path) -> StdioServerParameters:
    """Return how a host starts the bridge."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "orfeas_client", "mcp", "--folder", str(folder)],
        env={"ORFEAS_URL": url, "ORFEAS_AGENT_ID": "ann", "ORFEAS_API_KEY": key},
        cwd=Path(__file__).parents[1],
    )


class Host:
    """A bridge without a process: what it says to one line."""

    def __init__(self, url: str, key: str, *folders: Path) -> None:
        self.client = AgentClient(url, "ann", key, retries=0)
        self.folders = folders

    def say(self, line: str) -> dict[str, Any]:
        output = io.StringIO()
        self.client.mcp_bridge(self.folders, output).run(io.StringIO(line + "\n"))
        self.client.close()
        said: dict[str, Any] = json.loads(output.getvalue())
        return said

    def call(self, image: object) -> str:
        params = {"name": "generate_3d", "arguments": {"image": image, "wait_seconds": 0, "quality": 1}}
        result = self.say(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))["result"]
        told: dict[str, Any] = json.loads(result["content"][0]["text"])
        return str(told["code"]) if result.get("isError") else str(told["status"])


def test_only_pictures_below_the_folders_are_read(served: tuple[AgentService, str], tmp_path: Path) -> None:
    service, url = served
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "mug.png").write_bytes(good_png())
    (inside / "secret.png").write_text("not a picture")
    (inside / "link.png").symlink_to(outside / "mug.png")
    host = Host(url, service.keys["ann"], inside)
    assert host.call(str(inside / "mug.png")) in ("queued", "processing", "completed")
    others = (outside / "mug.png", inside / ".." / "out" / "mug.png", inside / "link.png", inside / "secret.png")
    for path in (*others, inside / "nothing.png", inside, Path("/dev/zero")):
        assert host.call(str(path)) == "LOCAL_FILE", path
    # Without folders there is nothing to read.
    assert Host(url, service.keys["ann"]).call(str(inside / "mug.png")) == "LOCAL_FILE"


def test_what_the_service_refuses_is_said_as_an_error(served: tuple[AgentService, str]) -> None:
    service, url = served
    listing = json.dumps({"jsonrpc": "2.0", "id": 4, "method": "tools/list"})
    refused = Host(url, "another-key-0123456789abcdef").say(listing)
    assert (refused["id"], "AUTH_INVALID" in refused["error"]["message"]) == (4, True)
    away = Host("http://127.0.0.1:9", service.keys["ann"]).say(listing)
    assert "No answer from" in away["error"]["message"]
    assert Host(url, service.keys["ann"]).say("{")["error"]["code"] == -32700
