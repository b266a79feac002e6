"""What is looked at before the service starts: each check passes, or raises a sentence that says what to do.

This module does not know in which order that happens, or what is served.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from pathlib import Path

from backend.auth.agents import load_agents
from backend.config import Settings
from backend.errors import ConfigurationError, DatabaseDamaged, StoreUnavailable
from backend.storage.migrations import migrate


def has_agents(settings: Settings) -> bool:
    """Return whether there is an agent that could call. Raises AgentsFileError when the file cannot be used."""
    return settings.agents_file.exists() and bool(load_agents(settings.agents_file))


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


def check_model(settings: Settings) -> None:
    """See that the checkpoint is where the settings say, if this service runs jobs; nothing is fetched.

    Raises CheckpointNotFound.
    """
    name = settings.model_path
    if not settings.worker_enabled or (name == "demo" and not settings.model_subfolder):
        return
    # Here, because it imports torch, which the bundled checkpoint's start need not wait for.
    from backend.hunyuan3d.checkpoint.files import SHORT_NAMES, locate

    is_repository = name in SHORT_NAMES or ("/" in name and not name.startswith(("/", ".", "~")))
    if name == "demo" or Path(name).expanduser().exists() or not is_repository:
        locate(name, settings.model_subfolder or None)


def check_schema(settings: Settings, *, must_answer: bool) -> None:
    """See that the database's tables are this release's, making or migrating them where that can be done.

    must_answer : whether a database that is away counts; otherwise the service waits for it
    Raises SchemaMismatch, DatabaseUrlError, DatabaseDamaged, StorageFull, and StoreUnavailable if that counts.
    """
    try:
        migrate(settings.database_url)
    except DatabaseDamaged:
        raise
    except StoreUnavailable:
        if must_answer:
            raise


def _why_not_there(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken by another program: stop that, or choose another port with PORT."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"User {os.geteuid()} may not listen on port {port}: choose one from 1024 up with PORT."
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"This machine has no address {host!r}: set HOST to one that it has, or to 127.0.0.1."
    return f"Nothing can listen on port {port} of {host}: {error.strerror}."
