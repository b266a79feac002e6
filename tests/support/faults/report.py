"""The measured figures of a long run: one line for each fault in benchmarks/results/faults.md.

A short run writes nothing. This module does not know any fault.
"""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from tests.support.faults.web_harness import LONG

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "faults.md"
_HEAD = """# Faults, measured

Written by `make faults FAULTS=long` (tests/faults); each line is one fault's latest run.

| fault | made | figure | when, where |
|---|---|---|---|
"""

_STAMINA_HEAD = """# Stamina, measured

Written by `make faults FAULTS=long` (tests/faults): what an ordinary caller, who asks for /health and GET /jobs in turn
and gives up after 8 s, gets from one process while others do this. *Before* is the release before connections were
handled by one loop. The callers run on the same machine; while *before* was measured, other test runs shared its cores.

| load | before | after | when, where |
|---|---|---|---|
"""


def report(fault: str, made: str, figure: str) -> None:
    """Note what a long run of a fault gave, in place of what it gave before.

    made : how much of it; fault and made together name the line
    """
    _replace(RESULTS, _HEAD, f"| {fault} | {made} |", f" {figure} | {_where()} |")


def report_stamina(load: str, figure: str) -> None:
    """Note what an ordinary caller got beside a load, in place of what it got before.

    The figure goes into the column that STAMINA names, `before` or `after`: what stands in the other stays.
    """
    column = os.environ.get("STAMINA", "after")
    path = RESULTS.with_name("stamina.md")
    old = ["", ""]
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        if line.startswith(f"| {load} |"):
            old = [cell.strip() for cell in line.split("|")[2:4]]
    old[column == "after"] = figure
    _replace(path, _STAMINA_HEAD, f"| {load} |", f" {old[0]} | {old[1]} | {_where()} |")


def _replace(path: Path, head: str, start: str, rest: str) -> None:
    if not LONG:
        return
    with FileLock(f"{path}.lock"):
        lines = path.read_text("utf-8").splitlines()[len(head.splitlines()) :] if path.exists() else []
        kept = [line for line in lines if not line.startswith(start)]
        path.write_text(head + "\n".join(sorted([*kept, start + rest])) + "\n", "utf-8")
    Path(f"{path}.lock").unlink(missing_ok=True)


def _where() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} × {_processor()}"


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":")[1].strip() if names else platform.machine()
