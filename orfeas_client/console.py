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
from rich.table import Table
from rich.text import Text

from orfeas_client.models import Batch, Health, Job, JobPage

_WIDTH_WITHOUT_TERMINAL = 140


@dataclass(frozen=True)
class Made:
    """What became of one picture; `problem` says why there is no file."""

    image: str
    job: Job
    file: Path | None = None
    problem: str = ""


class Bars:
    """One bar for each job that is waited for."""

    def __init__(self, progress: Progress, names: Mapping[str, str]) -> None:
        """names : what each job is called, by its id."""
        self._progress = progress
        self._names = names
        self._tasks: dict[str, TaskID] = {}

    def show(self, value: Job | Batch) -> None:
        """The state of a job, or of each job of a batch."""
        for job in value.jobs if isinstance(value, Batch) else (value,):
            if job.id not in self._tasks:
                name = self._names.get(job.id, job.id)
                self._tasks[job.id] = self._progress.add_task("", total=100, name=name, step="")
            done = 100 if job.succeeded else job.progress
            self._progress.update(self._tasks[job.id], completed=done, step=_step(job))


class Screen:
    """Where the command line writes. out : results. err : everything else. as_json : results for programs."""

    def __init__(self, out: Console, err: Console, as_json: bool = False) -> None:
        self._out = out
        self._err = err
        self._as_json = as_json

    @classmethod
    def standard(cls, as_json: bool) -> Screen:
        """Standard output and error; wide enough for whole lines where they lead to a file."""
        out, err = Console(highlight=False), Console(stderr=True, highlight=False)
        return cls(_widened(out, False), _widened(err, True), as_json)

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
        with Progress(*columns, console=self._err, transient=True, disable=not self._err.is_terminal) as progress:
            yield Bars(progress, names)

    @contextmanager
    def waiting(self, message: str) -> Iterator[None]:
        """A sign of life while the block runs."""
        with self._err.status(Text(message)):
            yield

    def say(self, message: str) -> None:
        """One sentence about how things go."""
        self._err.print(Text(message))

    def complain(self, message: str) -> None:
        """One sentence about what went wrong."""
        self._err.print(Text.assemble(("error: ", "bold red"), message))

    def note(self, message: str) -> None:
        """One sentence that is good to know."""
        self._err.print(Text(message, style="yellow"))

    def made(self, results: Sequence[Made]) -> None:
        """What was made of each picture."""
        if self._as_json:
            self._json(results)
            return
        table = _table("picture", "made", "faces>", "watertight", "seconds>", "seed>")
        for result in results:
            table.add_row(*_made_cells(result))
        self._out.print(table)

    def state(self, value: Job | Batch) -> None:
        """A job, or a batch with its jobs."""
        if self._as_json:
            self._json(value)
            return
        if isinstance(value, Batch):
            self._out.print(Text(f"batch {value.id}: {value.status}, {value.progress} %"))
        self._jobs(value.jobs if isinstance(value, Batch) else (value,))

    def page(self, page: JobPage) -> None:
        """A page of jobs, and how to ask for the next one."""
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
        table = _table("status", "version", "model", "device", "memory free>", "queued>", "active>")
        model = health.model if health.model_loaded else f"{health.model} (not loaded)"
        table.add_row(
            Text(health.status, style="green" if health.ok else "red"),
            *(Text(text) for text in (health.version, model, f"{health.device} {health.device_name}".strip())),
            *(Text(text) for text in (_memory(health), _shown(health.queue_size), _shown(health.active_jobs))),
        )
        self._out.print(table)

    def file(self, path: Path) -> None:
        """Where a downloaded file lies."""
        if self._as_json:
            self._json({"file": path})
        else:
            self._out.print(Text(str(path)))

    def _jobs(self, jobs: Sequence[Job]) -> None:
        table = _table("job", "status", "done>", "step", "seconds left>", "download or problem")
        for job in jobs:
            left = "-" if job.eta_seconds is None else f"{job.eta_seconds:.0f}"
            outcome = job.download_url or (f"{job.error_code} {job.error}".strip() or "-")
            cells = (job.id, job.status, f"{job.progress} %", _step(job) or "-", left, outcome)
            table.add_row(*(Text(cell) for cell in cells))
        self._out.print(table)

    def _json(self, value: object) -> None:
        self._out.print(json.dumps(value, default=_plain, indent=2), markup=False, soft_wrap=True)


def _widened(console: Console, stderr: bool) -> Console:
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDTH_WITHOUT_TERMINAL)


def _table(*headings: str) -> Table:
    """A table; a heading that ends in '>' stands to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading.rstrip(">"), justify="right" if heading.endswith(">") else "left", overflow="fold")
    return table


def _made_cells(result: Made) -> list[Text]:
    """One row; plain Text, so that no file's name is taken for markup."""
    facts = result.job.metadata
    if result.problem:
        return [Text(result.image), Text(result.problem, style="red"), *(Text("-"),) * 3, _cell(facts.get("seed"))]
    seconds = result.job.processing_time
    sealed = facts.get("watertight")
    return [
        Text(result.image),
        Text(str(result.file)),
        _cell(facts.get("faces")),
        _cell(None if sealed is None else "yes" if sealed else "no"),
        _cell(None if seconds is None else f"{seconds:.1f}"),
        _cell(facts.get("seed")),
    ]


def _cell(value: object) -> Text:
    return Text("-" if value is None else str(value))


def _shown(value: int | None) -> str:
    return "-" if value is None else str(value)


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
