"""Mixed traffic for minutes: memory, open files and threads of each process stay as they were after the warm-up."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from faults.soak import MIB, Drift, Traffic, Watch, family, memory_curve, write_report
from faults.web_harness import LONG, Callers, sized, web_service
from running import REPOSITORY

RESULT = REPOSITORY / "benchmarks" / "results" / "soak.md"
SECONDS = float(os.environ.get("SOAK_SECONDS", sized(60, 720)))
WARM_UP = sized(20, 120)
# In a short run the warm-up is not over when it should be: there only a leak that would fill the machine shows.
MOST_DRIFT = sized(0.15, 0.03)
SETTINGS = {
    "ARTIFACT_TTL_HOURS": 0.02,
    "SWEEP_SECONDS": 1,
    "UNAUTHENTICATED_RATE_LIMIT": 1_000_000,
    "MAX_IMAGE_BYTES": 2_000_000,
}


@pytest.mark.slow
def test_memory_files_and_threads_stay_flat_under_mixed_traffic(tmp_path: Path) -> None:
    with web_service(tmp_path, **SETTINGS) as service:
        traffic = Traffic(service)
        with Watch(family(service)) as watch, Callers() as callers:
            traffic.begin(callers)
            ended = time.monotonic() + SECONDS
            while time.monotonic() < ended and not callers.failures:
                time.sleep(0.5)
        drifts = {name: Drift.of(series, WARM_UP) for name, series in watch.series.items()}
        if LONG:
            write_report(RESULT, as_markdown(traffic, watch, drifts))
        assert min(traffic.counts[kind] for kind in ("mesh downloaded", "job cancelled", "stranger refused")) > 1
        for name, drift in drifts.items():
            assert drift.memory < MOST_DRIFT, (name, memory_curve(watch.series[name]))
            # Each caller has a connection of its own: as many files more may be open at one moment as at another.
            assert drift.files[1] - drift.files[0] <= 12, (name, drift)
            assert drift.threads[1] - drift.threads[0] <= 4, (name, drift)
        assert '"level": "ERROR"' not in service.log


def as_markdown(traffic: Traffic, watch: Watch, drifts: dict[str, Drift]) -> str:
    counts = ", ".join(f"{what} {count}" for what, count in sorted(traffic.counts.items()))
    lines = [
        "# Soak: mixed traffic on one process with the demo checkpoint",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores shared with other work, {datetime.now(UTC):%Y-%m-%d}; "
        f"{SECONDS / 60:.0f} minutes, of which {WARM_UP / 60:.0f} of warm-up are left out. "
        "`make soak` makes this table.",
        "",
        f"Answered: {counts}.",
        "",
        "Memory is a process's own, as held between batches (lowest twentieth); RSS is the median, with shared parts.",
        "",
        "| process | memory, first third | last third | drift | RSS | open files at most | threads at most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, drift in drifts.items():
        lines.append(
            f"| {name} | {drift.own[0] / MIB:.0f} MiB | {drift.own[1] / MIB:.0f} MiB | {drift.memory:+.1%} | "
            f"{drift.rss[0] / MIB:.0f} → {drift.rss[1] / MIB:.0f} MiB | "
            f"{drift.files[0]} → {drift.files[1]} | {drift.threads[0]} → {drift.threads[1]} |"
        )
    lines += ["", "Own memory (MiB, medians) by the minute, batches that run included:", ""]
    for name, series in watch.series.items():
        lines.append(f"- {name}: " + ", ".join(f"{minute:.1f}: {mib:.0f}" for minute, mib in memory_curve(series)))
    return "\n".join(lines) + "\n"
