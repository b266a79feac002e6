"""`orfeas generate`: images in, mesh files, previews and a table out, on this machine and without a service.

Parses, hands over to a processor batch by batch, writes what comes back. This module does not know of networks or of
memory: the processor is loaded by `load_processor`, which `main` takes as a parameter. How things look on the terminal
is `console.py`'s.

Exit codes: 0 all made; 1 some pictures failed, the others are written; 2 bad parameters; 3 the checkpoint cannot be
loaded; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from backend.cli.console import Bars, Outcome, Terminal
from backend.cli.output_names import OutputPlan, plan_names
from backend.errors import InvalidImage, InvalidParameter, ServiceError
from backend.limits import (
    ACCELERATIONS,
    BACKGROUND_MODES,
    COLOR_MODES,
    COMPRESSIONS,
    DEFAULT_ACCELERATION,
    DEFAULT_BACKGROUND_MODE,
    DEFAULT_COLOR,
    DEFAULT_COMPRESSION,
    DEFAULT_FORMAT,
    DEFAULT_OBJECTS,
    DEFAULT_PLACE,
    DEFAULT_QUALITY,
    DEFAULT_SCALE_MM,
    DEFAULT_UPRIGHT,
    FORMATS,
    MAX_RESOLUTION,
    MAX_TARGET_FACES,
    MIN_RESOLUTION,
    MIN_TARGET_FACES,
    OBJECT_CHOICES,
    PLACES,
    UPRIGHTS,
    default_target_faces,
)

if TYPE_CHECKING:
    from backend.batch_inference_extension import BatchProgress
    from backend.hunyuan3d.results import ShapeResult
    from backend.limits import (
        Acceleration,
        BackgroundMode,
        ColorMode,
        Compression,
        MeshFormat,
        ObjectChoice,
        Place,
        Upright,
    )
    from backend.rendering.contact_sheet import SheetRow

ALL_MADE, SOME_FAILED, BAD_PARAMETERS, NO_MODEL, INTERRUPTED = 0, 1, 2, 3, 130


class Processor(Protocol):
    """What the command line needs of a processor."""

    def generate_shape_batch(
        self,
        images: Sequence[Path],
        *,
        seeds: int | None,
        num_inference_steps: int | None,
        guidance_scale: float | None,
        octree_resolution: int | None,
        target_faces: int | None,
        remove_background: BackgroundMode,
        acceleration: Acceleration,
        objects: ObjectChoice,
        on_progress: Callable[[BatchProgress], None],
    ) -> Sequence[ShapeResult]: ...


@dataclass(frozen=True)
class CommandLine:
    """What was asked for, checked. Raises InvalidParameter's kinds."""

    images: tuple[Path, ...]
    output: Path
    formats: tuple[MeshFormat, ...]
    num_inference_steps: int | None
    octree_resolution: int | None
    guidance_scale: float | None
    seed: int | None
    target_faces: int | None
    scale_mm: float
    remove_background: BackgroundMode
    acceleration: Acceleration
    objects: ObjectChoice
    color: ColorMode
    place: Place
    upright: Upright
    compress: Compression
    checkpoint: str
    subfolder: str | None
    device: str | None
    dtype: str | None
    preview: bool
    turntable: bool
    contact_sheet: bool
    batch_size: int

    def __post_init__(self) -> None:
        from backend.hunyuan3d.mesh.offered import require_compression
        from backend.hunyuan3d.mesh.ops import check_scale_mm
        from backend.hunyuan3d.options import GenerationOptions, ImageOptions

        # The checkpoint's own defaults stand in later for what is not given; here only what is given is checked.
        generation = GenerationOptions(
            1 if self.num_inference_steps is None else self.num_inference_steps,
            0.0 if self.guidance_scale is None else self.guidance_scale,
            MIN_RESOLUTION if self.octree_resolution is None else self.octree_resolution,
            self.acceleration,
        )
        ImageOptions(
            generation, 0 if self.seed is None else self.seed, self.target_faces, self.remove_background, self.objects
        )
        check_scale_mm(self.scale_mm)
        require_compression(self.compress)
        if self.batch_size < 1:
            raise InvalidParameter(f"The batch size must be at least 1, not {self.batch_size}.")


