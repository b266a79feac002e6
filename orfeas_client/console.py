"""How the client's command line looks: bars and complaints on standard error, tables or JSON on output.

This module does not know how the service is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from orfeas_client.models import Batch, Cutout, Health, Job, JobPage, Warned
from orfeas_client.terminal import ResultRow, Terminal, cell, new_table, standard_consoles


@dataclass(frozen=True)
class Made:
    """What became of one picture: its mesh, and other files beside; `problem` says why there is no file."""

    image: str
    job: Job
    file: Path | None = None
    others: tuple[Path, ...] = ()
    problem: str = ""


class Bars:
    """One bar for each job that is waited for."""

    def __init__(self, progress: Progress, names: Mapping[str, str]) -> None:
        """Begin without a bar. names : what each job is called, by its id."""
        self._progress = progress
        self._names = names
        self._tasks: dict[str, TaskID] = {}

    def show(self, value: Job | Batch) -> None:
        """Show the state of a job, or of each job of a batch."""
        for job in value.jobs if isinstance(value, Batch) else (value,):
            if job.id not in self._tasks:
                name = self._names.get(job.id, job.id)
                self._tasks[job.id] = self._progress.add_task("", total=100, name=name, step="")
            done = 100 if job.succeeded else job.progress
            self._progress.update(self._tasks[job.id], completed=done, step=_step(job))


class Screen(Terminal):
    """Where the client's command line writes. as_json : results for programs."""

    def __init__(self, out: Console, err: Console, as_json: bool = False) -> None:
        super().__init__(out, err)
        self._as_json = as_json

    @classmethod
    def standard(cls, as_json: bool = False) -> Screen:
        """Write to standard output and error, wide enough for whole lines where they lead to a file."""
        return cls(*standard_consoles(), as_json)

    @contextmanager
    def bars(self, names: Mapping[str, str]) -> Iterator[Bars]:
        """Bars while the block runs, gone afterwards."""
        columns = (
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[step]}", style="dim", markup=False),
            TimeElapsedColumn(),
        )
        with self.progress_on(*columns) as progress:
            yield Bars(progress, names)

    def tell(self, result: Made, number: int, images: int) -> None:
        """Say what became of a picture as soon as that is known. number : how many are done with it, of all."""
        self.say(f"{number}/{images} {result.image}: {result.problem or result.file}")

    def made(self, results: Sequence[Made]) -> None:
        """Print what was made of each picture."""
        if self._as_json:
            self._json(results)
            return
        self.results([_row(result) for result in results])
        for result in results:
            self.warn(result.image, result.job.warnings)

    def warn(self, image: str, warnings: Sequence[Warned]) -> None:
        """Say what the service says of a picture or its mesh."""
        for warning in warnings:
            self.note(f"{image}: {warning.code}: {warning.message}")

    def cutout(self, image: str, cutout: Cutout, path: Path) -> None:
        """Print where a cut-out lies and what is to be said of it."""
        if self._as_json:
            self._json({"file": path, "cutout": cutout})
            return
        self._out.print(Text(str(path)))
        self.warn(image, cutout.warnings)

    def state(self, value: Job | Batch) -> None:
        """Print a job, or a batch with its jobs."""
        if self._as_json:
            self._json(value)
            return
        if isinstance(value, Batch):
            self._out.print(Text(f"batch {value.id}: {value.status}, {value.progress} %"))
            if value.download_url:
                self._out.print(Text(f"all of it: {value.download_url}"))
        self._jobs(value.jobs if isinstance(value, Batch) else (value,))

    def page(self, page: JobPage) -> None:
        """Print a page of jobs, and how to ask for the next one."""
        if self._as_json:
            self._json(page)
            return
        self._jobs(page.jobs)
        if page.next_cursor:
            self.note(f"There are more: --cursor {page.next_cursor}")

    def health(self, health: Health) -> None:
        """How the service is."""
        if self._as_json:
            self._json(health)
            return
        table = new_table("status", "version", "model", "device", "memory free>", "queued>", "active>")
        model = health.model if health.model_loaded else f"{health.model} (not loaded)"
        table.add_row(
            Text(health.status, style="green" if health.ok else "red"),
            *(Text(text) for text in (health.version, model, f"{health.device} {health.device_name}".strip())),
            *(cell(value) for value in (_memory(health), health.queue_size, health.active_jobs)),
        )
        self._out.print(table)

    def file(self, path: Path) -> None:
        """Where a downloaded file lies."""
        if self._as_json:
            self._json({"file": path})
        else:
            self._out.print(Text(str(path)))

    def link(self, address: str) -> None:
        """Where a file may be fetched by anybody."""
        if self._as_json:
            self._json({"signed_url": address})
        else:
            # Whole, to be copied.
            self._out.print(Text(address), soft_wrap=True)

    def _jobs(self, jobs: Sequence[Job]) -> None:
        table = new_table("job", "picture or label", "status", "done>", "step", "seconds left>", "download or problem")
        for job in jobs:
            left = "-" if job.eta_seconds is None else f"{job.eta_seconds:.0f}"
            outcome = job.download_url or (f"{job.error_code} {job.error}".strip() or "-")
            called = " · ".join(filter(None, (job.filename, job.label))) or "-"
            cells = (job.id, called, job.status, f"{job.progress} %", _step(job) or "-", left, outcome)
            table.add_row(*(Text(cell) for cell in cells))
        self._out.print(table)

    def _json(self, value: object) -> None:
        self._out.print(json.dumps(value, default=_plain, indent=2), markup=False, soft_wrap=True)


def _row(result: Made) -> ResultRow:
    facts = result.job.metadata
    faces, watertight, seed = facts.get("faces"), facts.get("watertight"), facts.get("seed")
    return ResultRow(
        result.image,
        tuple(map(str, (result.file, *result.others))),
        None if faces is None else str(faces),
        watertight if isinstance(watertight, bool) else None,
        result.job.processing_time,
        seed if isinstance(seed, int) else None,
        f"{result.problem} (job {result.job.id})" if result.problem else "",
    )


def _memory(health: Health) -> str:
    if health.memory_free is None or health.memory_total is None:
        return "-"
    return f"{health.memory_free / 2**30:.1f} of {health.memory_total / 2**30:.1f} GiB"


def _step(job: Job) -> str:
    if job.status == "queued" and job.queue_position is not None:
        return f"queued, place {job.queue_position}"
    return job.current_step or job.status


def _plain(value: object) -> object:
    if is_dataclass(value):
        return vars(value)
    return dict(value) if isinstance(value, Mapping) else str(value)
