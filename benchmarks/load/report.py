"""Make the load test's table of the JSON files that `benchmarks.load.run` wrote.

python -m benchmarks.load.report --out benchmarks/results/load.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "load"
_STACKS = {
    "one": "one process (gunicorn, SQLite, its worker beside the requests)",
    "cluster": "four web processes, PostgreSQL that waits for the disk, Redis, two workers",
}
_MODELS = {
    "sleeping": "a model that sleeps as long as an H100 works (30 steps, resolution 384)",
    "demo": "the demo checkpoint on the CPU, quality 1, 10 steps",
}


def report(found: Iterable[Mapping[str, Any]]) -> str:
    """Return the document, as markdown."""
    lines = [
        "# Load",
        "",
        "Locust's agents of six kinds (benchmarks/load/locustfile.py), of 15: 4 send a picture, follow and fetch it; "
        "2 send four at once; 4 ask ten times a second; 2 hold `?wait=`; 2 download twice a second; "
        "1 sends its picture in drops. Callers, service and stores share the machine: processor is in cores.",
    ]
    for run in found:
        lines += ["", *_section(run)]
    return "\n".join(lines) + "\n"


def _section(run: Mapping[str, Any]) -> list[str]:
    memory = ", ".join(f"{name} {size / 2**20:.0f} MB" for name, size in run["memory_idle"].items())
    lines = [
        f"## {_STACKS[run['stack']][0].upper()}{_STACKS[run['stack']][1:]}; {_MODELS[run['model']]}",
        "",
        f"{run['date']} UTC, {run['cores']} cores, load {run['load_before']:.1f} before the start"
        f"{' (the machine was shared)' if run['load_before'] > 1 else ''}; memory at rest: {memory}.",
        "",
        "| agents | answers a second | errors | meshes a minute | batch fill | device busy | processor, cores | MB |",
        "|---|---|---|---|---|---|---|---|",
        *map(_overview, run["steps"]),
        "",
        "Milliseconds to the whole answer, median / 99 %, by call and number of agents:",
        "",
        "| call | " + " | ".join(str(step["users"]) for step in run["steps"]) + " |",
        "|---|" + "---|" * len(run["steps"]),
    ]
    names = sorted({call["name"] for step in run["steps"] for call in step["calls"]})
    lines += [f"| {name} | " + " | ".join(_times(step, name) for step in run["steps"]) + " |" for name in names]
    errors: dict[str, int] = {}
    for step in run["steps"]:
        for what, count in step["errors"].items():
            errors[what] = errors.get(what, 0) + count
    if errors:
        lines += ["", "Errors: " + "; ".join(f"{what} ({count})" for what, count in sorted(errors.items())) + "."]
    return lines


def _overview(step: Mapping[str, Any]) -> str:
    calls, counted = step["calls"], step["counted"]
    requests, failures = sum(call["requests"] for call in calls), sum(call["failures"] for call in calls)
    processor = ", ".join(f"{name} {cores:.2f}" for name, cores in step["processor"].items())
    memory = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in step["memory"].items())
    fill = _share(counted["orfeas_batch_size_sum"], counted["orfeas_batch_capacity_total"])
    busy = _share(counted["orfeas_device_busy_seconds_total"], counted["orfeas_device_wanted_seconds_total"])
    return (
        f"| {step['users']} | {requests / step['seconds']:.1f} | {failures} | {step['completed']:.1f} | {fill} "
        f"| {busy} | {processor} | {memory} |"
    )


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def _times(step: Mapping[str, Any], name: str) -> str:
    found = [call for call in step["calls"] if call["name"] == name and call["requests"]]
    return f"{found[0]['median']:.0f} / {found[0]['late']:.0f}" if found else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    order = [f"{stack}-{model}" for stack in _STACKS for model in _MODELS]
    files = sorted(options.results.glob("*.json"), key=lambda path: order.index(path.stem))
    options.out.write_text(report(json.loads(path.read_text()) for path in files), encoding="utf-8")


if __name__ == "__main__":
    main()
