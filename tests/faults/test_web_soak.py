"""Mixed traffic for minutes: memory, open files and threads of each process stay as they were after the warm-up.

Memory is compared where nothing runs: what a batch works with is as large as its batch, and says nothing of what stays.
"""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.faults.soak import MIB, Sample, Traffic, Watch, family, growth, write_report
from tests.support.faults.web_harness import LONG, Callers, sized, web_service
from tests.support.running import REPOSITORY

RESULT = REPOSITORY / "benchmarks" / "results" / "soak.md"
# Six rests in a long run, the first after two minutes of warm-up.
STRETCHES = sized(2, 6)
STRETCH_SECONDS = sized(8, 110)
# A short run is over before the warm-up is: there only a leak that would soon fill the machine shows.
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
            for _ in range(STRETCHES):
                ended = time.monotonic() + STRETCH_SECONDS
                while time.monotonic() < ended and not callers.failures:
                    time.sleep(0.5)
                if callers.failures:
                    break
                with traffic.at_rest():
                    watch.note_rest()
        if LONG:
            write_report(RESULT, as_markdown(traffic, watch))
        assert min(traffic.counts[kind] for kind in ("mesh downloaded", "job cancelled", "stranger refused")) > 1
        for name, rest in watch.rest.items():
            assert drift(rest) < MOST_DRIFT, (name, [round(sample.own / MIB) for sample in rest])
            assert rest[-1].files - rest[0].files <= 4, (name, rest)
            assert rest[-1].threads - rest[0].threads <= 4, (name, rest)
        assert '"level": "ERROR"' not in service.log


def drift(samples: list[Sample]) -> float:
    """How much of its own memory a process gained."""
    first, last = growth(samples, lambda sample: sample.own)
    return last / first - 1


def as_markdown(traffic: Traffic, watch: Watch) -> str:
    counts = ", ".join(f"{what} {count}" for what, count in sorted(traffic.counts.items()))
    minutes = STRETCHES * STRETCH_SECONDS / 60
    lines = [
        "# Soak: mixed traffic on one process with the demo checkpoint",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores shared with other work, {datetime.now(UTC):%Y-%m-%d}; "
        f"{minutes:.0f} minutes of traffic with {STRETCHES} rests, the first after the warm-up. MiB, each the mean of "
        "the first third (of the rests, or of the samples under load after the warm-up) and of the last. `make soak` "
        "makes these tables.",
        "",
        f"Answered: {counts}.",
        "",
        "| process, at rest | own memory | drift | RSS | open files | threads |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(name, rest, f"{drift(rest):+.1%}") for name, rest in watch.rest.items()]
    lines += [
        "",
        "| process, under load | own memory | drift | RSS | open files | threads |",
        "|---|---|---|---|---|---|",
    ]
    for name, samples in watch.load.items():
        warm = [sample for sample in samples if sample.seconds > watch.rest[name][0].seconds]
        lines.append(_row(name, warm, f"{drift(warm):+.1%}"))
    lines += ["", "Own memory at each rest:", ""]
    for name, rest in watch.rest.items():
        told = ", ".join(f"{sample.seconds / 60:.1f} min: {sample.own / MIB:.0f}" for sample in rest)
        lines.append(f"- {name}: {told}")
    return "\n".join(lines) + "\n"


def _row(name: str, samples: list[Sample], gained: str) -> str:
    own, rss = growth(samples, lambda s: s.own / MIB), growth(samples, lambda s: s.rss / MIB)
    files, threads = growth(samples, lambda s: s.files), growth(samples, lambda s: s.threads)
    return (
        f"| {name} | {own[0]:.0f} → {own[1]:.0f} | {gained} | {rss[0]:.0f} → {rss[1]:.0f} | "
        f"{files[0]:.0f} → {files[1]:.0f} | {threads[0]:.0f} → {threads[1]:.0f} |"
    )
