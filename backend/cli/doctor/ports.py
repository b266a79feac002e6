"""Ports to listen on: free, or held by a service of ours.

This module does not know what is served there.
"""

from __future__ import annotations

import http.client
import json

from backend.cli.doctor.checks import WrongError
from backend.config import Settings
from backend.errors import ConfigurationError
from backend.serve.checks import check_address

_ANSWER_SECONDS = 3.0


def look_at_port(settings: Settings) -> str:
    """Tell that the service's port is free or its own. Raises WrongError, ConfigurationError."""
    host, port = settings.host, settings.port
    try:
        check_address(host, port)
    except ConfigurationError:
        version = running_version(host, port)
        if version is None:
            raise
        return f"Port {port} of {host} is held by a running ORFEAS {version}."
    return f"Port {port} of {host} is free." if port else f"Any free port of {host} will be taken."


def look_at_metrics_port(settings: Settings) -> str:
    """Tell that a worker's metrics port is free. Raises WrongError."""
    if not settings.metrics_port:
        return "A worker opens none: METRICS_PORT is 0."
    try:
        check_address(settings.metrics_host, settings.metrics_port)
    except ConfigurationError as error:
        if _get(settings.metrics_host, settings.metrics_port, "/metrics").find(b"orfeas_") >= 0:
            return f"Port {settings.metrics_port} of {settings.metrics_host} is held by a running worker."
        raise WrongError(
            f"Port {settings.metrics_port} of {settings.metrics_host} cannot be opened for a worker's metrics: choose "
            "another with METRICS_PORT, one for each worker of a machine."
        ) from error
    return f"Port {settings.metrics_port} of {settings.metrics_host} is free."


def running_version(host: str, port: int) -> str | None:
    """Return the version of the service that answers there; None where none of ours does."""
    try:
        answer = json.loads(_get(host, port, "/api/agent/health"))
        return str(answer["version"]) if "queue_size" in answer else None
    except (ValueError, KeyError, TypeError):
        return None


def _get(host: str, port: int, path: str) -> bytes:
    """Return what is answered; nothing when nobody does in time."""
    bare = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104
    connection = http.client.HTTPConnection(bare, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().read(1 << 20)
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
