"""`make demo`: the whole service on this machine, ten pictures in one signed batch, their meshes in outputs/demo.

Starts the real service for a while, sends the pictures as any agent would, fetches the meshes, draws them, stops the
service. This module does not know how the service works; it talks to it through the client.

Exit codes: 0 all made; 1 some pictures failed, the others are written; 2 bad parameters; 3 the service did not start,
did not stop or went away; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from PIL import Image

from backend.cli.console import Outcome, Terminal
from backend.cli.output_names import OutputNames, OutputPlan, plan_names
from backend.demo.local_service import DemoService, ServiceFailed, demo_service
from backend.errors import ServiceError
from backend.hunyuan3d.mesh.offered import offered_formats
from backend.limits import FORMATS, MAX_BATCH_IMAGES, MAX_QUALITY, MIN_BATCH_IMAGES, MIN_QUALITY
from orfeas_client import AgentClient, Batch, ClientError, Job
from orfeas_client.console import Screen

if TYPE_CHECKING:
    from backend.rendering.contact_sheet import SheetRow

ALL_MADE, SOME_FAILED, BAD_PARAMETERS, SERVICE_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
_INSTALLED_SAMPLES = Path(__file__).parent / "samples"
SAMPLES = _INSTALLED_SAMPLES if _INSTALLED_SAMPLES.exists() else Path(__file__).parents[2] / "samples"
"""Inside the package where that was installed, else beside it in a checkout."""

_START_SECONDS = 900.0


@dataclass(frozen=True)
class Plan:
    """What is made of what, and where it goes."""

    images: tuple[Path, ...]
    files: OutputPlan
    quality: int
    seed: int


@dataclass(frozen=True)
class Finished:
    """The batch's jobs in the images' order; the first image's mesh is there in every format that is offered."""

    jobs: tuple[Job, ...]
    seconds: float


def main(
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    screen: Screen | None = None,
    terminal: Terminal | None = None,
) -> int:
    """Run the demonstration; return the exit code. arguments, environ : default this process's."""
    screen, terminal = screen or Screen.standard(as_json=False), terminal or Terminal.standard()
    options = _parser().parse_args(arguments)
    try:
        plan = _plan(options)
    except (ValueError, OSError) as failure:
        screen.complain(str(failure))
        return BAD_PARAMETERS
    try:
        finished = _made_by_service(plan, os.environ if environ is None else environ, screen)
        outcomes = _drawn(plan, finished, screen, terminal)
    except ServiceFailed as failure:
        screen.complain(str(failure))
        return SERVICE_FAILED
    except KeyboardInterrupt:
        screen.complain("Interrupted; the service is stopped.")
        return INTERRUPTED
    screen.say(_summary(plan, finished))
    return SOME_FAILED if any(outcome.problem for outcome in outcomes) else ALL_MADE


def _made_by_service(plan: Plan, environ: Mapping[str, str], screen: Screen) -> Finished:
    """Start the service, have every mesh made and fetched, stop the service. Raises ServiceFailed."""
    began = time.monotonic()
    with demo_service(environ) as service:
        with screen.waiting("Starting the service and loading its model"):
            service.wait_until_ready(_START_SECONDS)
        with service.client(lambda problem, pause: screen.note(f"{problem} Trying again in {pause:.1f} s.")) as client:
            health = client.health()
            screen.say(
                f"The service at {service.url} is ready after {time.monotonic() - began:.1f} s: "
                f"{health.model} on {health.device_name or health.device}."
            )
            try:
                finished = _sent_and_fetched(client, plan, screen)
            except ClientError as failure:
                raise _gone(service, failure) from failure
        with screen.waiting("Stopping the service"):
            service.stop()
    return finished


def _sent_and_fetched(client: AgentClient, plan: Plan, screen: Screen) -> Finished:
    began = time.monotonic()
    batch = client.batch(plan.images, format=FORMATS[0], quality=plan.quality, seed=plan.seed)
    names = {job.id: path.name for job, path in zip(batch.jobs, plan.images, strict=True)}
    with screen.bars(names) as bars:
        made = client.wait(batch.id, bars.show)
    jobs = made.jobs if isinstance(made, Batch) else (made,)
    finished = Finished(jobs, time.monotonic() - began)
    with screen.waiting("Fetching the meshes"):
        for job, files in zip(jobs, plan.files.names, strict=True):
            _fetch(client, job, files)
        if jobs[0].succeeded:
            _fetch_other_formats(client, jobs[0], plan.files.names[0])
    return finished


def _fetch(client: AgentClient, job: Job, files: OutputNames) -> None:
    if job.download_url:
        size = job.metadata.get("file_size")
        client.download(job.download_url, files.meshes[0], size=size if isinstance(size, int) else None)
    if job.preview_url:
        client.download(job.preview_url, files.preview)


