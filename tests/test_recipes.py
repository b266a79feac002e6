"""The recipes of docs/signing.md, each run as it stands there against a guarded service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.auth.hmac_signing import sign_request
from benchmarks.support.programs import require
from orfeas_client.signing import digest_body
from tests.support.tiny_service import AGENT_ID, TinyService

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "docs" / "recipes"
COMMANDS = {"generate.sh": ["bash"], "generate.mjs": ["node"], "generate.py": [sys.executable, "-I"]}
PICTURE = bytes(range(256)) * 300 + b"\r\n--\r\n"


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    require(ROOT / "tests" / "support" / "install-recipe-tools.sh")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[TinyService, str]]:
    found = TinyService(tmp_path / "data", looks=1)
    with found.serving() as port:
        yield found, f"http://127.0.0.1:{port}"


@pytest.fixture(params=COMMANDS)
def recipe(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def cook(recipe: str, folder: Path, url: str, key: str, mesh: str = "mesh.stl") -> subprocess.CompletedProcess[str]:
    (folder / "a cat.png").write_bytes(PICTURE)
    return subprocess.run(  # noqa: S603
        [*COMMANDS[recipe], str(RECIPES / recipe), "a cat.png", mesh],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "ORFEAS_URL": url, "ORFEAS_AGENT_ID": AGENT_ID, "ORFEAS_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_recipe_makes_a_mesh(recipe: str, service: tuple[TinyService, str], tmp_path: Path) -> None:
    tiny, url = service
    done = cook(recipe, tmp_path, url, tiny.api_key)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (job,) = tiny.job.values()
    assert job.image == PICTURE
    assert job.fields == {"format": "stl", "async": "true"}
    assert (tmp_path / "mesh.stl").read_bytes() == PICTURE


def test_recipe_tells_a_refusal(recipe: str, service: tuple[TinyService, str], tmp_path: Path) -> None:
    done = cook(recipe, tmp_path, service[1], "another-key-0123456789abcdef")
    assert done.returncode == 1
    assert '"code":"AUTH_INVALID"' in done.stderr.replace(" ", "")
    assert not (tmp_path / "mesh.stl").exists()


def test_recipe_tells_why_there_is_no_mesh(recipe: str, service: tuple[TinyService, str], tmp_path: Path) -> None:
    service[0].outcome = "failed"
    done = cook(recipe, tmp_path, service[1], service[0].api_key)
    assert done.returncode == 1
    assert "NO_FOREGROUND" in done.stderr
    assert not (tmp_path / "mesh.stl").exists()


def test_recipe_sends_no_signature_elsewhere(recipe: str, service: tuple[TinyService, str], tmp_path: Path) -> None:
    tiny, url = service
    with TinyService(tmp_path / "evil").serving() as port:
        tiny.download_folder = f"http://127.0.0.1:{port}/api/agent/download/"
        done = cook(recipe, tmp_path, url, tiny.api_key)
    evil = tmp_path / "evil" / "audit.jsonl"
    # The recipe in Python goes by the address's path alone, at the service that it knows.
    assert done.returncode == (0 if recipe == "generate.py" else 1)
    assert not evil.exists()


def test_document_shows_every_recipe_and_the_known_answer() -> None:
    document = (ROOT / "docs" / "signing.md").read_text()
    for name in COMMANDS:
        assert f"](recipes/{name})" in document
    digest = digest_body(b"hello")
    signature = sign_request(
        "test-key-0123456789abcdef",
        "POST",
        "/api/agent/batch",
        "x=1&a=%20b",
        "agent-7",
        1760000000,
        "n-00000001",
        digest,
    )
    assert digest in document
    assert signature in document


def test_known_answer_is_that_of_the_command_in_the_document(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "signing.md").read_text()
    command = re.search(r"```sh\n(printf .*?)```", document, re.DOTALL)
    assert command is not None
    bash = [*COMMANDS["generate.sh"], "-c", command[1]]
    done = subprocess.run(bash, cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.split()[0] == "20acd918990406a3a1641c7861a12405faecec7c93f4180d20c999aa82587605"
