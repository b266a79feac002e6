"""What a prepared heap brings on a CPU (hunyuan3d/device/malloc.py): time, system time, page faults, peak memory.

    python -m benchmarks.malloc

Each row is a process of its own that makes four meshes again and again with the bundled checkpoint, the ways taking
turns. It prints a table and writes it to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from backend.hunyuan3d.device.malloc import prepare_malloc

RESULT = Path(__file__).parent / "results" / "malloc.md"
SAMPLES = sorted((Path(__file__).parents[1] / "samples").glob("*.png"))[:4]
Figures = Mapping[str, float]


def _one_heap_without_large_blocks() -> None:
    """Do what was done before: all threads share a heap, and blocks from 1 MiB on are given back at once."""
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(-8, 1)
    mallopt(-3, 1 << 20)


WAYS: Mapping[str, Callable[[], None]] = {
    "as it comes": lambda: None,
    "one heap, large blocks given back": _one_heap_without_large_blocks,
    "prepared": prepare_malloc,
}


def work(way: str, resolution: int, calls: int) -> Figures:
    """Measure in this process the seconds of all calls after the first, and what they cost."""
    WAYS[way]()
    from backend.hunyuan3d import Hunyuan3DShapePipeline

    pipeline = Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")

    def call() -> None:
        pipeline(SAMPLES, seeds=[1, 2, 3, 4], octree_resolution=resolution, num_inference_steps=10)

    call()
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(calls):
        call()
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds / calls,
        "system": (after.ru_stime - before.ru_stime) / calls,
        "faults": (after.ru_minflt - before.ru_minflt) / calls,
        "peak": after.ru_maxrss / 1024,
    }


def apart(way: str, resolution: int, calls: int) -> Figures:
    """Measure the same in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-m", "benchmarks.malloc", "--way", way, "--resolution", str(resolution)]
    done = subprocess.run(  # noqa: S603
        [*command, "--calls", str(calls)], check=True, capture_output=True, text=True, env=environment
    )
    found: Figures = json.loads(done.stdout)
    return found


def report(rounds: int, calls: int) -> str:
    """Return the table, as markdown."""
    lines = [
        "# malloc",
        "",
        f"Four pictures a call, demo checkpoint, 10 steps; medians of {rounds} processes, {calls} calls each. "
        f"{platform.machine()} CPU, {os.cpu_count()} cores, torch {version('torch')}, {platform.libc_ver()[1]} libc, "
        f"{datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| resolution | malloc | a call, s | of the prepared | in the system, s | page faults | peak, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for resolution in (128, 256):
        runs = [{way: apart(way, resolution, calls) for way in WAYS} for _ in range(rounds)]
        found = {
            way: {name: statistics.median(run[way][name] for run in runs) for name in runs[0][way]} for way in WAYS
        }
        for way, row in found.items():
            lines.append(
                f"| {resolution} | {way} | {row['seconds']:.2f} | {row['seconds'] / found['prepared']['seconds']:.2f} "
                f"| {row['system']:.2f} | {row['faults']:,.0f} | {row['peak']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(work(arguments.way, arguments.resolution, arguments.calls)))
        return
    table = report(arguments.rounds, arguments.calls)
    RESULT.write_text(table, "utf-8")
    print(table)


if __name__ == "__main__":
    main()