def _fetch_other_formats(client: AgentClient, job: Job, files: OutputNames) -> None:
    """Have a mesh encoded in every other format, and fetch these: the device is not asked again."""
    for path in files.meshes[1:]:
        format = path.suffix[1:]
        made = client.add_format(job.id, format)
        client.download(made[format].url, path, size=made[format].bytes)


def _gone(service: DemoService, failure: ClientError) -> ServiceFailed:
    service.require_alive()
    return ServiceFailed(f"{failure}\n{service.log_tail()}")


def _drawn(plan: Plan, finished: Finished, screen: Screen, terminal: Terminal) -> list[Outcome]:
    """Lay out the preview of each mesh and all of them on one sheet, and show the table."""
    from backend.cli.output_files import write_contact_sheet

    drawn = [_draw(plan, index, job) for index, job in enumerate(finished.jobs)]
    outcomes, rows = [outcome for outcome, _ in drawn], [row for _, row in drawn]
    try:
        extra = [write_contact_sheet(rows, plan.files.contact_sheet)]
    except ServiceError as failure:
        screen.note(failure.message)
        extra = []
    terminal.report(outcomes, extra)
    return outcomes


def _draw(plan: Plan, index: int, job: Job) -> tuple[Outcome, SheetRow]:
    """Lay out what the service drew of a mesh; without a preview the outcome notes why there is none."""
    from backend.cli.output_files import failed_row, row_of, write_preview
    from backend.rendering.previews import views_of

    image, files = plan.images[index], plan.files.names[index]
    outcome = Outcome(image, seconds=job.processing_time, seed=_whole(job, "seed"))
    if not job.succeeded:
        outcome = replace(outcome, problem=f"{job.error_code or job.status}: {job.error}".rstrip(": "))
        return outcome, failed_row(outcome)
    sealed = job.metadata.get("watertight") is True
    meshes = files.meshes if index == 0 else files.meshes[:1]
    outcome = replace(outcome, files=meshes, faces=_whole(job, "faces"), watertight=sealed)
    if not job.preview_url:
        notes = job.metadata.get("notes")
        outcome = replace(outcome, note=" ".join(map(str, notes)) if isinstance(notes, list) else "")
        return outcome, replace(row_of(outcome, ()), problem=outcome.note)
    with Image.open(files.preview) as preview:
        row = row_of(outcome, views_of(preview.convert("RGB")))
    return write_preview(row, files.preview, outcome), row


def _whole(job: Job, name: str) -> int | None:
    value = job.metadata.get(name)
    return value if isinstance(value, int) else None


def _plan(options: argparse.Namespace) -> Plan:
    """Check what the options ask for and make the output's folder. Raises ValueError, OSError."""
    images = tuple(options.images or (_from_here(path) for path in sorted(SAMPLES.glob("*.png"))))
    if not MIN_BATCH_IMAGES <= len(images) <= MAX_BATCH_IMAGES:
        raise ValueError(f"A batch takes {MIN_BATCH_IMAGES} to {MAX_BATCH_IMAGES} pictures, not {len(images)}.")
    missing = next((path for path in images if not path.is_file()), None)
    if missing:
        raise ValueError(f"There is no file {missing}.")
    options.output.mkdir(parents=True, exist_ok=True)
    return Plan(images, plan_names(images, options.output, offered_formats()), options.quality, options.seed)


def _from_here(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _summary(plan: Plan, finished: Finished) -> str:
    made = sum(job.succeeded for job in finished.jobs)
    largest = max((_whole(job, "batch_size") or 1 for job in finished.jobs), default=1)
    return (
        f"{made} meshes of {len(plan.images)} pictures in {finished.seconds:.1f} s, up to {largest} at once, "
        f"at quality {plan.quality}; the service has stopped."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orfeas demo",
        description="Start the service, send it pictures as one signed batch, fetch and draw their meshes, stop it.",
        epilog="Exit codes: 0 all made, 1 some pictures failed, 2 bad parameters, 3 the service failed, "
        "130 interrupted. The model and the device are those of MODEL_PATH, DEVICE and their like.",
    )
    add = parser.add_argument
    add("images", nargs="*", type=Path, metavar="PICTURE", help="2 to 10 pictures (default: the samples)")
    add("-o", "--output", type=Path, default=Path("outputs/demo"), metavar="FOLDER", help="default: %(default)s")
    add(
        "--quality",
        type=int,
        default=3,
        choices=range(MIN_QUALITY, MAX_QUALITY + 1),
        metavar="Q",
        help="1 to 10 (default: %(default)s)",
    )
    add("--seed", type=int, default=7, metavar="S", help="default: %(default)s")
    return parser


def run_program(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the demonstration as this process's one task: however it is ended, the service it started ends with it."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    return main(arguments, environ)
