"""`orfeas generate`: images in, mesh files, previews and a table out, on this machine and without a service.

Hands over to a processor batch by batch, writes what comes back, and says a line for each mesh as it is done. This
module does not know of networks or of memory: what loads a processor and what draws a prompt's picture are parameters
of `main`. What may be asked is `arguments.py`'s, how things look on the terminal `console.py`'s.

Exit codes: 0 all made; 1 some pictures failed, the others are written; 2 wrong options or missing files, all named at
once, nothing made; 3 the checkpoint cannot be loaded; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol, cast

from backend.cli.arguments import CommandLine, WrongArgumentsError, parser, read_arguments
from backend.cli.console import Bars, Outcome, Terminal
from backend.cli.output_names import OutputPlan, plan_names
from backend.errors import CheckpointError, InvalidParameter, ServiceError
from backend.limits import SEED_LIMIT, ViewName

if TYPE_CHECKING:
    from backend.batch_inference_extension import BatchProgress
    from backend.hunyuan3d.results import ShapeResult
    from backend.limits import Acceleration, BackgroundMode, ObjectChoice, OutlineMode
    from backend.rendering.contact_sheet import SheetRow

ALL_MADE, SOME_FAILED, BAD_PARAMETERS, NO_MODEL, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

ImageFiles = Path | Mapping[ViewName, Path]
"""A picture of one object, or its views."""

Draw = Callable[[CommandLine, int], bytes]
"""Returns the picture of a command's prompt as PNG, by a seed."""


class Processor(Protocol):
    """What the command line needs of a processor."""

    def generate_shape_batch(
        self,
        images: Sequence[ImageFiles],
        *,
        seeds: int | Sequence[int] | None,
        num_inference_steps: int | None,
        guidance_scale: float | None,
        octree_resolution: int | None,
        target_faces: int | None,
        remove_background: BackgroundMode,
        acceleration: Acceleration,
        objects: ObjectChoice,
        outline: OutlineMode,
        on_progress: Callable[[BatchProgress], None],
    ) -> Sequence[ShapeResult]: ...


