"""`python -m backend.serve`: sees that the service can start, makes the first agent, and becomes gunicorn.

This module does not know what is served, or how gunicorn is set up: backend/serve/gunicorn_conf.py says that.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from backend.auth.agents import load_agents
from backend.auth.agents_file import add_agent
from backend.config import Settings
from backend.errors import ConfigurationError, ServiceError

FIRST_AGENT_ID = "agent-1"
GUNICORN = ("-m", "gunicorn", "--config", "python:backend.serve.gunicorn_conf", "backend.main:create_app()")
"""Arguments of Python; docker/entrypoint.sh starts the same."""

CANNOT_START = 2


def run(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    output: TextIO,
    become: Callable[[str, list[str]], object] = os.execv,
) -> int:
    """Start the service as this very process; give 2, with one sentence on standard error, when it cannot start.

    become : takes a program and its arguments, and does not return when it succeeds
    """
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_environment(environ)
        check_data_dir(settings.data_dir)
        if options.only_check:
            _check_agents(settings)
            return 0
        # After everything else that may fail: a key that was shown belongs to a service that runs.
        check_address(settings.host, settings.port)
        _welcome(settings, output)
    except ServiceError as error:
        sys.stderr.write(f"{error.message}\n")
        return CANNOT_START
    become(sys.executable, [sys.executable, *GUNICORN])
    return 0


def first_agent(settings: Settings) -> str | None:
    """Make an agent called FIRST_AGENT_ID when there is none, and give its key; None when there are agents.

    Raises AgentsFileError when the agents file cannot be used.
    """
    if not settings.auth_enabled or (settings.agents_file.exists() and load_agents(settings.agents_file)):
        return None
    return add_agent(settings.agents_file, FIRST_AGENT_ID, name="made by the first start")


def check_data_dir(folder: Path) -> None:
    """See that files can be written in the data folder, making it for its owner alone where there is none.

    Raises ConfigurationError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {folder} cannot be written ({error.strerror}): let user {os.geteuid()} write there, or "
            "name another folder with ORFEAS_DATA_DIR."
        ) from error


def check_address(host: str, port: int) -> None:
    """See that this machine can listen there. Raises ConfigurationError."""
    bare = host.strip("[]")
    try:
        family, kind, _, _, address = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As gunicorn binds: connections of a service that has just stopped do not hold the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigurationError(_why_not_there(host, port, error)) from error


def _why_not_there(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken by another program: stop that, or choose another port with PORT."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"User {os.geteuid()} may not listen on port {port}: choose one from 1024 up with PORT."
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"This machine has no address {host!r}: set HOST to one that it has, or to 127.0.0.1."
    return f"Nothing can listen on port {port} of {host}: {error.strerror}."


def _check_agents(settings: Settings) -> None:
    if settings.auth_enabled:
        load_agents(settings.agents_file)


def _welcome(settings: Settings, output: TextIO) -> None:
    key = first_agent(settings)
    if key is not None:
        output.write(
            f"There was no agent yet, so one was made. Its key is shown now and never again:\n\n"
            f"  agent id  {FIRST_AGENT_ID}\n  api key   {key}\n\n"
        )
    host = f"[{settings.host}]" if settings.host.count(":") > 1 and "[" not in settings.host else settings.host
    output.write(f"Serving on http://{host}:{settings.port} with data in {settings.data_dir.resolve()}.\n")
    # What becomes of this process does not flush what was written before.
    output.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orfeas serve", description="Serve agents; settings: README.md.")
    parser.add_argument("--only-check", action="store_true", help="say whether the service can start, and end")
    return parser


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], os.environ, sys.stdout))
