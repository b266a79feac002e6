"""README.md tells the truth about files, links, make targets and settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.config import settings_table

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "training").glob("*.md")])
README = (ROOT / "README.md").read_text()


def test_every_setting_stands_in_the_readme() -> None:
    assert settings_table() in README, "put backend.config.settings_table()'s text into README.md"


def test_every_room_on_the_way_of_a_request_is_there() -> None:
    way = README.split("## Follow one request")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z0-9_/]+\.py)`", way)
    assert len(named) > 30
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "backend").rglob("*.py")}
    missing = [name for name in named if not any(f"/{module}".endswith(f"/{name}") for module in modules)]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert missing == []


def test_make_targets_that_documents_name_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {target for path in DOCUMENTS for target in re.findall(r"(?:`|^ *)make ([a-z-]+)", path.read_text(), re.M)}
    assert {"demo", "serve", "test"} <= named <= targets
