"""Eight agents at once at the real service: whether all their pictures are made, and how fast it answers meanwhile.

    python -m benchmarks.concurrent_clients --out benchmarks/results/concurrent_clients.md

The service is `python -m backend.serve` with the bundled checkpoint in a process of its own. Each client sends its
pictures one after the other without waiting for their meshes, then waits for all of them. A process of its own asks for
the status of jobs all the while the device works, so that nothing but the service is measured.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import torch

from backend.demo.local_service import AGENT_ID, DemoService, demo_service
from orfeas_client import AgentClient
from orfeas_client.models import Batch, Fields, Job

_PAUSE_SECONDS = 0.02
_WATCHED = 5


@dataclass(frozen=True)
class Figures:
    """What was measured.

    jobs : as they ended; seconds : from the first request until the last mesh; accept : seconds of each answer
    status : the same, by whether pictures were still being sent then
    load : of the machine, before there was any of this
    """

    jobs: Sequence[Job]
    seconds: float
    status: Mapping[bool, Sequence[float]]
    accept: Sequence[float]
    load: float


@dataclass(frozen=True)
class Client:
    """What one client saw: its jobs as they ended, how long each took to be accepted, and when all were (monotonic)."""

    jobs: Sequence[Job]
    accept: Sequence[float]
    sent_at: float


def send_and_wait(service: DemoService, images: Sequence[Path], fields: Fields) -> Client:
    """Be one client."""
    with service.client() as client:
        accepted, seconds = [], []
        for image in images:
            begun = time.perf_counter()
            accepted.append(client.generate(image, **fields))
            seconds.append(time.perf_counter() - begun)
        sent_at = time.monotonic()
        return Client([_single(client.wait(job.id)) for job in accepted], seconds, sent_at)


Answers = list[tuple[float, float]]


def watch(url: str, api_key: str, ready: Event, over: Event, found: multiprocessing.SimpleQueue[Answers]) -> None:
    """Ask for the status of jobs that run or wait, until it is over; return when each was asked, and seconds taken."""
    answers: Answers = []
    with AgentClient(url, AGENT_ID, api_key) as client:
        client.jobs()
        ready.set()
        while not over.is_set():
            unfinished = [job.id for job in client.jobs(limit=100).jobs if not job.finished]
            for job_id in unfinished[-_WATCHED:]:
                begun = time.monotonic()
                client.status(job_id)
                answers.append((begun, time.monotonic() - begun))
                time.sleep(_PAUSE_SECONDS)
    found.put(answers)


def measure(service: DemoService, shares: Sequence[Sequence[Path]], fields: Fields, load: float) -> Figures:
    """Run everything at once; shares : each client's pictures; load : see Figures."""
    context = multiprocessing.get_context("spawn")
    ready, over, found = context.Event(), context.Event(), context.SimpleQueue()
    watcher = context.Process(target=watch, args=(service.url, service.api_key, ready, over, found))
    watcher.start()
    ready.wait()
    begun = time.perf_counter()
    with ThreadPoolExecutor(len(shares)) as pool:
        ended = list(pool.map(lambda images: send_and_wait(service, images, fields), shares))
    seconds = time.perf_counter() - begun
    over.set()
    answers = found.get()
    watcher.join()
    all_sent = max(client.sent_at for client in ended)
    status = {sending: [took for at, took in answers if (at < all_sent) == sending] for sending in (True, False)}
    return Figures(
        [job for client in ended for job in client.jobs],
        seconds,
        status,
        [took for client in ended for took in client.accept],
        load,
    )


def report(figures: Figures, clients: int, fields: Fields) -> str:
    """Return the table, as markdown."""
    sizes = Counter(int(str(job.metadata["batch_size"])) for job in figures.jobs if job.succeeded)
    device = f"{platform.machine()} CPU, {os.cpu_count()} cores" if not torch.cuda.is_available() else _gpu()
    asked = ", ".join(f"{name} {value}" for name, value in fields.items())
    rows = {
        "jobs completed": f"{sum(job.succeeded for job in figures.jobs)} of {len(figures.jobs)}",
        "jobs a minute": f"{60 * len(figures.jobs) / figures.seconds:.1f}",
        "jobs by the size of the batch they ran in": ", ".join(f"{n} in {size}" for size, n in sorted(sizes.items())),
        "status answers while the device worked": f"{len(figures.status[True]) + len(figures.status[False])}",
        **_latencies("status answer while pictures were sent", figures.status[True]),
        **_latencies("status answer from then on", figures.status[False]),
        **_latencies("request accepted, upload included", figures.accept),
    }
    lines = [
        "# Concurrent clients",
        "",
        f"{clients} clients sent {len(figures.jobs)} pictures to one service ({asked}) and waited for their meshes; "
        f"another process asked for the status of jobs meanwhile, every {1000 * _PAUSE_SECONDS:.0f} ms. "
        f"{device}, load {figures.load:.0f} before, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}; clients "
        "and service share the machine.",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _latencies(name: str, seconds: Sequence[float]) -> dict[str, str]:
    median, late = np.percentile(seconds, [50, 99])
    values = f"{1000 * median:.1f}, {1000 * late:.1f}, {1000 * max(seconds):.1f} ms"
    return {f"{name}: median, 99th percentile, slowest": values}


def _gpu() -> str:
    return torch.cuda.get_device_name()


def _single(value: Job | Batch) -> Job:
    assert isinstance(value, Job)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--quality", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    samples = itertools.cycle(sorted(Path("samples").glob("*.png")))
    images = list(itertools.islice(samples, options.pictures))
    shares = [images[k :: options.clients] for k in range(options.clients)]
    fields: Fields = {"quality": options.quality, "steps": options.steps}
    load = os.getloadavg()[0]
    with demo_service(os.environ) as service:
        service.wait_until_ready(300)
        figures = measure(service, shares, fields, load)
    text = report(figures, options.clients, fields)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
