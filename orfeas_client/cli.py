"""The client's command line: `orfeas-client generate picture.png -o mesh.glb` and its neighbours.

The service and the agent come from options or from ORFEAS_URL, ORFEAS_AGENT_ID and ORFEAS_API_KEY; the environment is
the better place for a key, as others on the machine can see a command's options. This module does not know how
requests travel.

Exit codes: 0 done; 1 the service refused, or a picture failed (the others are written); 2 bad options; 3 no service
answers; 4 a file here cannot be read or written; 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from orfeas_client import AgentClient, Batch, ClientError, Fields, ImageUrl, Job, MeshFile
from orfeas_client.console import Made, Screen
from orfeas_client.errors import LocalFileError, NothingToLink, ServiceRefused, ServiceUnreachable, UnexpectedAnswer
from orfeas_client.field_options import FORMATS, add_fields, add_views, read_fields, read_views
from orfeas_client.file_names import first_free

DONE, REFUSED, BAD_OPTIONS, UNREACHABLE, FILE_TROUBLE, INTERRUPTED = 0, 1, 2, 3, 4, 130
COMMAND = "orfeas-client"
DEFAULT_URL = "http://127.0.0.1:5000"
MAX_IMAGES = 10

_NOBODY = "nobody"
_Connect = Callable[..., AgentClient]


def run(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    screen: Screen | None = None,
    connect: _Connect = AgentClient,
) -> int:
    """Do what the command line asks; the exit code."""
    options = _parser(environ).parse_args(arguments)
    screen = screen or Screen.standard(options.json)
    try:
        with _connected(options, screen, connect) as client:
            command: Callable[[AgentClient, argparse.Namespace, Screen], int] = options.run
            return command(client, options, screen)
    except LocalFileError as failure:
        return _failed(screen, failure, FILE_TROUBLE)
    except (ServiceUnreachable, UnexpectedAnswer) as failure:
        return _failed(screen, failure, UNREACHABLE)
    except (ServiceRefused, NothingToLink) as failure:
        return _failed(screen, failure, REFUSED)
    except ClientError as failure:
        return _failed(screen, failure, BAD_OPTIONS)
    except KeyboardInterrupt:
        screen.complain("Interrupted.")
        return INTERRUPTED


def _failed(screen: Screen, failure: ClientError, code: int) -> int:
    screen.complain(str(failure))
    if failure.job_id and not isinstance(failure, ServiceRefused):
        screen.note(f"It may go on at the service: `{COMMAND} wait {failure.job_id} -o FOLDER` asks again and fetches.")
    return code


def _connected(options: argparse.Namespace, screen: Screen, connect: _Connect) -> AgentClient:
    agent_id, api_key = options.agent_id, options.api_key
    if options.run is _health:
        agent_id, api_key = agent_id or _NOBODY, api_key or _NOBODY
    if not agent_id or not api_key:
        raise ClientError("Who calls? Set ORFEAS_AGENT_ID and ORFEAS_API_KEY, or give --agent-id and --api-key.")

    def tell(problem: str, pause: float) -> None:
        screen.note(f"{problem} Trying again in {pause:.1f} s.")

    return connect(
        options.url, agent_id, api_key, retries=options.retries, outage_seconds=options.outage, on_retry=tell
    )


def _generate(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    output: Path = options.output or Path()
    fields, views = read_fields(options), read_views(options)
    given = (options.image is not None, options.image_url is not None, bool(views), "prompt" in fields)
    if given.count(True) != 1:
        raise ClientError(
            "Give one PICTURE, its --image-url, several views of one object (--front, --left, --back, --right), or a "
            "--prompt."
        )
    pictures = [ImageUrl(options.image_url) if options.image_url else options.image, *views.values(), Path("prompt")]
    image = next(picture for picture in pictures if picture is not None)
    if output.suffix and not output.is_dir():
        fields["format"] = _format_of(output, fields.get("format"))
        target = output
    else:
        target = _targets([image], _folder(output), fields)[0]
    _check_writable(target)
    return _make(client, [image], [target], fields, screen, options, views)


def _batch(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    fields = read_fields(options)
    targets = _targets(options.images, _folder(options.output), fields)
    for target in targets:
        _check_writable(target)
    return _make(client, options.images, targets, fields, screen, options)


def _make(
    client: AgentClient,
    images: Sequence[Path | ImageUrl],
    targets: Sequence[Path],
    fields: Fields,
    screen: Screen,
    options: argparse.Namespace,
    views: Mapping[str, Path] | None = None,
) -> int:
    """Every picture sent, waited for and fetched, a batch at a time; the table shows what came of it.

    views : of the one object, in place of its picture
    """
    results: list[Made] = []
    try:
        for group in _groups(len(images)):
            sent = [images[place] for place in group]
            finished = _run_jobs(client, sent, fields, screen, getattr(options, "accept_partial", False), views)
            for image, place, job in zip(sent, group, finished, strict=True):
                results.append(_fetched(client, _called(image), job, targets[place], bool(options.preview)))
                if len(images) > 1:
                    screen.tell(results[-1], len(results), len(images))
    finally:
        if results:
            screen.made(results)
    return REFUSED if any(result.problem for result in results) else DONE


def _run_jobs(
    client: AgentClient,
    images: Sequence[Path | ImageUrl],
    fields: Fields,
    screen: Screen,
    accept_partial: bool,
    views: Mapping[str, Path] | None,
) -> Sequence[Job]:
    sent: Job | Batch
    if views or "prompt" in fields:
        sent = client.generate(views=views, **fields)
    elif len(images) == 1:
        sent = client.generate(images[0], **fields)
    else:
        sent = client.batch(images, accept_partial=accept_partial, **fields)
    names = {job.id: path.name for job, path in zip(_jobs_of(sent), images, strict=True)}
    return _jobs_of(_waited(client, sent.id, names, screen))


def _waited(client: AgentClient, job_or_batch_id: str, names: Mapping[str, str], screen: Screen) -> Job | Batch:
    try:
        with screen.bars(names) as bars:
            return client.wait(job_or_batch_id, bars.show)
    except KeyboardInterrupt:
        screen.note(f"{job_or_batch_id} goes on: `{COMMAND} wait {job_or_batch_id}`, or `{COMMAND} cancel` it.")
        raise


def _fetched(client: AgentClient, image: str, job: Job, target: Path, preview: bool) -> Made:
    """Fetch a job's mesh to the target, its other formats beside it, and its preview where that is wanted."""
    if not job.succeeded or not job.download_url:
        reason = f"{job.error_code}: {job.error}" if job.error_code else job.status
        return Made(image, job, problem=reason)
    size = job.metadata.get("file_size")
    try:
        file = client.download(job.download_url, target, size=size if isinstance(size, int) else None)
        others = [
            client.download(other.url, target.with_suffix(_suffix(other)), size=other.bytes) for other in job.files[1:]
        ]
        drawn = {"preview": job.preview_url, "turntable": job.turntable_url, "candidates": job.contact_sheet_url}
        pictures = drawn if preview else {}
        others += [client.download(url, target.with_suffix(f".{kind}.webp")) for kind, url in pictures.items() if url]
    except ServiceRefused as refusal:
        return Made(image, job, problem=str(refusal))
    except ClientError as failure:
        failure.job_id = job.id
        raise
    return Made(image, job, file, tuple(others))


