"""Changes to the agents file: each is made under a lock and written whole, or not at all.

A file of format 1 becomes one of format 2 with its first change. This module does not know who reads the file, or how
its changes are asked for.
"""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from backend.auth.agent_config import (
    DEFAULT_OPERATIONS,
    MAX_KEYS,
    MAX_TOKENS,
    SECRET_MARK,
    AgentConfig,
    AgentDefaults,
)
from backend.auth.agents_format import FORMAT, AgentsDocument, parse_agents, read_document
from backend.auth.bearer_tokens import hash_of, name_of, new_token
from backend.errors import AgentExists, AgentNotFound, AgentsFileError
from orfeas_client.atomic_file import write_file

MAX_REMOVED = 1000
"""Removed agents whose internal ids are kept, so that their jobs are cancelled whenever they are found."""

_LOCK_SECONDS = 30
_SECRET_BYTES = 32


def add_agent(
    path: Path,
    agent_id: str,
    *,
    name: str = "",
    operations: Iterable[str] = DEFAULT_OPERATIONS,
    rate_limit: int | None = None,
    batch_rate_limit: int | None = None,
    status_rate_limit: int | None = None,
    max_active_jobs: int | None = None,
    daily_jobs: int | None = None,
    allowed_ips: Iterable[str] = (),
    webhook_prefixes: Iterable[str] = (),
) -> str:
    """Add an agent, making the file where there is none; return its key, which is shown nowhere else.

    A limit that is None is the service's own, or none where the service has none; allowed_ips : addresses or networks,
    none = anywhere. Its internal id is drawn: jobs of an agent that had the same id before are not its.
    Raises AgentExists, AgentsFileError.
    """
    key = _new_key()
    limits = {
        "rate_limit": rate_limit,
        "batch_rate_limit": batch_rate_limit,
        "status_rate_limit": status_rate_limit,
        "max_active_jobs": max_active_jobs,
        "daily_jobs": daily_jobs,
    }

    def change(entries: dict[str, Any]) -> None:
        if agent_id in entries:
            raise AgentExists(f"There is already an agent {agent_id!r} in {path}.")
        entries[agent_id] = {
            "internal_id": uuid.uuid4().hex,
            "name": name,
            "api_keys": [key],
            "operations": list(operations),
            "allowed_ips": list(allowed_ips),
            "enabled": True,
            "webhook_prefixes": list(webhook_prefixes),
            **{limit: value for limit, value in limits.items() if value is not None},
        }

    _edit(path, change, create=True)
    return key


def update_agent(path: Path, agent_id: str, changes: Mapping[str, object]) -> None:
    """Change fields of an agent's entry; None takes a field out of it, so that the service's own value holds.

    Raises AgentNotFound, AgentsFileError.
    """

    def change(entries: dict[str, Any]) -> None:
        entry = _existing(path, entries, agent_id)
        entries[agent_id] = {name: value for name, value in {**entry, **changes}.items() if value is not None}

    _edit(path, change)


def new_webhook_secret() -> str:
    """Return a secret that webhooks can be signed with, in Standard Webhooks' form."""
    return SECRET_MARK + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


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


def find_agent(path: Path, agent_id: str) -> AgentConfig:
    """Return an agent as the file has it now. Raises AgentNotFound, AgentsFileError."""
    found = parse_agents(read_document(path), AgentDefaults()).get(agent_id)
    if found is None:
        raise AgentNotFound(f"There is no agent {agent_id!r} in {path}.")
    return found


def add_token(path: Path, agent_id: str) -> str:
    """Give an agent one more token; return it: only its hash is kept. Raises AgentNotFound, AgentsFileError."""
    token = new_token()

    def change(entries: dict[str, Any]) -> None:
        entry = _existing(path, entries, agent_id)
        hashes = entry.get("token_hashes", [])
        if len(hashes) >= MAX_TOKENS:
            raise AgentsFileError(f"{agent_id} has {MAX_TOKENS} tokens, the most there may be: revoke one first.")
        entry["token_hashes"] = [*hashes, hash_of(token)]

    _edit(path, change)
    return token


def revoke_tokens(path: Path, agent_id: str, name: str | None = None) -> int:
    """Take an agent's token of this name away, all of them for None; return how many it were.

    Raises AgentNotFound, AgentsFileError, also when there is no such token.
    """
    revoked = 0

    def change(entries: dict[str, Any]) -> None:
        nonlocal revoked
        entry = _existing(path, entries, agent_id)
        hashes = entry.get("token_hashes", [])
        kept = [] if name is None else [each for each in hashes if name_of(each) != name]
        revoked = len(hashes) - len(kept)
        if name is not None and not revoked:
            raise AgentsFileError(f"{agent_id} has no token {name[:40]!r}.")
        entry["token_hashes"] = kept

    _edit(path, change)
    return revoked


def set_enabled(path: Path, agent_id: str, enabled: bool) -> None:
    """Let an agent in or keep it out. Raises AgentNotFound, AgentsFileError."""
    update_agent(path, agent_id, {"enabled": enabled})


def remove_agent(path: Path, agent_id: str) -> None:
    """Forget an agent and its keys; its internal id stays in the file, so that a service cancels its jobs.

    Raises AgentNotFound, AgentsFileError.
    """

    def change(entries: dict[str, Any]) -> None:
        _existing(path, entries, agent_id)
        del entries[agent_id]

    _edit(path, change)


def _new_key() -> str:
    """Draw a key; none begins with a dash, which command lines take for an option: one in 64 did."""
    while (key := secrets.token_urlsafe(32)).startswith("-"):
        pass
    return key


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
            before = AgentsDocument({}) if create and not path.exists() else read_document(path)
            known = parse_agents(before, AgentDefaults())
            entries = dict(before.entries)
            change(entries)
            agents = parse_agents(AgentsDocument(entries), AgentDefaults())
            gone = [known[agent_id].internal_id for agent_id in known.keys() - agents.keys()]
            removed = [*before.removed, *gone][-MAX_REMOVED:]
            document = {"format": FORMAT, "agents": entries, "removed": removed}
            text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
            write_file(path, text.encode(), private=True, folder_flush="required")
    except OSError as error:
        raise AgentsFileError(f"The agents file {path} cannot be written: {error.strerror or error}.") from error