def main(
    arguments: Sequence[str] | None = None,
    load: Callable[[CommandLine], Processor] | None = None,
    terminal: Terminal | None = None,
) -> int:
    """Run the command line; return the exit code. arguments : default sys.argv's."""
    terminal = terminal or Terminal.standard()
    parsed = _parser().parse_args(sys.argv[1:] if arguments is None else list(arguments))
    try:
        command = _checked(parsed)
        plan = plan_names(command.images, command.output, command.formats)
    except ServiceError as refusal:
        terminal.complain(refusal.message)
        return BAD_PARAMETERS
    try:
        processor = _loaded(command, load or load_processor, terminal)
        outcomes = _make_all(command, processor, plan, terminal)
    except InvalidParameter as refusal:
        terminal.complain(refusal.message)
        return BAD_PARAMETERS
    except _NotLoadedError as failure:
        terminal.complain(str(failure))
        return NO_MODEL
    except KeyboardInterrupt:
        terminal.complain("Interrupted; what was finished before is written.")
        return INTERRUPTED
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


class _NotLoadedError(Exception):
    """The checkpoint cannot be loaded; the message is for the person at the terminal."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orfeas generate",
        description="Make a 3D mesh of each picture.",
        epilog="Exit codes: 0 all made, 1 some pictures failed, 2 bad parameters, 3 no model, 130 interrupted.",
    )
    add = parser.add_argument
    cells = f"{MIN_RESOLUTION} to {MAX_RESOLUTION}"
    faces = f"{MIN_TARGET_FACES} to {MAX_TARGET_FACES:,}".replace(",", " ")
    add("images", nargs="+", type=Path, metavar="PICTURE", help="picture file with one object on it")
    add("-o", "--output", type=Path, default=Path("outputs"), metavar="FOLDER", help="default: %(default)s")
    add("-f", "--format", action="append", metavar="FORMATS", help=f"{', '.join(FORMATS)}; comma lists, repeats")
    add(
        "--steps", dest="num_inference_steps", type=int, metavar="N", help="denoising steps (default: the checkpoint's)"
    )
    add("--octree-resolution", type=int, metavar="R", help=f"cells a side, {cells} (default: the checkpoint's)")
    add("--guidance-scale", type=float, metavar="G", help="0 and up (default: the checkpoint's)")
    add("--seed", type=int, metavar="S", help="0 to 2^32 - 1, the same for each picture (default, and -1: drawn)")
    add(
        "--target-faces", type=number_or_none, default=default_target_faces(DEFAULT_QUALITY), metavar="N",
        help=f"at most so many faces, {faces}, or none (default: %(default)s)",
    )  # fmt: skip
    add("--scale-mm", type=float, default=DEFAULT_SCALE_MM, metavar="MM", help="longest side (default: %(default)g)")
    add("--remove-background", choices=BACKGROUND_MODES, default=DEFAULT_BACKGROUND_MODE, help="default: %(default)s")
    add("--acceleration", choices=ACCELERATIONS, default=DEFAULT_ACCELERATION, help="default: %(default)s")
    add("--objects", choices=OBJECT_CHOICES, default=DEFAULT_OBJECTS, help="default: %(default)s")
    add("--color", choices=COLOR_MODES, default=DEFAULT_COLOR, help="default: %(default)s")
    add("--place", choices=PLACES, default=DEFAULT_PLACE, help="default: %(default)s")
    add("--upright", choices=UPRIGHTS, default=DEFAULT_UPRIGHT, help="default: %(default)s")
    add("--compress", choices=COMPRESSIONS, default=DEFAULT_COMPRESSION, help="of GLB files (default: %(default)s)")
    add("--checkpoint", default="demo", metavar="NAME", help="folder, hub repository or short name (default: demo)")
    add("--subfolder", metavar="NAME", help="the checkpoint's folder inside the repository")
    add("--device", metavar="NAME", help="cuda, mps or cpu (default: the best that is there)")
    add("--dtype", metavar="NAME", help="fp32, bf16 or fp16 (default: the device's usual one)")
    add("--batch-size", type=int, default=4, metavar="N", help="pictures that run together (default: %(default)s)")
    add("--no-preview", dest="preview", action="store_false", help="no preview PNG beside each mesh")
    add("--turntable", action="store_true", help="also write an animation of each mesh turning")
    add("--contact-sheet", action="store_true", help="also write one PNG with every picture and mesh")
    return parser


def number_or_none(text: str) -> int | None:
    """Return a whole number, or None for none. Raises ValueError."""
    return None if text == "none" else int(text)


def _checked(parsed: argparse.Namespace) -> CommandLine:
    """Check the parsed arguments and make the output folder. Raises InvalidParameter's kinds."""
    from backend.hunyuan3d.mesh.export import check_format

    values = vars(parsed)
    formats = [check_format(name) for part in values.pop("format") or [DEFAULT_FORMAT] for name in part.split(",")]
    values.update(images=tuple(parsed.images), formats=tuple(dict.fromkeys(formats)))
    values["seed"] = None if parsed.seed == -1 else parsed.seed
    command = CommandLine(**values)
    try:
        command.output.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise InvalidParameter(f"The folder {command.output} cannot be made: {reason}.") from failure
    return command


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


