"""What command lines write with: complaints and progress on standard error, a table of results on standard output.

The client's console and the service's own are made of it. This module does not know how a mesh is made or asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.table import Table
from rich.text import Text

_WIDTH_WITHOUT_TERMINAL = 140


@dataclass(frozen=True)
class ResultRow:
    """What became of one image; `problem` says why there is no mesh. None stands for what is not known."""

    image: str
    files: tuple[str, ...] = ()
    faces: str | None = None
    watertight: bool | None = None
    seconds: float | None = None
    seed: int | None = None
    problem: str = ""


class Terminal:
    """Where a command line writes. out : results. err : everything else."""

    def __init__(self, out: Console, err: Console) -> None:
        self._out = out
        self._err = err

    @classmethod
    def standard(cls) -> Self:
        """Write to standard output and error, wide enough for whole lines where they lead to a file."""
        return cls(*standard_consoles())

    @contextmanager
    def waiting(self, message: str) -> Iterator[None]:
        """Show a sign of life while the block runs."""
        with self._err.status(Text(message)):
            yield

    def say(self, message: str) -> None:
        """Say one sentence about how things go."""
        self._err.print(Text(message))

    def complain(self, message: str) -> None:
        """Say one sentence about what went wrong."""
        self._err.print(Text.assemble(("error: ", "bold red"), message))

    def note(self, message: str) -> None:
        """Say one sentence that is good to know."""
        self._err.print(Text(message, style="yellow"))

    def results(self, rows: Sequence[ResultRow]) -> None:
        """Show the table of what was made of each image."""
        table = new_table("picture", "made", "faces>", "watertight", "seconds>", "seed>")
        for row in rows:
            table.add_row(*_cells(row))
        self._out.print(table)

    def progress_on(self, *columns: ProgressColumn) -> Progress:
        """Return bars with these columns, gone when their block has ended; none where there is no terminal."""
        return Progress(*columns, console=self._err, transient=True, disable=not self._err.is_terminal)


def standard_consoles() -> tuple[Console, Console]:
    """Return consoles on standard output and error; wide enough for whole lines where they lead to a file."""
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    return _widened(out, stderr=False), _widened(err, stderr=True)


def new_table(*headings: str) -> Table:
    """Return an empty table; a heading that ends in '>' stands to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading.rstrip(">"), justify="right" if heading.endswith(">") else "left", overflow="fold")
    return table


def cell(value: object) -> Text:
    """Return a value as plain Text, so that no file's name is taken for markup; '-' stands for None."""
    return Text("-" if value is None else str(value))


def _widened(console: Console, *, stderr: bool) -> Console:
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDTH_WITHOUT_TERMINAL)


def _cells(row: ResultRow) -> list[Text]:
    if row.problem:
        return [Text(row.image), Text(row.problem, style="red"), *(Text("-"),) * 3, cell(row.seed)]
    return [
        Text(row.image),
        Text("\n".join(row.files)),
        cell(row.faces),
        cell(None) if row.watertight is None else _yes_or_no(row.watertight),
        cell(None if row.seconds is None else f"{row.seconds:.1f}"),
        cell(row.seed),
    ]


def _yes_or_no(value: bool) -> Text:
    return Text("yes", style="green") if value else Text("no", style="yellow")
