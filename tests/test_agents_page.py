"""docs/agents.md: its lines are run as they stand there, and /llms.txt names what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.auth.agents_file import add_token
from benchmarks.support.programs import require
from tests.support.agent_service import AgentService, agent_service
from tests.support.hostile_pictures import good_png
from tests.support.listening import listening

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "agents.md").read_text("utf-8")
COMMANDS = {"sh": ["bash", "-c"], "python": [sys.executable, "-c"], "js": ["node", "--input-type=module", "-e"]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentService, str, str]]:
    with agent_service(tmp_path_factory.mktemp("page"), running=True, bearer_tokens=True) as service:
        token = add_token(service.settings.agents_file, "ann")
        with listening(service.app) as port:
            yield service, f"http://127.0.0.1:{port}", token


@pytest.mark.parametrize("language", COMMANDS)
def test_its_lines_make_a_mesh(language: str, served: tuple[AgentService, str, str], tmp_path: Path) -> None:
    require(ROOT / "tests" / "support" / "install-recipe-tools.sh")
    _, url, token = served
    match = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    (tmp_path / "mug.png").write_bytes(good_png())
    done = subprocess.run(  # noqa: S603
        [*COMMANDS[language], match[1]],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "ORFEAS_URL": url, "ORFEAS_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "completed" in done.stdout) == (0, True), done.stderr
    assert (tmp_path / "mug.glb").read_bytes()[:4] == b"glTF"
    # Ten lines, and what opens and closes them.
    assert len(match[1].strip().splitlines()) <= 12


def test_a_model_is_told_where_to_begin(served: tuple[AgentService, str, str]) -> None:
    service, _, _ = served
    answer = service.app.test_client().get("/llms.txt")
    assert answer.mimetype == "text/plain"
    rules = {rule.rule for rule in service.app.url_map.iter_rules()}
    named = set(re.findall(r"(/(?:api/agent/[a-z0-9-]+|mcp|openapi\.json|docs))\b", answer.text))
    assert len(named) >= 6
    assert {path for path in named if path not in rules} <= {"/api/agent/status"}
