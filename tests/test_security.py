"""docs/security.md and docs/asvs.md: what they name is there, nothing is left out, and the tools run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.running import REPOSITORY

PAGE = (REPOSITORY / "docs/security.md").read_text()
ASVS = (REPOSITORY / "docs/asvs.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE + ASVS)))
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in re.findall(r"^\| [0-9].*$", ASVS, re.MULTILINE)]
LAST: dict[str, int] = {
    "1.1": 2, "1.2": 9, "1.3": 11, "1.4": 3, "1.5": 2, "2.1": 3, "2.2": 3, "2.3": 4, "2.4": 1,
    "3.2": 2, "3.3": 4, "3.4": 6, "3.5": 5, "3.7": 2, "4.1": 3, "4.2": 1, "4.3": 2, "4.4": 4,
    "5.1": 1, "5.2": 3, "5.3": 2, "5.4": 3, "6.1": 3, "6.2": 12, "6.3": 4, "6.4": 4, "6.5": 5,
    "6.6": 3, "6.8": 4, "7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 2, "7.6": 2, "8.1": 2,
    "8.2": 3, "8.3": 1, "8.4": 1, "9.1": 3, "9.2": 4, "11.1": 2, "11.2": 3, "11.3": 3, "11.4": 4,
    "11.5": 1, "11.6": 1, "12.1": 3, "12.2": 2, "12.3": 4, "13.1": 1, "13.2": 5, "13.3": 2, "13.4": 5,
    "14.1": 2, "14.2": 4, "14.3": 3, "15.1": 3, "15.2": 3, "15.3": 7, "16.1": 1, "16.2": 5, "16.3": 4,
    "16.4": 3, "16.5": 3,
}  # fmt: skip
"""The last requirement of levels 1 and 2 in each section of ASVS 5.0.0, where those come first."""

VERDICTS = ("met", "in part", "not met", "not applicable")
LEVEL_1 = 65
"""Of these requirements, as many are of level 1; five more are chapter 10's."""


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


def test_every_requirement_of_asvs_is_answered_once() -> None:
    wanted = [f"{section}.{number}" for section, last in LAST.items() for number in range(1, last + 1)]
    assert [row[0] for row in ROWS] == wanted
    assert [row[1] for row in ROWS].count("1") == LEVEL_1
    assert {row[1] for row in ROWS} == {"1", "2"}
    verdicts = Counter(row[2] for row in ROWS)
    assert verdicts.keys() == set(VERDICTS)
    told = re.search(r"Of (\d+) requirements (\d+) are met, (\d+) in part, (\d+) not, and (\d+) do not apply", ASVS)
    assert told is not None
    assert [int(number) for number in told.groups()] == [len(ROWS), *(verdicts[name] for name in VERDICTS)]


def test_what_is_said_to_be_met_is_shown_by_files_that_are_there() -> None:
    assert [row for row in ROWS if not row[3] or (row[2] != "not applicable" and "`" not in row[4])] == []
    named = {path for row in ROWS for path in re.findall(r"`([^`:]+)(?:::\w+)?`", row[4])}
    assert len(named) > 60
    assert sorted(path for path in named if not (REPOSITORY / path).is_file()) == []
    assert [row[0] for row in ROWS if row[2] == "not met" and not row[3].startswith("because ")] == []


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
    # Whether what it writes is as CycloneDX's schema asks is its own tests' to say: that takes half a minute.
    command_line = [program, *words[1:], "--no-validate"]
    subprocess.run(command_line, check=True, cwd=REPOSITORY, capture_output=True)  # noqa: S603
    bill = json.loads(target.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    versions = {part["name"].lower().replace("_", "-"): part["version"] for part in bill["components"]}
    pins = re.findall(r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    assert len(pins) > 20
    missing = {name for name, pin in pins if versions.get(name.lower().replace("_", "-"), "").split("+")[0] != pin}
    assert missing == set()