def main(
    arguments: Sequence[str] | None = None,
    load: Callable[[CommandLine], Processor] | None = None,
    terminal: Terminal | None = None,
    draw: Draw | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run the command line; return the exit code. arguments, environ : default this process's."""
    terminal = terminal or Terminal.standard()
    parsed = parser().parse_args(sys.argv[1:] if arguments is None else list(arguments))
    try:
        command = read_arguments(parsed, os.environ if environ is None else environ)
    except WrongArgumentsError as refusal:
        for problem in refusal.problems:
            terminal.complain(problem)
        return BAD_PARAMETERS
    try:
        with _terminable():
            outcomes = _run(command, load or load_processor, draw or load_and_draw, terminal)
    except InvalidParameter as refusal:
        terminal.complain(refusal.message)
        return BAD_PARAMETERS
    except _NotLoadedError as failure:
        terminal.complain(str(failure))
        return NO_MODEL
    except KeyboardInterrupt:
        terminal.complain("Interrupted; what was finished before is written.")
        return INTERRUPTED
    except _Terminated:
        terminal.complain("Terminated; what was finished before is written.")
        return TERMINATED
    return SOME_FAILED if any(outcome.problem for outcome in outcomes) else ALL_MADE


def load_processor(command: CommandLine) -> Processor:
    """Load a processor of the checkpoint asked for. Raises CheckpointError's kinds, InvalidParameter."""
    from backend.batch_inference_extension import add_batch_inference_to_processor
    from backend.hunyuan3d.device.memory import memory_of
    from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
    from backend.hunyuan_integration import Hunyuan3DProcessor

    pipeline = Hunyuan3DShapePipeline.from_pretrained(
        command.checkpoint, subfolder=command.subfolder, device=command.device, dtype=command.dtype
    )
    processor = Hunyuan3DProcessor(pipeline, memory_of(pipeline.device), command.batch_size)
    return cast(Processor, add_batch_inference_to_processor(processor))


def load_and_draw(command: CommandLine, seed: int) -> bytes:
    """Draw the picture of a prompt, as PNG. Raises CheckpointError, OutOfMemory, InvalidParameter."""
    from backend.cli.drawing import draw_prompt

    return draw_prompt(command, seed)


class _NotLoadedError(Exception):
    """The checkpoint cannot be loaded; the message is for the person at the terminal."""


class _Terminated(BaseException):
    """The process was asked to end."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, with _Terminated, so that what is done so far is still shown."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(
    command: CommandLine, load: Callable[[CommandLine], Processor], draw: Draw, terminal: Terminal
) -> list[Outcome]:
    """Make and write every mesh; load nothing when there is no picture that could be read."""
    kept = command.candidates if command.keep == "all" else 1
    plan = plan_names(command.images, command.output, command.formats, kept)
    unfit = _undrawn(command, draw, terminal) if command.prompt is not None else _unfit(command)
    if len(unfit) == len(command.images):
        return _make_all(command, None, plan, unfit, terminal)
    for index, problem in unfit.items():
        terminal.complain(f"{command.images[index]}: {problem.message}")
    return _make_all(command, _loaded(command, load, terminal), plan, unfit, terminal)


def _undrawn(command: CommandLine, draw: Draw, terminal: Terminal) -> dict[int, ServiceError]:
    """Draw the picture of the prompt and keep it where meshes go; return why there is none, as the picture's problem.

    Raises _NotLoadedError, InvalidParameter.
    """
    from backend.hunyuan3d.mesh.export import write_atomically

    seed = secrets.randbelow(SEED_LIMIT) if command.image_seed is None else command.image_seed
    with terminal.waiting(f"Drawing with {command.text_to_image_model}"):
        try:
            path = write_atomically(draw(command, seed), command.images[0])
        except InvalidParameter:
            raise
        except CheckpointError as failure:
            raise _NotLoadedError(failure.message) from failure
        except ServiceError as failure:
            return {0: failure}
        except Exception as failure:  # noqa: BLE001  the edge of a drawing: recorded as its picture's error
            return {0: ServiceError(f"Unexpected {_sentence(failure)}")}
    terminal.say(f"{path} was drawn, by --image-seed {seed}.")
    return {}


def _unfit(command: CommandLine) -> dict[int, ServiceError]:
    """Return what is wrong with those pictures whose files say by themselves that they can't be read."""
    from backend.hunyuan3d.image.open_image import require_readable

    found: dict[int, ServiceError] = {}
    for index, image in enumerate(command.images):
        try:
            for path in command.views.values() or [image]:
                require_readable(path)
        except ServiceError as problem:
            found[index] = problem
    return found


def _loaded(command: CommandLine, load: Callable[[CommandLine], Processor], terminal: Terminal) -> Processor:
    with terminal.waiting(f"Loading {command.checkpoint}"):
        try:
            return load(command)
        except InvalidParameter:
            raise
        except ServiceError as failure:
            raise _NotLoadedError(failure.message) from failure
        except Exception as failure:
            raise _NotLoadedError(f"{command.checkpoint} cannot be loaded: {_sentence(failure)}") from failure


def _make_all(
    command: CommandLine,
    processor: Processor | None,
    plan: OutputPlan,
    unfit: Mapping[int, ServiceError],
    terminal: Terminal,
) -> list[Outcome]:
    """Make and write every mesh, batch by batch; say a line for each, and show the table, also when interrupted.

    processor : may be missing where all pictures are unfit
    """
    from backend.cli.output_files import write_result

    outcomes: list[Outcome] = []
    rows: list[SheetRow] = []
    extra: list[Path] = []
    try:
        with terminal.progress(len(command.images)) as bars:
            for indices in _batches(command):
                started = time.perf_counter()
                results = _results(command, processor, indices, unfit, bars)
                share = (time.perf_counter() - started) / len(indices)
                for index, result in zip(indices, results, strict=True):
                    outcome, row = write_result(command, command.images[index], plan.names[index], result, share)
                    outcomes.append(outcome)
                    rows.append(row)
                    bars.finish_image()
                    terminal.tell(outcome, len(outcomes), len(command.images))
        if command.contact_sheet:
            extra, outcomes = _write_sheet(plan, rows, outcomes)
    finally:
        terminal.report(outcomes, extra)
    return outcomes


def _batches(command: CommandLine) -> list[range]:
    count, size = len(command.images), command.batch_size
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _results(
    command: CommandLine,
    processor: Processor | None,
    indices: Sequence[int],
    unfit: Mapping[int, ServiceError],
    bars: Bars,
) -> list[Sequence[ShapeResult] | ServiceError]:
    """Make a batch; return each image's results, of all its candidates, or its error."""
    fit = [index for index in indices if index not in unfit]
    made: dict[int, Sequence[ShapeResult] | ServiceError] = {index: unfit[index] for index in indices if index in unfit}
    if fit and processor is not None:
        images = [command.views or command.images[index] for index in fit]
        bars.start_batch()
        try:
            made |= zip(fit, _call(command, processor, images, bars), strict=True)
        except InvalidParameter:
            raise
        except ServiceError as failure:
            made |= dict.fromkeys(fit, failure)
        except Exception as failure:  # noqa: BLE001  the edge of a batch: recorded as its images' error
            made |= dict.fromkeys(fit, ServiceError(f"Unexpected {_sentence(failure)}"))
    return [made[index] for index in indices]


def _call(
    command: CommandLine, processor: Processor, images: Sequence[ImageFiles], bars: Bars
) -> list[Sequence[ShapeResult]]:
    """Make the candidates of each image, all in one call."""
    shown = {"sample": bars.step, "decode": bars.level}

    def on_progress(progress: BatchProgress) -> None:
        if progress.stage in shown:
            shown[progress.stage](progress.done, progress.total)

    count = command.candidates
    results = processor.generate_shape_batch(
        [image for image in images for _ in range(count)],
        seeds=command.seed if count == 1 else _seeds(command, len(images)),
        num_inference_steps=command.num_inference_steps,
        guidance_scale=command.guidance_scale,
        octree_resolution=command.octree_resolution,
        target_faces=command.target_faces,
        remove_background=command.remove_background,
        acceleration=command.acceleration,
        objects=command.objects,
        outline=command.outline,
        on_progress=on_progress,
    )
    return [results[first : first + count] for first in range(0, len(results), count)]


def _seeds(command: CommandLine, images: int) -> list[int]:
    """Return the seeds of all candidates of so many images: of each the one asked for, or drawn, and those after it."""
    firsts = [secrets.randbelow(SEED_LIMIT) if command.seed is None else command.seed for _ in range(images)]
    return [(first + index) % SEED_LIMIT for first in firsts for index in range(command.candidates)]


def _write_sheet(
    plan: OutputPlan, rows: Sequence[SheetRow], outcomes: list[Outcome]
) -> tuple[list[Path], list[Outcome]]:
    """Write the contact sheet and return its path, or else note on the last outcome why there is none."""
    from backend.cli.output_files import write_contact_sheet

    try:
        return [write_contact_sheet(rows, plan.contact_sheet)], outcomes
    except ServiceError as failure:
        return [], [*outcomes[:-1], replace(outcomes[-1], note=failure.message)]


def _sentence(failure: Exception) -> str:
    """Say an unnamed failure in one line: its kind and the first line of its message."""
    said = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {said[0]}" if said else f"{type(failure).__name__}."
