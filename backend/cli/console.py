"""How the command line looks: progress bars and complaints on standard error, the table of what was made on output.

Knows nothing of pictures, meshes or models beyond what is shown of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_WIDTH_WITHOUT_TERMINAL = 140


@dataclass(frozen=True)
class Outcome:
    """What became of one picture; `problem` says why there is no mesh, `note` what else a person should know.

    seconds : its share of its batch's time, with its files'.
    """

    image: Path
    files: tuple[Path, ...] = ()
    faces: int | None = None
    watertight: bool | None = None
    seconds: float | None = None
    seed: int | None = None
    problem: str = ""
    note: str = ""


class Bars:
    """Three bars: pictures finished, and within a batch its denoising steps and decoding levels."""

    def __init__(self, progress: Progress, images: int) -> None:
        self._progress = progress
        self._images = progress.add_task("pictures", total=images)
        self._steps = progress.add_task("denoising", total=None, visible=False)
        self._levels = progress.add_task("decoding", total=None, visible=False)

    def start_batch(self) -> None:
        """Back to nothing done, before a batch."""
        for task in (self._steps, self._levels):
            self._progress.reset(task, visible=False, total=None)

    def step(self, done: int, total: int) -> None:
        """Denoising steps done, of how many."""
        self._progress.update(self._steps, completed=done, total=total, visible=True)

    def level(self, done: int, total: int) -> None:
        """Decoding levels done, of how many."""
        self._progress.update(self._levels, completed=done, total=total, visible=True)

    def finish_image(self) -> None:
        """One more picture is written, or has failed."""
        self._progress.advance(self._images)


class Terminal:
    """Where the command line writes. out : the table. err : everything else."""

    def __init__(self, out: Console, err: Console) -> None:
        self._out = out
        self._err = err

    @classmethod
    def standard(cls) -> Terminal:
        """Standard output and error; wide enough for whole lines where they lead to a file."""
        out, err = Console(), Console(stderr=True)
        if not out.is_terminal:
            out = Console(width=_WIDTH_WITHOUT_TERMINAL)
        return cls(out, err if err.is_terminal else Console(stderr=True, width=_WIDTH_WITHOUT_TERMINAL))

    @contextmanager
    def waiting(self, message: str) -> Iterator[None]:
        """A sign of life while the block runs."""
        with self._err.status(Text(message)):
            yield

    @contextmanager
    def progress(self, images: int) -> Iterator[Bars]:
        """Bars while the block runs, gone afterwards."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._err, transient=True, disable=not self._err.is_terminal) as progress:
            yield Bars(progress, images)

    def complain(self, message: str) -> None:
        """One sentence about what went wrong."""
        self._err.print(Text.assemble(("error: ", "bold red"), message))

    def report(self, outcomes: Sequence[Outcome], extra: Sequence[Path] = ()) -> None:
        """The table of what was made, then notes and further files."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("picture", "made", "faces", "watertight", "seconds", "seed"):
            numeric = heading in ("faces", "seconds", "seed")
            table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
        for outcome in outcomes:
            table.add_row(*_cells(outcome))
        self._out.print(table)
        for path in extra:
            self._out.print(Text(f"contact sheet: {path}"))
        for note in dict.fromkeys(outcome.note for outcome in outcomes if outcome.note):
            self._err.print(Text(f"note: {note}", style="yellow"))


def _cells(outcome: Outcome) -> list[Text]:
    """One row; plain Text, so that no file's name is taken for markup."""
    if outcome.problem:
        made = Text(outcome.problem, style="red")
        return [Text(str(outcome.image)), made, Text("-"), Text("-"), Text("-"), Text(_shown(outcome.seed))]
    return [
        Text(str(outcome.image)),
        Text("\n".join(str(path) for path in outcome.files)),
        Text("-" if outcome.faces is None else f"{outcome.faces:,}".replace(",", " ")),
        Text("yes", style="green") if outcome.watertight else Text("no", style="yellow"),
        Text("-" if outcome.seconds is None else f"{outcome.seconds:.1f}"),
        Text(_shown(outcome.seed)),
    ]


def _shown(value: int | None) -> str:
    return "-" if value is None else str(value)
