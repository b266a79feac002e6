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


def report(fault: str, made: str, figure: str) -> None:
    """Note what a long run of a fault gave, in place of what it gave before.

    made : how much of it; fault and made together name the line
    """
    if not LONG:
        return
    where = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} × {_processor()}"
    with FileLock(f"{RESULTS}.lock"):
        lines = RESULTS.read_text("utf-8").splitlines()[6:] if RESULTS.exists() else []
        kept = [line for line in lines if not line.startswith(f"| {fault} | {made} |")]
        rows = sorted([*kept, f"| {fault} | {made} | {figure} | {where} |"])
        RESULTS.write_text(_HEAD + "\n".join(rows) + "\n", "utf-8")
    Path(f"{RESULTS}.lock").unlink(missing_ok=True)


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":")[1].strip() if names else platform.machine()
