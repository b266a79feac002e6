"""What one part of an installation needs beyond the rest: a worker its broker, a backup its programs, agents a way in.

This module does not know the other checks.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from contextlib import closing

import requests
from sqlalchemy import text

from backend import __version__
from backend.cli.doctor.checks import WrongError
from backend.config import Settings
from backend.storage.database import Database

_ANSWER_SECONDS = 6.0
_CLUSTER_PACKAGES = ("celery", "redis", "psycopg")


def look_at_broker(settings: Settings) -> str:
    """Tell that a worker of `make worker` can be woken. Raises WrongError."""
    missing = [name for name in _CLUSTER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise WrongError(
            f"The packages {', '.join(missing)} are missing: run `make cluster`, or pip install 'orfeas[cluster]'."
        )
    if not settings.broker_url:
        raise WrongError("CELERY_BROKER_URL names no Redis: a worker is woken through it, web processes need the same.")
    return "A worker's packages are there, and CELERY_BROKER_URL names what wakes it."


def look_at_backup_programs(settings: Settings) -> str:
    """Tell that `orfeas backup` can copy the database. Raises WrongError, ServiceError."""
    with closing(Database.open(settings.database_url)) as database:
        if database.is_sqlite:
            return "A SQLite database is copied without any other program."
        with database.read() as connection:
            server = _major(str(connection.execute(text("SHOW server_version")).scalar_one()))
    for name in ("pg_dump", "pg_restore"):
        path = shutil.which(name)
        if path is None:
            raise WrongError(f"{name} is not here: install PostgreSQL's client programs, version {server} or later.")
        found = _major(subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout)  # noqa: S603
        if found < server:
            raise WrongError(
                f"{name} is of version {found}, the server of {server}: install its clients, or later ones."
            )
    return f"pg_dump and pg_restore are there, for a server of version {server}."


def look_at_proxy(settings: Settings) -> str:
    """Tell that agents reach this version at PUBLIC_URL, and nobody its metrics. Raises WrongError."""
    if not settings.public_url:
        raise WrongError("PUBLIC_URL is not set: name the address at which agents reach the service.")
    found = _json_of(_get(settings.public_url, "/api/agent/health")).get("version")
    if found != __version__:
        other = f"version {found}" if found else "something else than ORFEAS"
        raise WrongError(f"{settings.public_url} leads to {other}: see where the proxy sends requests.")
    metrics = _get(settings.public_url, "/metrics")
    if metrics.status_code == requests.codes.ok:
        raise WrongError(
            f"{settings.public_url}/metrics is shown to whoever asks: deny it in the proxy, or set TRUSTED_PROXIES."
        )
    code = _json_of(_get(settings.public_url, "/api/agent/me")).get("code")
    if code not in ("AUTH_MISSING", "RATE_LIMITED") and settings.auth_enabled:
        raise WrongError(
            f"An unsigned call through {settings.public_url} was answered {code}: see that /api is passed on."
        )
    return f"{settings.public_url} leads here, and its metrics are hidden."


def _get(address: str, path: str) -> requests.Response:
    try:
        return requests.get(f"{address}{path}", timeout=_ANSWER_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise WrongError(
            f"{address} does not answer ({type(error).__name__}): see that the proxy runs, the name leads to it, and "
            "that its certificate is good."
        ) from error


def _json_of(answer: requests.Response) -> dict[str, object]:
    try:
        told = json.loads(answer.content)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _major(version: str) -> int:
    found = re.search(r"\d+", version)
    return int(found[0]) if found else 0
