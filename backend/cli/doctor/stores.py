"""What outlives a process: the data folder, the agents, the database, Redis, and the pictures' and meshes' store.

Nothing stays of what is written to try it. This module does not know how any of them is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url, text

from backend.auth.agents import load_agents
from backend.auth.redis_client import redis_options
from backend.cli.doctor.checks import WrongError
from backend.cli.doctor.machine import existing
from backend.config import Settings
from backend.errors import DatabaseDamaged, SchemaMismatch, ServiceError
from backend.storage.database import Database, damage
from backend.storage.files import new_name, open_files
from backend.storage.migrations import advice_for, revisions


def look_at_data_folder(settings: Settings) -> str:
    """Tell where the data lie, and that they are for their owner alone. Raises WrongError."""
    folder = settings.data_dir.expanduser().absolute()
    if not folder.exists():
        _require_writable(existing(folder), "ORFEAS_DATA_DIR")
        return f"{folder} is not there yet; the first start makes it."
    if not folder.is_dir():
        raise WrongError(f"{folder} is a file: name a folder with ORFEAS_DATA_DIR.")
    _require_writable(folder, "ORFEAS_DATA_DIR")
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        raise WrongError(f"{folder} is open to other users (mode {mode:04o}): chmod 700 {folder}")
    return f"{folder} can be written, by its owner alone."


def look_at_agents(settings: Settings) -> str:
    """Tell how many agents there are. Raises WrongError, AgentsFileError."""
    path = settings.agents_file
    if not settings.auth_enabled:
        return "Requests need no signature: AGENT_AUTH_ENABLED=false."
    if not path.exists():
        return "There is none yet: the first `orfeas serve` makes one and shows its key."
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise WrongError(f"{path} holds keys and is open to other users (mode {mode:04o}): chmod 600 {path}")
    agents = load_agents(path)
    enabled = sum(agent.enabled for agent in agents.values())
    if not enabled:
        raise WrongError(f"No agent in {path} may call: orfeas agents add, or orfeas agents enable ID.")
    return f"{enabled} of {len(agents)} in {path} may call."


def look_at_database(settings: Settings) -> str:
    """Tell where the database is, and that its tables are this program's. Raises WrongError, ServiceError."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        _require_writable(existing(Path(str(url.database)).parent), "DATABASE_URL")
        return f"SQLite, {url.database}: not there yet; the first start makes it."
    database = Database.open(settings.database_url)
    try:
        where = _server_of(database, str(url.database), url.host)
        schema = _schema_of(database)
        if (found := damage(database)) is not None:
            raise WrongError(advice_for(settings.database_url, found))
        return f"{where}; {schema}"
    except DatabaseDamaged as error:
        raise WrongError(advice_for(settings.database_url, _reason(error).strip(" ()"))) from error
    except ServiceError as error:
        place = url.host or url.query.get("host") or url.database
        raise WrongError(
            f"The database at {place} does not answer{_reason(error)}: start it, or name one that runs in DATABASE_URL."
        ) from error
    finally:
        database.close()


def redis_addresses(settings: Settings) -> Mapping[str, str]:
    """Return each Redis that the settings name, by its URL, with the settings' names."""
    named: dict[str, list[str]] = {}
    for variable, url in (
        ("NONCE_STORE", settings.nonce_store),
        ("RATE_LIMIT_STORAGE_URL", settings.rate_limit_storage),
        ("CELERY_BROKER_URL", settings.broker_url),
    ):
        if url.startswith(("redis://", "rediss://")):
            named.setdefault(url, []).append(variable)
    return {url: " and ".join(variables) for url, variables in named.items()}


def look_at_redis(url: str, variables: str) -> str:
    """Tell that a Redis answers and may be written. variables : the settings that name it. Raises WrongError."""
    options = redis_options()
    import redis

    place = place_of(url)
    try:
        with redis.Redis.from_url(url, **options) as client:
            version = client.info("server")["redis_version"]
            client.set(key := f"orfeas:doctor:{os.getpid()}", "1", px=1000)
            client.delete(key)
    except redis.AuthenticationError as error:
        raise WrongError(f"Redis at {place} wants another password: see {variables}.") from error
    except (redis.RedisError, OSError) as error:
        raise WrongError(f"Redis at {place} does not answer ({error}): start it, or see {variables}.") from error
    return f"Redis {version} at {place} answers ({variables})."


def look_at_files(settings: Settings) -> str:
    """Tell that pictures and meshes can be stored, read and deleted. Raises WrongError, ConfigurationError."""
    place = settings.files_url
    if "://" not in place:
        folder = Path(place).expanduser().absolute()
        _require_writable(existing(folder), "FILES_URL")
        return f"In the folder {folder}."
    files, name = open_files(place, "artifacts"), new_name("glb")
    try:
        files.put(name, b"written by `orfeas doctor`")
        with files.open(name) as stream:
            stream.read()
        files.delete(name)
    except ServiceError as error:
        raise WrongError(
            f"{place_of(place)} of FILES_URL cannot be written, read and cleared{_reason(error)}: see that the bucket "
            "is there and that its credentials (AWS_ACCESS_KEY_ID and its like) may do all three."
        ) from error
    return f"In {place_of(place)}, written, read and cleared."


def _server_of(database: Database, name: str, host: str | None) -> str:
    if database.is_sqlite:
        return f"SQLite, {name}"
    with database.read() as connection:
        version = connection.execute(text("SHOW server_version")).scalar_one()
    return f"PostgreSQL {str(version).split()[0]}, {name} at {host or 'a local socket'}"


def _schema_of(database: Database) -> str:
    """Tell the schema's revision. Raises WrongError for another than this program's."""
    try:
        with database.read() as connection:
            found = revisions.read(connection)
    except SchemaMismatch as error:
        raise WrongError(f"{error.message} See CHANGELOG.md.") from error
    if found.empty:
        return "no tables yet; the first start makes them."
    if found.pending:
        raise WrongError(
            f"Its schema lacks the revisions {', '.join(found.pending)}: stop every process of the service, then run "
            "`orfeas migrate`."
        )
    return f"its schema is at revision {found.current}, as it is wanted."


def _require_writable(folder: Path, variable: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WrongError(
            f"User {os.geteuid()} may not write in {folder}: let that user, or name another place with {variable}."
        )


def _reason(error: BaseException) -> str:
    """Return the innermost cause's first line, in brackets; nothing without a cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f" ({lines[0]})" if lines and not isinstance(error, ServiceError) else ""


def place_of(url: str) -> str:
    """Return where a URL leads, without the password that may stand in it."""
    parts = urlsplit(url)
    if parts.scheme.startswith("redis"):
        return f"{parts.hostname}:{parts.port or 6379}"
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
