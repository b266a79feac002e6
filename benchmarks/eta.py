"""How well the end of jobs is foreseen: 40 mixed jobs of three agents on a fresh start, asked for all the time.

    python -m benchmarks.eta --out benchmarks/results/eta.md

Everything is the service's own (queue, leases, batches, recording, forecast). Once with the bundled checkpoint, and
once with a model that sleeps as long as an H100 took for the 2.1 design (benchmarks/results/full_size.md), give or take
a few per cent, so that what else the machine does plays little part; each with several draws of jobs. What was said
before is reckoned beside it: a moving mean of all.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import numpy as np

from backend.config import Settings
from backend.jobs.models import NewJob
from backend.limits import MeshFormat
from backend.services import AgentServices
from backend.validation import GenerationRequest
from benchmarks.support.sleeping_model import NOISE, Pace, SleepingModel

_JOBS = 40
_POLL_SECONDS = 0.25
_SUBMITTED_WITHIN = 4.0
_SEEDS = (7, 8, 9)
_MODELS = {
    "sleeping": "**sleeping**: in the model's place sleeps as long as an H100 took for the 2.1 design, each time some "
    f"{100 * NOISE:.0f} % other; octree resolutions from 128 to 512; 15, 30 and 50 steps; all faces and fewer.",
    "demo": "**demo**: the bundled checkpoint, which shares the cores with the making of meshes and with who asks; "
    "octree resolutions from 32 to 96; 10, 15 and 30 steps; GLB, STL, 3MF, OBJ with colours and previews, of 2,000 to "
    "20,000 faces.",
}
_DEMO_FORMATS: tuple[tuple[MeshFormat, ...], ...] = (("glb",), ("glb",), ("stl",), ("3mf",), ("obj", "stl"))


def of_full_size(chance: random.Random) -> tuple[GenerationRequest, bytes]:
    """Return any kind of job for the sleeping model, and what stands for its image."""
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
    return request, b"picture"


def of_demo_size(chance: random.Random) -> tuple[GenerationRequest, bytes]:
    """Return any kind of job for the bundled checkpoint, with colours and previews, and one of the samples."""
    request = GenerationRequest(
        formats=chance.choice(_DEMO_FORMATS),
        quality=7,
        octree_resolution=chance.choice((32, 48, 64, 80, 96)),
        steps=chance.choice((None, None, 15, 30)),
        guidance_scale=None,
        seed=chance.randrange(1000),
        target_faces=chance.choice((2_000, 5_000, 20_000)),
        remove_background="auto",
        scale_mm=100.0,
    )
    return request, chance.choice(sorted(Path("samples").glob("*.png"))).read_bytes()


@dataclass
class Followed:
    """One job: when it came in, what was said of it when, and when it had finished; monotonic seconds."""

    submitted: float
    said: list[tuple[float, float]] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)
    before: float | None = None
    finished: float | None = None


@dataclass(frozen=True)
class Run:
    """What was seen of 40 jobs on one model."""

    model: str
    seed: int
    jobs: Sequence[Followed]
    load: float


class Drive:
    """A service with the jobs that are sent to it.

    sleeping : the model that sleeps; None for the bundled checkpoint
    """

    def __init__(self, services: AgentServices, chance: random.Random, sleeping: SleepingModel | None) -> None:
        self._services = services
        self._chance = chance
        self._sleeping = sleeping
        self.followed: dict[tuple[str, str], Followed] = {}

    def submit(self) -> None:
        """Put a job of any kind into the queue."""
        agent = self._chance.choice(("ann", "bob", "cat"))
        request, picture = (of_full_size if self._sleeping else of_demo_size)(self._chance)
        image = f"{secrets.token_hex(16)}.png"
        self._services.images.put(image, picture)
        new = NewJob(request.to_json(), request.batch_key("any"), image)
        (job_id,) = self._services.store.submit(agent, [new], queue_limit=_JOBS, agent_limit=_JOBS).job_ids
        self._services.notifier.notify()
        self.followed[agent, job_id] = Followed(time.monotonic())

    def look(self) -> None:
        """Ask for every unfinished job as its agent would."""
        open_jobs = [key for key, job in self.followed.items() if job.finished is None]
        jobs = [self._services.store.get(job_id, agent) for agent, job_id in open_jobs]
        outlooks, now = self._services.outlooks.of(jobs), time.monotonic()
        mean = self._sleeping.mean if self._sleeping else None
        for key, job in zip(open_jobs, jobs, strict=True):
            own, outlook = self.followed[key], outlooks[job.id]
            if job.status.finished:
                if job.metadata is None or job.error_code:
                    raise SystemExit(f"a job failed: {job.error_code} {job.error_message}")
                own.finished = now
                continue
            if outlook.eta_seconds is not None:
                own.said.append((now, outlook.eta_seconds))
            own.progress.append(job.progress)
            if own.before is None and mean is not None and outlook.queue_position is not None:
                own.before = outlook.queue_position * mean

    def run(self) -> None:
        """Send the jobs and follow them until all are done."""
        due = sorted(self._chance.uniform(0, _SUBMITTED_WITHIN) for _ in range(_JOBS))
        begun = time.monotonic()
        while len(self.followed) < _JOBS or any(job.finished is None for job in self.followed.values()):
            while len(self.followed) < _JOBS and due[len(self.followed)] <= time.monotonic() - begun:
                self.submit()
            self.look()
            time.sleep(_POLL_SECONDS)


def run(model: str, seed: int) -> Run:
    """Start a service, send the jobs, follow them until all are done. model : "sleeping" or "demo"."""
    sleeping = SleepingModel(Pace(random.Random(seed + 1))) if model == "sleeping" else None
    opener = (lambda: sleeping) if sleeping else None
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), auth_enabled=False)
        services = AgentServices.from_settings(settings, open_processor=opener)
        services.start()
        try:
            while not services.health.read().ready:
                time.sleep(0.1)
            drive = Drive(services, random.Random(seed), sleeping)
            drive.run()
        finally:
            services.stop()
    return Run(model, seed, list(drive.followed.values()), load)


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


def row(run: Run) -> str:
    """Return a run's line of the table."""
    jobs = run.jobs
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
    cells = [
        f"{run.model}, {run.seed}",
        f"{len(ended)}: {min(waits):.0f}, {np.median(waits):.0f}, {max(waits):.0f}",
        _shares(first),
        _shares(all_said),
        _shares(before),
        f"{100 * max(rises(jobs)):.0f} %",
        f"{_POLL_SECONDS * max(still):.1f} s",
        f"{run.load:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def report(runs: Sequence[Run]) -> str:
    """Return the table, as markdown."""
    told = dict.fromkeys(run.model for run in runs)
    heads = [
        "model, seed",
        "jobs: seconds to the end, least, median, most",
        "error of the ETA said once all were in: median, 90th percentile",
        "of every ETA from then on",
        "of the mean that was said before",
        "largest rise of an ETA above the least before it",
        "longest without progress of a job that ran",
        "load at the start",
    ]
    lines = [
        "# When jobs will be finished",
        "",
        f"{_JOBS} mixed jobs of three agents, sent within {_SUBMITTED_WITHIN:.0f} s of a fresh start; every "
        f"{1000 * _POLL_SECONDS:.0f} ms all were asked for. {' '.join(_MODELS[name] for name in told)} "
        f"{platform.machine()} CPU, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}. "
        "Made by `python -m benchmarks.eta`.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *map(row, runs),
    ]
    return "\n".join(lines) + "\n"


def _shares(errors: Sequence[float]) -> str:
    if not errors:
        return "–"
    return f"{100 * float(np.median(errors)):.0f} %, {100 * float(np.percentile(errors, 90)):.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(_MODELS), default=list(_MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=_SEEDS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runs = []
    for model in options.models:
        for seed in options.seeds:
            runs.append(run(model, seed))
            print(row(runs[-1]), flush=True)
    text = report(runs)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
