"""How much of its time the device has work while jobs wait: with images prepared ahead, and without.

    python -m benchmarks.device_busy
    python -m benchmarks.device_busy --device cuda --design "mini turbo"

A real worker, job table (SQLite) and files work off the same 40 jobs twice in each round. On the CPU it runs the
bundled checkpoint; on CUDA a released design at its full size with random weights, whose field is disguised as a shape
(see benchmarks.full_size). Images are 1024 pixels wide, without transparency, so that their background has to be
removed. The share is the service's own `orfeas_device_busy_share`. Prints a table and writes it to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from backend.batch_inference_extension import add_batch_inference_to_processor
from backend.batch_processor import BatchProcessor
from backend.config import Settings
from backend.hunyuan3d.device.memory import memory_of
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
from backend.hunyuan3d.volume.decode import DecodeOptions
from backend.hunyuan_integration import Hunyuan3DProcessor, get_3d_processor
from backend.jobs.models import NewJob
from backend.jobs.notifier import LocalNotifier, NullNotifier
from backend.resources import Resources
from backend.storage.files import new_name
from backend.telemetry.worker_metrics import NoMetrics
from backend.validation import GenerationFields, resolve
from benchmarks.full_size import DESIGNS, DisguisedField, random_pipeline

RESULTS = Path(__file__).parent / "results"
SAMPLES = sorted((Path(__file__).parents[1] / "samples").glob("*.png"))
SIDE = 1024
WAITS = {"_gather": "lease", "_hand_over": "meshes"}


class Switchable(Hunyuan3DProcessor):
    """A processor that can be told whether to prepare images ahead."""

    looks_ahead = True

    @property
    def prepares_ahead(self) -> bool:
        """As it was told."""
        return self.looks_ahead


class DeviceSeconds(NoMetrics):
    """Add up what the worker says of its device."""

    def __init__(self) -> None:
        self.busy = self.wanted = 0.0

    def observe_device(self, busy: float, wanted: float) -> None:
        """Add a batch."""
        self.busy, self.wanted = self.busy + busy, self.wanted + wanted


@dataclass(frozen=True)
class Outcome:
    """One queue worked off: seconds until the last job was recorded, the device's, and those it was kept waiting by."""

    seconds: float
    busy: float
    wanted: float
    waits: Counter[str]

    @property
    def share(self) -> float:
        """The device's busy share."""
        return self.busy / self.wanted


def demo_processor(folder: Path, batch: int) -> Switchable:
    """Return the bundled checkpoint on the CPU."""
    loaded = get_3d_processor(Settings(data_dir=folder, device="cpu", max_batch_size=batch))
    made = Switchable(loaded.pipeline, loaded.memory, batch)
    made.sizer = loaded.sizer
    return made


def random_processor(design: str, device: torch.device, batch: int) -> Switchable:
    """Return a design with random weights, whose fields look like a shape."""
    with torch.no_grad():
        pipeline = random_pipeline(design, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    if device.type == "cuda":
        pipeline.decode_options = DecodeOptions(max_points_per_call=1 << 17)
    disguise(pipeline)
    made = Switchable(pipeline, memory_of(device, 1.0), batch)
    made.warm_up()
    return made


def disguise(pipeline: Hunyuan3DShapePipeline) -> None:
    """Have the pipeline's fields do all their work and then be those of an analytic shape."""
    field = pipeline.shape_vae.field

    def disguised(*args: Any, **options: Any) -> Any:
        return DisguisedField(field(*args, **options))

    pipeline.shape_vae.field = disguised  # type: ignore[method-assign]


def photos() -> list[bytes]:
    """Return the samples on white, as large as photos are."""
    found = []
    for path in SAMPLES:
        image = Image.open(path).convert("RGBA").resize((SIDE, SIDE))
        data = io.BytesIO()
        Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB").save(data, "PNG")
        found.append(data.getvalue())
    return found


def submit(resources: Resources, count: int, fields: GenerationFields) -> None:
    """Fill the queue."""
    request = resolve(fields, lambda: 7)
    names = [new_name("png") for _ in range(count)]
    for name, image in zip(names, photos() * count, strict=False):
        resources.images.put(name, image)
    new = [NewJob(request.to_json(), request.batch_key("benchmark"), name) for name in names]
    resources.store.submit("benchmark", new, queue_limit=count, agent_limit=count)


def work_off(processor: Switchable, count: int, fields: GenerationFields, *, looks_ahead: bool) -> Outcome:
    """Work off a full queue with a new worker."""
    processor.looks_ahead = looks_ahead
    metrics, waits = DeviceSeconds(), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), batch_wait_seconds=0, max_batch_size=4)
        resources = Resources.open(settings, NullNotifier())
        worker = BatchProcessor.with_resources(
            resources, lambda: processor, settings, notifier=LocalNotifier(), metrics=metrics
        )
        for name, wait in WAITS.items():
            time_method(worker, name, wait, waits)
        time_method(worker._runner, "_load", "images", waits)
        try:
            submit(resources, count, fields)
            worker.load()
            begun = time.perf_counter()
            while worker.run_batch():
                continue
            worker.run_once()
            seconds = time.perf_counter() - begun
            assert not resources.store.has_work()
            assert sum(path.suffix == ".glb" for path in (Path(folder) / "artifacts").iterdir()) == count
        finally:
            worker.stop()
            resources.stop()
    return Outcome(seconds, metrics.busy, metrics.wanted, waits)


