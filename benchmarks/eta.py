"""How well the end of jobs is foreseen: 40 mixed jobs of three agents on a fresh start, asked for all the time.

    python -m benchmarks.eta --out benchmarks/results/eta.md

Everything is the service's own (queue, leases, batches, recording, forecast) but the model: in its place stands one
that sleeps as long as an H100 took for the 2.1 design (benchmarks/results/full_size.md), give or take a few per cent,
so that what else the machine does plays little part. What was said before is reckoned beside it: a moving mean of all.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import trimesh

from backend.config import Settings
from backend.hunyuan3d.options import ImageOptions
from backend.hunyuan3d.results import ShapeMetadata, ShapeResult, StageSeconds
from backend.jobs.models import NewJob
from backend.services import AgentServices
from backend.validation import GenerationRequest

_JOBS = 40
_STEPS = 30
_NOISE = 0.06
_POLL_SECONDS = 0.25
_SUBMITTED_WITHIN = 4.0
_FACES = 2.5
_NEWEST = 0.3


@dataclass
class Pace:
    """What a stage takes, seconds, each time a little other."""

    chance: random.Random

    def __call__(self, seconds: float) -> float:
        return seconds * self.chance.lognormvariate(0.0, _NOISE)

    def stages(self, options: Sequence[ImageOptions]) -> dict[str, float]:
        """Return what a batch takes of a device."""
        made, count = options[0].generation, len(options)
        return {
            "preprocess": self(0.02 + 0.03 * count),
            "encode": self(0.03 + 0.02 * count),
            "sample": self(made.num_inference_steps * (0.006 + 0.05 * count)),
            "decode": self(count * 0.21 * (made.octree_resolution / 384) ** 2),
        }

    def mesh(self, options: ImageOptions) -> float:
        """Return what a mesh takes of a core."""
        size = (options.generation.octree_resolution / 384) ** 2
        return self(0.25 * size + (0.5 * size if options.target_faces else 0.0))


@dataclass(eq=False)
class Pending:
    """A shape whose mesh takes its time."""

    metadata: ShapeMetadata
    seconds: float

    def build_mesh(self) -> ShapeResult:
        entered = time.monotonic()
        time.sleep(self.seconds)
        mesh = trimesh.creation.icosphere(subdivisions=3)
        spent = replace(self.metadata.seconds, mesh=time.monotonic() - entered)
        return ShapeResult(mesh, None, replace(self.metadata, faces=len(mesh.faces), seconds=spent))


@dataclass(eq=False)
class SleepingModel:
    """A processor that sleeps. Notes the mean that was once all that was known."""

    pace: Pace
    name: str = "sleeping"
    compiled: bool = False
    prepares_ahead: bool = False
    mean: float | None = None
    defaults: Any = field(
        default_factory=lambda: SimpleNamespace(num_inference_steps=_STEPS, guidance_scale=5.0, octree_resolution=384)
    )

    @property
    def rehearsals(self) -> list[Any]:
        """Measure two steps at a middling and at the default resolution, as the warm-up does."""
        found = []
        for resolution in (256, 384):
            generation = SimpleNamespace(num_inference_steps=2, octree_resolution=resolution)
            options: Any = SimpleNamespace(generation=generation, target_faces=None)
            taken = self._spend(self.pace.stages([options]), 2, lambda *_: None)
            seconds = StageSeconds(**taken, mesh=self.pace.mesh(options))
            metadata = ShapeMetadata(
                self.name, 1, num_inference_steps=2, octree_resolution=resolution, evaluations=2, seconds=seconds
            )
            found.append(SimpleNamespace(metadata=metadata, finish=0.05))
        return found

    def _spend(
        self, seconds: Mapping[str, float], steps: int, report: Callable[[str, int, int], None]
    ) -> dict[str, float]:
        """Sleep through the stages on the device; return what each took."""
        taken, units = {}, {"preprocess": 1, "encode": 1, "sample": steps, "decode": 4}
        for stage, spent in seconds.items():
            entered = time.monotonic()
            for done in range(1, units[stage] + 1):
                # A level of a decoding takes three times as long as the one before.
                time.sleep(spent * (3 ** (done - 1) / 40 if stage == "decode" else 1 / units[stage]))
                report(stage, done, units[stage])
            taken[stage] = time.monotonic() - entered
        return taken

    def device_state(self) -> Any:
        return SimpleNamespace(type="cpu", name="none", memory_total=1, memory_free=1)

    def batch_capacity(self, octree_resolution: int) -> int:  # noqa: ARG002
        return 4

    def prepare_images(self, images: Sequence[bytes], _modes: Sequence[str], _objects: Sequence[str]) -> list[None]:
        return [None for _ in images]

    def generate_shape_batch(
        self,
        images: Sequence[Any],
        *,
        options: Sequence[ImageOptions],
        on_progress: Callable[[Any], None],
        **_: Any,
    ) -> list[Pending]:
        begun = time.monotonic()
        indices, steps = tuple(range(len(images))), options[0].generation.num_inference_steps

        def report(stage: str, done: int, total: int) -> None:
            on_progress(SimpleNamespace(stage=stage, done=done, total=total, indices=indices))

        taken = self._spend(self.pace.stages(options), steps, report)
        took = (time.monotonic() - begun) / len(images)
        self.mean = took if self.mean is None else self.mean + _NEWEST * (took - self.mean)
        return [
            Pending(
                ShapeMetadata(
                    self.name,
                    len(images),
                    seed=own.seed,
                    num_inference_steps=steps,
                    guidance_scale=5.0,
                    octree_resolution=own.generation.octree_resolution,
                    evaluations=steps,
                    target_faces=own.target_faces,
                    seconds=StageSeconds(**taken),
                ),
                self.pace.mesh(own),
            )
            for own in options
        ]


@dataclass
class Followed:
    """One job: when it came in, what was said of it when, and when it had finished; monotonic seconds."""

    submitted: float
    said: list[tuple[float, float]] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)
    before: float | None = None
    finished: float | None = None


def submit(services: AgentServices, chance: random.Random, agent: str) -> str:
    """Put a job of any kind into the queue."""
    request = GenerationRequest(
        formats=("glb",),
        quality=7,
        octree_resolution=chance.choice((128, 208, 256, 304, 384, 432, 512)),
        steps=chance.choice((None, None, 15, 50)),
        guidance_scale=None,
        seed=1,
        target_faces=chance.choice((None, 20_000, 100_000)),
        remove_background="never",
        scale_mm=100.0,
        color="none",
        preview=False,
    )
    image = f"{secrets.token_hex(16)}.png"
    services.images.put(image, b"picture")
    new = NewJob(request.to_json(), request.batch_key("sleeping"), image)
    (job_id,) = services.store.submit(agent, [new], queue_limit=_JOBS, agent_limit=_JOBS).job_ids
    services.notifier.notify()
    return job_id


def look(services: AgentServices, followed: dict[tuple[str, str], Followed], model: SleepingModel) -> None:
    """Ask for every unfinished job as its agent would."""
    open_jobs = [(agent, job_id) for (agent, job_id), job in followed.items() if job.finished is None]
    jobs = [services.store.get(job_id, agent) for agent, job_id in open_jobs]
    outlooks, now = services.outlooks.of(jobs), time.monotonic()
    for key, job in zip(open_jobs, jobs, strict=True):
        own, outlook = followed[key], outlooks[job.id]
        if job.status.finished:
            if job.metadata is None or job.error_code:
                raise SystemExit(f"a job failed: {job.error_code} {job.error_message}")
            own.finished = now
            continue
        if outlook.eta_seconds is not None:
            own.said.append((now, outlook.eta_seconds))
        own.progress.append(job.progress)
        if own.before is None and model.mean is not None and outlook.queue_position is not None:
            own.before = outlook.queue_position * model.mean


def run(seed: int) -> list[Followed]:
    """Start a service, send the jobs, follow them until all are done."""
    chance = random.Random(seed)
    model = SleepingModel(Pace(random.Random(seed + 1)))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), auth_enabled=False)
        services = AgentServices.from_settings(settings, open_processor=lambda: model)
        services.start()
        try:
            while not services.health.read().ready:
                time.sleep(0.1)
            due = sorted(chance.uniform(0, _SUBMITTED_WITHIN) for _ in range(_JOBS))
            begun, followed = time.monotonic(), dict[tuple[str, str], Followed]()
            while len(followed) < _JOBS or any(job.finished is None for job in followed.values()):
                now = time.monotonic()
                while len(followed) < _JOBS and due[len(followed)] <= now - begun:
                    agent = chance.choice(("ann", "bob", "cat"))
                    followed[agent, submit(services, chance, agent)] = Followed(time.monotonic())
                look(services, followed, model)
                time.sleep(_POLL_SECONDS)
        finally:
            services.stop()
    return list(followed.values())


def rises(jobs: Sequence[Followed]) -> list[float]:
    """Return for each job by how much what was said ever rose above the least before, once all jobs were in."""
    last = max(job.submitted for job in jobs)
    found = []
    for job in jobs:
        said = [eta for at, eta in job.said if at > last + 1.5]
        least = np.minimum.accumulate(said) if said else np.array([])
        # What is said is rounded to a tenth of a second.
        found.append(max(((eta - 0.1) / max(low, 0.1) - 1 for eta, low in zip(said, least, strict=True)), default=0.0))
    return found


def report(jobs: Sequence[Followed]) -> str:
    """Return the table, as markdown."""
    ended = [(job, job.finished) for job in jobs if job.finished is not None and job.said]
    all_in = max(job.submitted for job in jobs)
    errors = [
        [abs(eta - (end - at)) / (end - at) for at, eta in job.said if all_in < at < end - 2 * _POLL_SECONDS]
        for job, end in ended
    ]
    first, all_said = [own[0] for own in errors if own], [error for own in errors for error in own]
    before = [abs(job.before - (end - job.submitted)) / (end - job.submitted) for job, end in ended if job.before]
    still = [max((len(list(same)) for percent, same in groupby(job.progress) if percent), default=0) for job in jobs]
    waits = [end - job.submitted for job, end in ended]
    rows = {
        "jobs, seconds from submission to end: least, median, most": f"{len(ended)}, {min(waits):.1f}, "
        f"{np.median(waits):.1f}, {max(waits):.1f}",
        "error of the ETA that was said once all were in: median, 90th percentile": _shares(first),
        "error of every ETA from then on: median, 90th percentile": _shares(all_said),
        "error of the mean over all jobs that was said before: median, 90th percentile": _shares(before),
        "jobs to which that had nothing to say, on a fresh start": f"{len(ended) - len(before)}",
        "largest rise of an ETA above the least before it": f"{100 * max(rises(jobs)):.0f} %",
        "longest time without progress of a job that ran": f"{_POLL_SECONDS * max(still):.1f} s",
    }
    lines = [
        "# When jobs will be finished",
        "",
        f"{_JOBS} jobs of three agents, sent within {_SUBMITTED_WITHIN:.0f} s of a fresh start: octree resolutions "
        "from 128 to 512, 15, 30 and 50 steps, all faces and fewer. In the model's place: sleeps as long as an H100 "
        f"took for the 2.1 design, each time some {100 * _NOISE:.0f} % other; everything else is the service's own. "
        f"Every {1000 * _POLL_SECONDS:.0f} ms all were asked for. {platform.machine()} CPU, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.0f}, {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _shares(errors: Sequence[float]) -> str:
    if not errors:
        return "none"
    return f"{100 * float(np.median(errors)):.0f} %, {100 * float(np.percentile(errors, 90)):.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = report(run(options.seed))
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
