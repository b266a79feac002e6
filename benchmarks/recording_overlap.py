"""What it brings that a worker's next batch begins while meshes of the last one are still drawn, stored and recorded.

    python -m benchmarks.recording_overlap

One real worker with the bundled checkpoint works off the same queue twice in each round: waiting after each batch until
its jobs are recorded (`run_once`), and not (`run_batch`). torch has one thread, so that the other core is free for
meshes, as all cores are where the model runs on a GPU. It prints a table and writes it to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch

from backend.batch_processor import BatchProcessor
from backend.config import Settings
from backend.jobs.models import NewJob
from backend.jobs.notifier import LocalNotifier, NullNotifier
from backend.resources import Resources, model_opener
from backend.storage.files import new_name
from backend.validation import GenerationFields, resolve

RESULT = Path(__file__).parent / "results" / "recording_overlap.md"
SAMPLES = sorted((Path(__file__).parents[1] / "samples").glob("*.png"))


@contextmanager
def worker(folder: Path) -> Iterator[tuple[BatchProcessor, Resources]]:
    """Return a worker that is loaded, with resources of its own."""
    settings = Settings(data_dir=folder, device="cpu", batch_wait_seconds=0)
    resources = Resources.open(settings, NullNotifier())
    made = BatchProcessor.with_resources(resources, model_opener(settings), settings, notifier=LocalNotifier())
    try:
        made.load()
        yield made, resources
    finally:
        made.stop()
        resources.stop()


def submit(resources: Resources, count: int, fields: GenerationFields) -> None:
    """Fill the queue."""
    request = resolve(fields, lambda: 7)
    names = [new_name("png") for _ in range(count)]
    for name, image in zip(names, SAMPLES * count, strict=False):
        resources.images.put(name, image.read_bytes())
    new = [NewJob(request.to_json(), request.batch_key("demo"), name) for name in names]
    resources.store.submit("benchmark", new, queue_limit=count, agent_limit=count)


def seconds_for(resources: Resources, count: int, fields: GenerationFields, work_off: Callable[[], None]) -> float:
    """Measure how long a full queue takes until the last job is recorded."""
    submit(resources, count, fields)
    begun = time.perf_counter()
    work_off()
    assert not resources.store.has_work()
    return time.perf_counter() - begun


def measure(count: int, rounds: int, fields: GenerationFields) -> tuple[list[float], list[float]]:
    """Return the seconds of each round: waiting, and overlapping."""
    with tempfile.TemporaryDirectory() as folder, worker(Path(folder)) as (made, resources):

        def wait_each_time() -> None:
            while made.run_once():
                continue

        def overlap() -> None:
            while made.run_batch():
                continue
            made.run_once()

        seconds_for(resources, 4, fields, overlap)
        pairs = [
            [seconds_for(resources, count, fields, way) for way in (wait_each_time, overlap)] for _ in range(rounds)
        ]
    waiting, overlapping = zip(*pairs, strict=True)
    return list(waiting), list(overlapping)


def report(cases: dict[str, tuple[list[float], list[float]]], count: int) -> str:
    """Return the table, as markdown."""
    lines = [
        "# Recording beside the device",
        "",
        f"{count} jobs in batches of 4, demo checkpoint, 10 steps, one torch thread. {platform.machine()} CPU, "
        f"{os.cpu_count()} cores, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}. Medians of rounds in which "
        "both ways take turns.",
        "",
        "| jobs | waiting for each batch, s | overlapping, s | ratio |",
        "|---|---|---|---|",
    ]
    for name, (waiting, overlapping) in cases.items():
        one, other = statistics.median(waiting), statistics.median(overlapping)
        lines.append(f"| {name} | {one:.1f} | {other:.1f} | {one / other:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = {
        "quality 1, GLB": GenerationFields(quality=1, steps=10),
        "quality 4, GLB": GenerationFields(quality=4, steps=10),
        "quality 4, OBJ, at most 20,000 faces": GenerationFields(
            quality=4, steps=10, format=("obj",), target_faces=20_000
        ),
    }
    found = {name: measure(arguments.jobs, arguments.rounds, fields) for name, fields in cases.items()}
    table = report(found, arguments.jobs)
    RESULT.write_text(table, "utf-8")
    print(table)


if __name__ == "__main__":
    main()