def _suffix(file: MeshFile) -> str:
    """Return what a mesh's name ends with, beside the main one: of the second candidate `.2.glb`."""
    return f".{file.candidate + 1}.{file.format}" if file.candidate else f".{file.format}"


def _cutout(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    output: Path = options.output or Path(f"{options.image.stem or 'picture'}-cutout.png")
    target = output / f"{options.image.stem or 'picture'}-cutout.png" if output.is_dir() else output
    _check_writable(target)
    made = client.cutout(options.image, remove_background=options.remove_background, objects=options.objects)
    screen.cutout(str(options.image), made, client.download(made.url, target))
    return DONE


def _again(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    output: Path = options.output or Path()
    fields = read_fields(options)
    target = output if output.suffix and not output.is_dir() else None
    if target is not None:
        fields["format"] = _format_of(target, fields.get("format"))
    _check_writable(target or _folder(output) / options.id)
    sent = client.again(options.id, **fields)
    (job,) = _jobs_of(_waited(client, sent.id, {}, screen))
    target = target or output / f"{job.id}.{job.metadata.get('format', 'glb')}"
    result = _fetched(client, job.filename or job.id, job, target, bool(options.preview))
    screen.made([result])
    return REFUSED if result.problem else DONE


def _link(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    screen.link(client.link(options.id, options.format))
    return DONE


def _wait(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    folder = None if options.output is None else _folder(options.output)
    if folder is not None:
        _check_writable(folder / options.id)
    value = _waited(client, options.id, {}, screen)
    if folder is None:
        screen.state(value)
        return DONE if value.succeeded else REFUSED
    results = [
        _fetched(client, job.id, job, folder / f"{job.id}.{job.metadata.get('format', 'glb')}", bool(options.preview))
        for job in _jobs_of(value)
    ]
    screen.made(results)
    return REFUSED if any(result.problem for result in results) else DONE


def _status(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    screen.state(client.status(options.id))
    return DONE


def _events(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    value: Job | Batch | None = None
    for value in client.events(options.id):
        screen.state(value)
    return DONE if value is not None and value.succeeded else REFUSED


def _preview(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    screen.file(client.preview(options.id, options.output or Path()))
    return DONE


def _mcp(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    missing = next((folder for folder in options.folder if not folder.is_dir()), None)
    if missing is not None:
        raise ClientError(f"{missing} is no folder.")
    screen.note("Speaking MCP on standard input and output.")
    client.mcp_bridge(options.folder, sys.stdout).run(sys.stdin)
    return DONE


def _cancel(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    screen.state(client.cancel(options.id))
    return DONE


def _jobs(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    query = {name: getattr(options, name) for name in ("limit", "cursor", "status", "label")}
    screen.page(client.jobs(**query))
    return DONE


def _download(client: AgentClient, options: argparse.Namespace, screen: Screen) -> int:
    screen.file(client.download(options.source, options.output or Path()))
    return DONE


def _health(client: AgentClient, _options: argparse.Namespace, screen: Screen) -> int:
    health = client.health()
    screen.health(health)
    return DONE if health.ok else REFUSED


def _jobs_of(value: Job | Batch) -> Sequence[Job]:
    return value.jobs if isinstance(value, Batch) else (value,)


def _groups(images: int) -> Iterator[range]:
    """Places of pictures to be sent together: as few groups as may be, about equally large."""
    groups = -(-images // MAX_IMAGES)
    bounds = [images * number // groups for number in range(groups + 1)]
    return (range(start, end) for start, end in pairwise(bounds))


def _called(image: Path | ImageUrl) -> str:
    return image.url if isinstance(image, ImageUrl) else str(image)


def _targets(images: Sequence[Path | ImageUrl], folder: Path, fields: Fields) -> list[Path]:
    """Name a file for each picture, called as it is; the second of a name gets '-2', and so on."""
    taken: set[str] = set()

    def take(name: str) -> bool:
        # Some file systems hold upper and lower case for the same.
        free = name.casefold() not in taken
        taken.add(name.casefold())
        return free

    names = [first_free(image.stem or "picture", take) for image in images]
    format = fields.get("format", "glb").partition(",")[0]
    return [folder / f"{name}.{format}" for name in names]


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise LocalFileError(f"The folder {path} cannot be made: {failure.strerror or failure}.") from failure
    return path


def _format_of(output: Path, asked: str | None) -> str:
    """Return the format for a file of this name. Raises ClientError when the name says another one, or none."""
    suffix = output.suffix[1:].lower()
    if asked is None and suffix not in FORMATS:
        raise ClientError(f"{output} says no format: end its name in one of {', '.join(FORMATS)}, or give --format.")
    first = (asked or "").partition(",")[0]
    if asked is not None and suffix in FORMATS and suffix != first:
        raise ClientError(f"{output} would be called {suffix} and be {first}: give --format {suffix}, or another name.")
    return asked or suffix


def _check_writable(target: Path) -> None:
    """See that a file can be written there, before anything is asked for. Raises LocalFileError."""
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as failure:
        raise LocalFileError(f"{target} cannot be written: {failure.strerror or failure}.") from failure


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Make 3D meshes of pictures at an ORFEAS service.",
        epilog="Exit codes: 0 done, 1 refused or a picture failed, 2 bad options, 3 no service answers, "
        "4 a file here cannot be read or written, 130 interrupted.",
    )
    add = parser.add_argument
    add("--url", default=environ.get("ORFEAS_URL") or DEFAULT_URL, help=f"ORFEAS_URL, else {DEFAULT_URL}")
    add("--agent-id", default=environ.get("ORFEAS_AGENT_ID"), metavar="ID", help="default: ORFEAS_AGENT_ID")
    add("--api-key", default=environ.get("ORFEAS_API_KEY"), metavar="KEY", help="default: ORFEAS_API_KEY, better there")
    add("--retries", type=int, default=5, metavar="N", help="tries after the first (default: %(default)s)")
    outage_help = "seconds to go on asking for a job while the service is away (default: %(default)s)"
    add("--outage", type=float, default=300, metavar="S", help=outage_help)
    add("--json", action="store_true", help="results as JSON")
    _add_commands(parser)
    return parser


def _add_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        # It is looked for on either side of the command.
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return sub

    generate = command("generate", _generate, "make the mesh of one picture")
    generate.add_argument("image", nargs="?", metavar="PICTURE", type=Path, help="picture file with one object on it")
    generate.add_argument("--image-url", metavar="URL", help="have the service fetch the picture, if it does so")
    add_views(generate)
    generate.add_argument("-o", "--output", type=Path, metavar="FILE", help="file or folder (default: here)")
    add_fields(generate)
    again = command("again", _again, "make an earlier picture's mesh anew, with the options that are given changed")
    again.add_argument("id", help="the earlier job's id")
    again.add_argument("-o", "--output", type=Path, metavar="FILE", help="file or folder (default: here, by its id)")
    add_fields(again)
    link = command("link", _link, "show an address at which anybody may fetch a mesh, or a batch, for about an hour")
    link.add_argument("id", help="a job's or batch's id")
    link.add_argument("-f", "--format", choices=FORMATS, help="of a job's meshes (default: the main one)")
    batch = command("batch", _batch, "make the meshes of several pictures")
    batch.add_argument("images", type=Path, nargs="+", metavar="PICTURE", help="any number; sent by up to ten")
    batch.add_argument("-o", "--output", type=Path, default=Path(), metavar="FOLDER", help="default: here")
    partial = "make the meshes of the good pictures when others are bad (default: of none then)"
    batch.add_argument("--accept-partial", action="store_true", help=partial)
    add_fields(batch)
    _add_cutout(command)
    wait = command("wait", _wait, "wait for a job or batch that was sent before")
    wait.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="fetch the meshes as well")
    wait.add_argument("--preview", action="store_true", help="with -o: fetch the pictures of the meshes as well")
    status, cancel = (
        command("status", _status, "show a job or batch"),
        command("cancel", _cancel, "cancel a job or batch"),
    )
    _add_listening(command)
    for sub in (wait, status, cancel):
        sub.add_argument("id", help="a job's or batch's id")
    jobs = command("jobs", _jobs, "list this agent's jobs, newest first")
    jobs.add_argument("--limit", type=int, metavar="N", help="1 to 100 (default: 20)")
    jobs.add_argument("--cursor", help="go on after an earlier list")
    jobs.add_argument("--status", metavar="STATE", help="only jobs in this state, or in one of several with commas")
    jobs.add_argument("--label", metavar="TEXT", help="only jobs with this in their label")
    download = command("download", _download, "fetch a mesh, or all of a batch as a zip")
    download.add_argument("source", help="a download_url, a file's name, or BATCH_ID.zip")
    download.add_argument("-o", "--output", type=Path, metavar="FILE", help="file or folder (default: here)")
    command("health", _health, "how the service is; needs no agent")


def _add_cutout(command: Callable[..., argparse.ArgumentParser]) -> None:
    cutout = command("cutout", _cutout, "cut the object out of one picture, to look at before a mesh is made")
    cutout.add_argument("image", metavar="PICTURE", type=Path, help="as for generate")
    cutout.add_argument("-o", "--output", type=Path, metavar="FILE", help="PNG file or folder (default: here)")
    cutout.add_argument("--remove-background", choices=("auto", "always", "never"), help="default: auto")
    cutout.add_argument("--objects", choices=("all", "largest"), help="which objects are kept (default: all)")


def _add_listening(command: Callable[..., argparse.ArgumentParser]) -> None:
    events = command("events", _events, "show each state of a job or batch as it comes, until it has finished")
    preview = command("preview", _preview, "fetch the picture of a finished job's mesh")
    preview.add_argument("-o", "--output", type=Path, metavar="FILE", help="file or folder (default: here)")
    mcp = command("mcp", _mcp, "speak the Model Context Protocol on standard input and output, for a host to start")
    folder_help = "pictures below this folder may be named by their paths; repeat it for more (default: none)"
    mcp.add_argument("--folder", type=Path, action="append", default=[], metavar="FOLDER", help=folder_help)
    for sub in (events, preview):
        sub.add_argument("id", help="a job's or batch's id")
