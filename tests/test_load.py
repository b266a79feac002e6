"""The load test's table is the one of the figures that are kept beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.load.report import RESULTS, report

FILES = sorted(RESULTS.glob("*.json"), reverse=True)


def test_the_table_is_made_of_the_figures_beside_it() -> None:
    assert {path.stem for path in FILES} >= {"one-sleeping", "cluster-sleeping"}
    written = RESULTS.with_suffix(".md").read_text()
    assert written == report(json.loads(path.read_text()) for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_run_says_on_what_it_was_made(path: Path) -> None:
    run = json.loads(path.read_text())
    assert run["cores"] >= 1
    assert all(step["calls"] and step["processor"] for step in run["steps"])
