"""`orfeas serve`: see that the service can start, make the first agent, and become gunicorn.

Nothing is written before everything else that may fail has passed. This module does not know what is served, or how
gunicorn is set up: backend/serve/gunicorn_conf.py says that.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from backend.auth.agents import load_agents
from backend.auth.agents_file import add_agent
from backend.config import Settings
from backend.errors import ServiceError
from backend.serve.checks import check_address, check_data_dir, check_model, check_schema, has_agents
from backend.studio.invitation import invite

FIRST_AGENT_ID = "agent-1"
GUNICORN = ("-m", "gunicorn", "--config", "python:backend.serve.gunicorn_conf", "backend.main:create_app()")
"""Arguments of Python; docker/entrypoint.sh starts the same."""

SAY_READY = "ORFEAS_SAY_READY"
"""Variable that has the service say on standard output, for people, when it is ready; its log says so anyway."""

CANNOT_START = 2
_SAMPLE = Path("samples", "mug.png")


def become_gunicorn(program: str, arguments: list[str]) -> None:
    """Replace this process by another program, which then says when it is ready; does not return."""
    os.execve(program, arguments, {**os.environ, SAY_READY: "1"})  # noqa: S606


def run(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    output: TextIO,
    become: Callable[[str, list[str]], object] = become_gunicorn,
) -> int:
    """Start the service as this very process; return 2, with one sentence on standard error, when it cannot start.

    become : takes a program and its arguments, and does not return when it succeeds
    """
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_environment(environ)
        if options.only_check:
            check_data_dir(settings.data_dir)
            _require_agents(settings)
            return 0
        _check(settings)
        # Last: a key that was shown belongs to a service that runs.
        key = first_agent(settings)
    except ServiceError as error:
        sys.stderr.write(f"{error.message}\n")
        return CANNOT_START
    output.write(_welcome(settings, key))
    # A log is read by others; a terminal by who sits there.
    if output.isatty():
        output.write(_invitation(settings))
    # What becomes of this process does not flush what was written before.
    output.flush()
    become(sys.executable, [sys.executable, *GUNICORN])
    return 0


def first_agent(settings: Settings) -> str | None:
    """Make an agent called FIRST_AGENT_ID when there is none, and return its key; None when there are agents.

    Raises AgentsFileError when the agents file cannot be used.
    """
    if not settings.auth_enabled or has_agents(settings):
        return None
    return add_agent(settings.agents_file, FIRST_AGENT_ID, name="made by the first start")


def _check(settings: Settings) -> None:
    """See that the service can boot: first what is only read, then what may be written. Raises ServiceError."""
    check_address(settings.host, settings.port)
    check_model(settings)
    has_key = not settings.auth_enabled or has_agents(settings)
    check_data_dir(settings.data_dir)
    check_schema(settings, must_answer=not has_key)


def _require_agents(settings: Settings) -> None:
    if settings.auth_enabled:
        load_agents(settings.agents_file)


def _welcome(settings: Settings, key: str | None) -> str:
    """Return what a start says: where it serves, and lines to copy for who calls it first."""
    starting = f"Starting on {_url(settings.host, settings.port)} with data in {settings.data_dir.resolve()}.\n"
    if key is None:
        return starting
    address = [] if settings.port == 0 else [f"export ORFEAS_URL={_url(_reachable(settings.host), settings.port)}"]
    lines = [
        *address,
        f"export ORFEAS_AGENT_ID={FIRST_AGENT_ID}",
        f"export ORFEAS_API_KEY={key}",
        f"{_client_command()} generate {_SAMPLE if _SAMPLE.is_file() else 'picture.png'} -o {_SAMPLE.stem}.glb",
    ]
    copied = "".join(f"  {line}\n" for line in lines)
    return (
        f"{starting}There was no agent yet, so one was made. Its key is shown now and never again. "
        f"Once the service is ready, copy these lines into another terminal:\n\n{copied}\n"
    )


def _invitation(settings: Settings) -> str:
    """Return where the studio is, with the code that opens it; nothing where no browser of this machine could."""
    try:
        address = invite(settings)
    except ServiceError:
        return ""
    return f"The studio, once the service is ready; the address is good once, for ten minutes:\n\n  {address}\n\n"


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if host.count(":") > 1 and "[" not in host else f"http://{host}:{port}"


def _reachable(host: str) -> str:
    """Return an address of this machine at which a service on this host answers."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host)  # noqa: S104


def _client_command() -> str:
    """Return how the client is called here: by its name where that is found, else as a module."""
    if shutil.which("orfeas-client"):
        return "orfeas-client"
    beside, python = Path(sys.executable).with_name("orfeas-client"), Path(sys.executable)
    if beside.is_file():
        return _short(beside)
    return f"{_short(python)} -m orfeas_client"


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orfeas serve", description="Serve agents; settings: README.md.")
    parser.add_argument("--only-check", action="store_true", help="say whether the service can start, and end")
    return parser


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], os.environ, sys.stdout))