def _make_all(command: CommandLine, processor: Processor, plan: OutputPlan, terminal: Terminal) -> list[Outcome]:
    """Make and write every mesh, batch by batch, and show the table, also when interrupted."""
    from backend.cli.output_files import write_result

    outcomes: list[Outcome] = []
    rows: list[SheetRow] = []
    extra: list[Path] = []
    try:
        with terminal.progress(len(command.images)) as bars:
            for indices in _batches(command):
                started = time.perf_counter()
                results = _results(command, processor, [command.images[k] for k in indices], bars)
                share = (time.perf_counter() - started) / len(indices)
                for index, result in zip(indices, results, strict=True):
                    outcome, row = write_result(command, command.images[index], plan.names[index], result, share)
                    outcomes.append(outcome)
                    rows.append(row)
                    bars.finish_image()
        if command.contact_sheet:
            extra, outcomes = _write_sheet(plan, rows, outcomes)
    finally:
        terminal.report(outcomes, extra)
    return outcomes


def _batches(command: CommandLine) -> list[range]:
    count, size = len(command.images), command.batch_size
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _results(
    command: CommandLine, processor: Processor, images: Sequence[Path], bars: Bars
) -> list[ShapeResult | ServiceError]:
    """Make a batch; return one result or error for each image."""
    present = [path for path in images if path.is_file()]
    if len(present) < len(images):
        made = iter(_results(command, processor, present, bars) if present else [])
        return [next(made) if path in present else InvalidImage(f"There is no file {path}.") for path in images]
    bars.start_batch()
    try:
        return list(_call(command, processor, present, bars))
    except InvalidParameter:
        raise
    except ServiceError as failure:
        return [failure] * len(present)
    except Exception as failure:  # noqa: BLE001  the edge of a batch: recorded as its images' error
        return [ServiceError(f"Unexpected {_sentence(failure)}")] * len(present)


def _call(command: CommandLine, processor: Processor, images: Sequence[Path], bars: Bars) -> Sequence[ShapeResult]:
    shown = {"sample": bars.step, "decode": bars.level}

    def on_progress(progress: BatchProgress) -> None:
        if progress.stage in shown:
            shown[progress.stage](progress.done, progress.total)

    return processor.generate_shape_batch(
        images,
        seeds=command.seed,
        num_inference_steps=command.num_inference_steps,
        guidance_scale=command.guidance_scale,
        octree_resolution=command.octree_resolution,
        target_faces=command.target_faces,
        remove_background=command.remove_background,
        acceleration=command.acceleration,
        objects=command.objects,
        on_progress=on_progress,
    )


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
