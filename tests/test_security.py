"""docs/security.md: every defence has a test that is there, and the tools that it names run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import REPOSITORY

PAGE = (REPOSITORY / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def test_every_threat_has_a_defence_and_a_test() -> None:
    table = PAGE.split("## Threats")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")][
        1:
    ]
    assert len(rows) > 40
    assert {row[1] for row in rows} == set("STRIDE")
    assert [row for row in rows if len(row) != 5 or not all(row) or "::test_" not in row[4]] == []


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_tests_that_are_named_are_there(path: str) -> None:
    tree = ast.parse((REPOSITORY / path).read_text())
    there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert {name for named_path, name in NAMED if named_path == path} - there == set()


def test_both_of_owasps_lists_are_whole() -> None:
    assert re.findall(r"^\| API(\d+) ", PAGE, re.MULTILINE) == [str(number) for number in range(1, 11)]
    assert re.findall(r"^\| V(\d+) ", PAGE, re.MULTILINE) == [str(number) for number in range(1, 18)]


def test_every_secret_of_the_settings_is_rotated_somehow() -> None:
    rotating = PAGE.split("## Rotating keys")[1].split("\n## ")[0]
    assert re.findall(r"orfeas (?:agents rotate|keys rotate|agents token)", rotating)
    assert all(word in rotating for word in ("PostgreSQL", "Redis", "metrics", "TLS"))


@pytest.mark.slow
def test_the_sbom_names_what_is_pinned(tmp_path: Path) -> None:
    target = tmp_path / "orfeas.cdx.json"
    command = re.search(
        r"^sbom:.*\n\t\$\(BIN\)/(cyclonedx-py .*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE
    )
    assert command is not None
    words = command[1].replace("$(BIN)/python", sys.executable).replace("orfeas.cdx.json", str(target)).split()
    program = Path(sys.executable).with_name(words[0])
    subprocess.run([program, *words[1:]], check=True, cwd=REPOSITORY, capture_output=True)  # noqa: S603
    bill = json.loads(target.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    versions = {part["name"].lower().replace("_", "-"): part["version"] for part in bill["components"]}
    pins = re.findall(r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    assert len(pins) > 20
    missing = {name for name, pin in pins if versions.get(name.lower().replace("_", "-"), "").split("+")[0] != pin}
    assert missing == set()
