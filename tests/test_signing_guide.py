"""docs/signing-rfc9421.md: its program talks to the real service, and its examples are true."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.agent_api import services_of
from backend.auth.agents_file import add_agent
from backend.auth.rfc9421 import Message, read_message_signature
from backend.config import Settings
from backend.jobs.worker_registry import WorkerState, WorkerStatus
from backend.main import create_app
from orfeas_client.signing import digest_body
from tests.support.listening import listening

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "signing-rfc9421.md").read_text()
BLOCKS = dict(re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.DOTALL))
PICTURE = sorted((ROOT / "samples").glob("*.png"))[0]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return the guide's program as its reader would save it."""
    path = tmp_path / "send.py"
    path.write_text(BLOCKS["python"])
    return path


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return what names a running service, and an agent of it, to the guide's program."""
    settings = Settings(data_dir=tmp_path / "data", worker_enabled=False)
    key = add_agent(settings.agents_file, "agent-7")
    app = create_app(settings)
    # A worker on another machine, as far as this process can tell: jobs are taken, and wait.
    services_of(app).registry.beat(WorkerState("elsewhere", WorkerStatus.READY), ttl=600)
    try:
        with listening(app) as port:
            url = f"http://127.0.0.1:{port}"
            yield {**os.environ, "ORFEAS_URL": url, "ORFEAS_AGENT_ID": "agent-7", "ORFEAS_API_KEY": key}
    finally:
        services_of(app).stop()


def run(program: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(program), str(PICTURE)]
    return subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=60)  # noqa: S603


def test_program_sends_a_picture_and_follows_its_job(program: Path, environ: dict[str, str]) -> None:
    done = run(program, environ)
    assert done.stderr == ""
    assert done.stdout.split() == ["queued", "cancelled"]


def test_program_tells_why_it_was_refused(program: Path, environ: dict[str, str]) -> None:
    done = run(program, {**environ, "ORFEAS_API_KEY": "another-key-0123456789abcdef"})
    assert done.stderr == "401 AUTH_INVALID: The agent is unknown or the signature is wrong.\n"
    assert done.returncode == 1


def test_example_of_the_wire_is_well_formed() -> None:
    lines = re.sub(r"\n\s+", "", BLOCKS["http"]).splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    headers["signature"] = headers["signature"].replace("…", base64.b64encode(bytes(32)).decode())
    read = read_message_signature(Message("POST", "/", "http", True, lambda name: headers.get(name.lower())))
    assert (read.agent_id, read.timestamp, read.nonce) == ("agent-7", "1760000000", "n-00000001")
    assert read.body_digest == digest_body(b"hello")
