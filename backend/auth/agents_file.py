"""Changes to the agents file: each is made under a lock and written whole, or not at all.

This module does not know who reads the file, or how its changes are asked for.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from backend.auth.agents import DEFAULT_OPERATIONS, FORMAT, MAX_KEYS, AgentDefaults, parse_agent, read_entries
from backend.errors import AgentExists, AgentNotFound, AgentsFileError
from orfeas_client.atomic_file import write_file

_LOCK_SECONDS = 30


def add_agent(
    path: Path,
    agent_id: str,
    *,
    name: str = "",
    operations: Iterable[str] = DEFAULT_OPERATIONS,
    rate_limit: int | None = None,
    batch_rate_limit: int | None = None,
    max_active_jobs: int | None = None,
    allowed_ips: Iterable[str] = (),
) -> str:
    """Add an agent, making the file where there is none; return its key, which is shown nowhere else.

    A limit that is None is the service's own; allowed_ips : addresses or networks, none = anywhere
    Raises AgentExists, AgentsFileError.
    """
    key = _new_key()
    limits = {"rate_limit": rate_limit, "batch_rate_limit": batch_rate_limit, "max_active_jobs": max_active_jobs}

    def change(entries: dict[str, Any]) -> None:
        if agent_id in entries:
            raise AgentExists(f"There is already an agent {agent_id!r} in {path}.")
        entries[agent_id] = {
            "name": name,
            "api_keys": [key],
            "operations": list(operations),
            "allowed_ips": list(allowed_ips),
            "enabled": True,
            **{limit: value for limit, value in limits.items() if value is not None},
        }

    _edit(path, change, create=True)
    return key


def rotate_agent(path: Path, agent_id: str, keep: int = 1) -> str:
    """Give an agent a new key, accepting `keep` of its latest ones beside it. Raises AgentNotFound, AgentsFileError."""
    if not 0 <= keep < MAX_KEYS:
        raise AgentsFileError(f"From 0 to {MAX_KEYS - 1} of an agent's older keys can be kept.")
    key = _new_key()

    def change(entries: dict[str, Any]) -> None:
        entry = _existing(path, entries, agent_id)
        entry["api_keys"] = [key, *entry["api_keys"][:keep]]

    _edit(path, change)
    return key


def set_enabled(path: Path, agent_id: str, enabled: bool) -> None:
    """Let an agent in or keep it out. Raises AgentNotFound, AgentsFileError."""

    def change(entries: dict[str, Any]) -> None:
        _existing(path, entries, agent_id)["enabled"] = enabled

    _edit(path, change)


def remove_agent(path: Path, agent_id: str) -> None:
    """Forget an agent and its keys. Raises AgentNotFound, AgentsFileError."""

    def change(entries: dict[str, Any]) -> None:
        _existing(path, entries, agent_id)
        del entries[agent_id]

    _edit(path, change)


def _new_key() -> str:
    return secrets.token_urlsafe(32)


def _existing(path: Path, entries: dict[str, Any], agent_id: str) -> dict[str, Any]:
    if agent_id not in entries:
        raise AgentNotFound(f"There is no agent {agent_id!r} in {path}.")
    entry: dict[str, Any] = entries[agent_id]
    return entry


def _edit(path: Path, change: Callable[[dict[str, Any]], None], *, create: bool = False) -> None:
    # A link stays a link: the file it leads to is the one replaced.
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS, mode=0o600):
            entries = {} if create and not path.exists() else read_entries(path)
            _require_usable(entries)
            change(entries)
            _require_usable(entries)
            text = json.dumps({"format": FORMAT, "agents": entries}, indent=2, ensure_ascii=False) + "\n"
            write_file(path, text.encode(), private=True, folder_flush="required")
    except OSError as error:
        raise AgentsFileError(f"The agents file {path} cannot be written: {error.strerror or error}.") from error


def _require_usable(entries: dict[str, Any]) -> None:
    for agent_id, entry in entries.items():
        parse_agent(agent_id, entry, AgentDefaults())