def time_method(owner: Any, name: str, wait: str, waits: Counter[str]) -> None:
    """Add up a method's seconds."""
    method: Callable[..., Any] = getattr(owner, name)

    @wraps(method)
    def timed(*args: Any) -> Any:
        begun = time.perf_counter()
        try:
            return method(*args)
        finally:
            waits[wait] += time.perf_counter() - begun  # type: ignore[assignment]

    setattr(owner, name, timed)


def report(found: dict[str, list[Outcome]], what: str, count: int) -> str:
    """Return the table, as markdown."""
    lines = [
        "# How busy the device is",
        "",
        f"{count} queued jobs in batches of at most 4, {what}; {machine()}, {os.cpu_count()} cores, torch "
        f"{torch.__version__}, {datetime.now(UTC):%Y-%m-%d}. Medians of rounds in which both ways take turns. The "
        "device waits for the lease, for images that are not prepared yet, and for room among the meshes being made; "
        "images prepared within their own batch are in none of these columns.",
        "",
        "| images | busy share | all recorded after, s | device busy, s | lease, s | images, s | meshes, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, outcomes in found.items():
        middle = sorted(outcomes, key=lambda each: each.share)[len(outcomes) // 2]
        seconds = statistics.median(each.seconds for each in outcomes)
        waits = " | ".join(f"{middle.waits[wait]:.2f}" for wait in ("lease", "images", "meshes"))
        lines.append(f"| {name} | {middle.share:.1%} | {seconds:.2f} | {middle.busy:.2f} | {waits} |")
    return "\n".join(lines) + "\n"


def machine() -> str:
    """Return what it ran on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--design", choices=sorted(DESIGNS), help="random weights; the bundled checkpoint when not given"
    )
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quality", type=int, help="1 on the CPU, 7 on CUDA when not given")
    parser.add_argument("--threads", type=int, help="torch's threads on the CPU")
    parser.add_argument("--out", type=Path, help="where the table goes; benchmarks/results/ when not given")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.design:
            processor = random_processor(arguments.design, device, 4)
        else:
            processor = demo_processor(Path(folder), 4)
        add_batch_inference_to_processor(processor)
        quality = arguments.quality or (7 if device.type == "cuda" else 1)
        fields = GenerationFields(quality=quality)
        work_off(processor, 4, fields, looks_ahead=True)
        found: dict[str, list[Outcome]] = {"prepared with their batch": [], "prepared ahead": []}
        for _ in range(arguments.rounds):
            for looks_ahead, outcomes in zip((False, True), found.values(), strict=True):
                outcomes.append(work_off(processor, arguments.jobs, fields, looks_ahead=looks_ahead))
    what = f"random {arguments.design}" if arguments.design else "demo checkpoint"
    table = report(found, f"{what}, quality {quality}, {torch.get_num_threads()} torch threads", arguments.jobs)
    out = arguments.out or RESULTS / f"device_busy{'_cuda' if device.type == 'cuda' else ''}.md"
    out.write_text(table, "utf-8")
    print(table)


if __name__ == "__main__":
    main()
