"""What one picture takes that is sent with the defaults: seconds end to end, seconds by stage, and the mesh's bytes.

    python -m benchmarks.default_call

The service is `python -m backend.serve` with the bundled checkpoint in a process of its own, warmed up. A client sends
a sample and waits for the answer (`async=false`), then loads the mesh down; nothing else is sent meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from backend.demo.local_service import DemoService, demo_service
from orfeas_client import AgentClient

REPOSITORY = Path(__file__).parents[1]
RESULT = REPOSITORY / "benchmarks" / "results" / "default_call.md"
_ASKED_SECONDS, _ASKED_BYTES = 3.0, 4_000_000
_READY_SECONDS = 300


@dataclass(frozen=True)
class Call:
    """One call.

    answered, loaded : seconds until its answer and until its mesh was here; stages : seconds of each as the job's
    metadata has them; metadata : of the job; bytes : of the mesh
    """

    answered: float
    loaded: float
    stages: Mapping[str, float]
    metadata: Mapping[str, object]
    bytes: int


def send(client: AgentClient, image: Path, folder: Path) -> Call:
    """Send one picture with the defaults and load its mesh down."""
    begun = time.perf_counter()
    job = client.generate(image, run_async=False)
    answered = time.perf_counter() - begun
    if not job.succeeded or job.download_url is None:
        raise SystemExit(f"The job is {job.status}: {job.error}")
    mesh = client.download(job.download_url, folder)
    loaded = time.perf_counter() - begun
    stages = job.metadata["seconds"]
    assert isinstance(stages, Mapping)
    spent = {str(name): float(seconds) for name, seconds in stages.items() if seconds is not None}
    return Call(answered, loaded, spent, job.metadata, mesh.stat().st_size)


def measure(service: DemoService, image: Path, calls: int) -> list[Call]:
    """Send the picture once so that all is warm, and then `calls` times, one after the other."""
    with service.client() as client, tempfile.TemporaryDirectory() as folder:
        return [send(client, image, Path(folder)) for _ in range(calls + 1)][1:]


def report(calls: Sequence[Call], image: Path) -> str:
    """Return the table, as markdown."""
    done = calls[0].metadata
    rows = {
        "answer to `async=false`": _seconds([call.answered for call in calls]),
        f"end to end, mesh loaded down (asked: {_ASKED_SECONDS:.0f} s)": _seconds([call.loaded for call in calls]),
        **{f"stage: {name}": _seconds([call.stages.get(name, 0.0) for call in calls]) for name in calls[0].stages},
    }
    lines = [
        "# The default call",
        "",
        f"`{image.name}` sent to a warm service of the bundled checkpoint with no field but `async=false`, {len(calls)}"
        f" times, one after the other. {platform.machine()} CPU, {os.cpu_count()} cores, load"
        f" {os.getloadavg()[0]:.0f}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}; client and service share"
        " the machine. Made by `python -m benchmarks.default_call`.",
        "",
        f"The mesh: GLB, {done['faces']:,} faces, {max(call.bytes for call in calls):,} bytes (asked: at most"
        f" {_ASKED_BYTES:,}); quality {done['quality']}, octree resolution {done['octree_resolution']},"
        f" {done['steps']} steps.",
        "",
        "| seconds | median | least | most |",
        "|---|---|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _seconds(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f}"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=REPOSITORY / "samples" / "mug.png")
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    with demo_service(os.environ) as service:
        service.wait_until_ready(_READY_SECONDS)
        calls = measure(service, options.image, options.calls)
    text = report(calls, options.image)
    print(text)
    options.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
