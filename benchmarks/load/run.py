"""Load on the service by locust: agents of six kinds, more and more of them, against one process or a cluster.

    python -m benchmarks.load.run --stack one --model sleeping --out benchmarks/results/load
    python -m benchmarks.load.run --stack cluster --model sleeping --out benchmarks/results/load
    python -m benchmarks.load.report --out benchmarks/results/load.md

Each run writes a JSON file, from which `benchmarks.load.report` makes the table. Callers, service and stores share the
machine; what share of the processor each takes is measured, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load.pictures import draw
from benchmarks.load.stack import REPOSITORY, Stack, running
from benchmarks.support.prometheus import Prometheus

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_FIELDS = {
    "sleeping": {"preview": "false", "color": "none", "steps": "30", "quality": "7"},
    "demo": {"quality": "1", "steps": "10"},
}
_COUNTED = (
    "orfeas_batch_size_sum",
    "orfeas_batch_size_count",
    "orfeas_batch_capacity_total",
    "orfeas_device_busy_seconds_total",
    "orfeas_device_wanted_seconds_total",
)


@dataclass(frozen=True)
class Call:
    """What one kind of call came to. Times in milliseconds."""

    name: str
    requests: int
    failures: int
    median: float
    late: float


@dataclass(frozen=True)
class Step:
    """What so many agents came to. seconds : of processor, by part, in a second; memory : bytes by part, at its end."""

    users: int
    seconds: float
    calls: list[Call]
    errors: dict[str, int]
    processor: dict[str, float]
    memory: dict[str, int]
    completed: float
    counted: dict[str, float]


def totals(stack: Stack) -> dict[str, float]:
    """Return what the service has counted, over all its parts."""
    found = dict.fromkeys((*_COUNTED, "completed"), 0.0)
    for page in stack.pages():
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                if sample.name in _COUNTED:
                    found[sample.name] += sample.value
                if sample.name == "orfeas_runs_total" and sample.labels["outcome"] == "COMPLETED":
                    found["completed"] += sample.value
    return found


def step(stack: Stack, model: str, users: int, seconds: int, folder: Path) -> Step:
    """Let so many agents loose for so long."""
    prefix = folder / f"locust-{users}"
    environment = {
        **os.environ,
        "LOAD_AGENTS": str(stack.agents),
        "LOAD_IMAGE": str(REPOSITORY / "samples" / "chair.png"),
        "LOAD_FIELDS": json.dumps(_FIELDS[model]),
    }
    command = [
        *(sys.executable, "-m", "locust", "--headless", "--only-summary", "--locustfile", str(_LOCUSTFILE)),
        *("--host", stack.url, "--users", str(users), "--spawn-rate", str(users)),
        *("--run-time", f"{seconds}s", "--stop-timeout", "0", "--csv", str(prefix)),
    ]
    before, counted, begun = stack.seconds(), totals(stack), time.monotonic()
    callers = psutil.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    taken = [0.0]
    with _watching(callers, taken):
        _, errors = callers.communicate()
    if callers.returncode not in (0, 1):
        raise RuntimeError(f"locust ended with {callers.returncode}: {errors.decode()[-3000:]}")
    passed, after, now = time.monotonic() - begun, stack.seconds(), totals(stack)
    grown = {name: now[name] - counted[name] for name in now}
    processor = {name: (after[name] - before[name]) / passed for name in after} | {"locust": taken[0] / passed}
    return Step(
        users,
        seconds,
        [_call(row) for row in _rows(Path(f"{prefix}_stats.csv")) if row["Name"] != "Aggregated"],
        {f"{row['Name']}: {row['Error']}": int(row["Occurrences"]) for row in _rows(Path(f"{prefix}_failures.csv"))},
        processor,
        stack.memory(),
        grown["completed"] / passed * 60,
        grown,
    )


@contextmanager
def _watching(process: psutil.Popen, taken: list[float]) -> Iterator[None]:
    """Note the processor seconds of a process while it runs."""

    def watch() -> None:
        while process.poll() is None:
            try:
                times = process.cpu_times()
            except psutil.Error:
                return
            taken[0] = times.user + times.system
            time.sleep(0.2)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()


@contextmanager
def _drawn(stack: Stack, folder: Path | None) -> Iterator[None]:
    """Have a Prometheus watch what is done meanwhile, and draw it; without a folder do nothing."""
    if folder is None:
        yield
        return
    targets = {"orfeas-web": [stack.url.removeprefix("http://")]}
    prometheus = Prometheus(targets | ({"orfeas-worker": stack.workers} if stack.workers else {}), interval="2s")
    try:
        prometheus.start()
        begun = time.time()
        yield
        draw(prometheus, begun, time.time(), folder)
    finally:
        prometheus.destroy()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _call(row: dict[str, str]) -> Call:
    return Call(
        row["Name"],
        int(row["Request Count"]),
        int(row["Failure Count"]),
        float(row["50%"] or 0),
        float(row["99%"] or 0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", choices=("one", "cluster"), default="one")
    parser.add_argument("--model", choices=("sleeping", "demo"), default="sleeping")
    parser.add_argument("--users", default="15,45,90")
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, help="a folder for the dashboards, drawn from a Prometheus's answers")
    options = parser.parse_args()
    users = [int(each) for each in options.users.split(",")]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="orfeas-load-") as name:
        folder = Path(name)
        gpu = folder / "gpu.json" if options.pictures else None
        is_cluster = options.stack == "cluster"
        with running(folder / "service", options.model, max(users), is_cluster=is_cluster, gpu=gpu) as stack:
            idle = stack.memory()
            with _drawn(stack, options.pictures):
                steps = [step(stack, options.model, each, options.seconds, folder) for each in users]
    made: dict[str, Any] = {
        "stack": options.stack,
        "model": options.model,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "load_before": load,
        "cores": os.cpu_count(),
        "memory_idle": idle,
        "steps": [asdict(each) for each in steps],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.stack}-{options.model}.json"
    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
