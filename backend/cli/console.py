"""How the command line looks: progress bars and complaints on standard error, the table of what was made on output.

This module does not know of images, meshes or models beyond what is shown of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from orfeas_client import terminal


@dataclass(frozen=True)
class Outcome:
    """What became of one image; `problem` says why there is no mesh, `note` what else a person should know.

    seconds : its share of its batch's time, with its files'. warnings : what is doubtful about image and mesh
    """

    image: Path
    files: tuple[Path, ...] = ()
    faces: int | None = None
    watertight: bool | None = None
    seconds: float | None = None
    seed: int | None = None
    problem: str = ""
    note: str = ""
    warnings: tuple[str, ...] = ()


class Bars:
    """Three bars: images finished, and within a batch its denoising steps and decoding levels."""

    def __init__(self, progress: Progress, images: int) -> None:
        self._progress = progress
        self._images = progress.add_task("pictures", total=images)
        self._steps = progress.add_task("denoising", total=None, visible=False)
        self._levels = progress.add_task("decoding", total=None, visible=False)

    def start_batch(self) -> None:
        """Go back to nothing done, before a batch."""
        for task in (self._steps, self._levels):
            self._progress.reset(task, visible=False, total=None)

    def step(self, done: int, total: int) -> None:
        """Show the denoising steps done, of how many."""
        self._progress.update(self._steps, completed=done, total=total, visible=True)

    def level(self, done: int, total: int) -> None:
        """Show the decoding levels done, of how many."""
        self._progress.update(self._levels, completed=done, total=total, visible=True)

    def finish_image(self) -> None:
        """Count one more image that is written, or has failed."""
        self._progress.advance(self._images)


class Terminal(terminal.Terminal):
    """Where the command line writes. out : the table. err : everything else."""

    @contextmanager
    def progress(self, images: int) -> Iterator[Bars]:
        """Show bars while the block runs, gone afterwards."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with self.progress_on(*columns) as progress:
            yield Bars(progress, images)

    def tell(self, outcome: Outcome, number: int, images: int) -> None:
        """Say what became of an image as soon as that is known, and what is doubtful about it.

        number : how many are done with it, of all images
        """
        self.say(f"{number}/{images} {outcome.image}: {_told(outcome)}")
        for warning in outcome.warnings:
            self.say(f"    {warning}")

    def report(self, outcomes: Sequence[Outcome], extra: Sequence[Path] = ()) -> None:
        """Show the table of what was made, then notes and further files."""
        self.results([_row(outcome) for outcome in outcomes])
        for path in extra:
            self._out.print(Text(f"contact sheet: {path}"))
        for note in dict.fromkeys(outcome.note for outcome in outcomes if outcome.note):
            self.note(f"note: {note}")


def _told(outcome: Outcome) -> str:
    if outcome.problem:
        return outcome.problem
    made = ", ".join(str(path) for path in outcome.files)
    faces = f"{outcome.faces:,} faces".replace(",", " ")
    return f"{made} ({faces}, {outcome.seconds or 0.0:.1f} s)"


def _row(outcome: Outcome) -> terminal.ResultRow:
    return terminal.ResultRow(
        str(outcome.image),
        tuple(str(path) for path in outcome.files),
        None if outcome.faces is None else f"{outcome.faces:,}".replace(",", " "),
        bool(outcome.watertight),
        outcome.seconds,
        outcome.seed,
        outcome.problem,
    )
