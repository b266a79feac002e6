"""The agents file as text: what its two formats may hold, and how an agent is read out of its entry.

Words of an error never hold a value: it might be a key. This module does not know who asks for an agent, or how the
file changes.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

from backend.auth.agent_config import DEFAULT_OPERATIONS, AgentConfig, AgentDefaults
from backend.errors import AgentsFileError

FORMAT = 2
OLD_FORMAT = 1
"""Without internal ids, quotas, webhooks and tokens; each agent's internal id is then its id."""

OPTIONAL_LIMITS = ("status_rate_limit", "daily_jobs")
_FIELDS = (
    "internal_id",
    "name",
    "api_keys",
    "operations",
    "allowed_ips",
    "enabled",
    "webhook_prefixes",
    "webhook_secret",
    "token_hashes",
)
_MAX_FILE_BYTES = 16 << 20
_OTHERS_MAY_USE = stat.S_IRWXG | stat.S_IRWXO

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class AgentsDocument:
    """An agents file as it stands: entries by agent id, and the internal ids of removed agents, newest last."""

    entries: dict[str, Any]
    removed: tuple[str, ...] = ()


def parse_agents(document: AgentsDocument, defaults: AgentDefaults) -> Mapping[str, AgentConfig]:
    """Return every agent of a document, by id. Raises AgentsFileError."""
    agents = {agent_id: parse_agent(agent_id, entry, defaults) for agent_id, entry in document.entries.items()}
    if len({agent.internal_id for agent in agents.values()}) < len(agents):
        raise AgentsFileError("Two agents of the agents file have the same internal_id: jobs would belong to both.")
    hashes = [token_hash for agent in agents.values() for token_hash in agent.token_hashes]
    if len(set(hashes)) < len(hashes):
        raise AgentsFileError("A token is listed twice in the agents file: nobody could say whose it is.")
    return agents


def read_document(path: Path) -> AgentsDocument:
    """Return an agents file as it stands, one of format 1 as if it were of format 2. Raises AgentsFileError."""
    document = _read_json(path)
    format, known = document.get("format"), {"format", "agents", "removed"}
    if format == OLD_FORMAT:
        known.remove("removed")
    if type(format) is not int or format not in (OLD_FORMAT, FORMAT) or not {"agents"} <= set(document) <= known:
        raise AgentsFileError(f'The agents file {path} is not {{"format": {FORMAT}, "agents": {{…}}, "removed": […]}}.')
    entries = _typed(document["agents"], dict, f"The agents of {path} are not an object.")
    if format == OLD_FORMAT:
        # Jobs that are there belong to the agents' ids.
        entries = {
            agent_id: {"internal_id": agent_id, **entry} if isinstance(entry, dict) else entry
            for agent_id, entry in entries.items()
        }
    return AgentsDocument(entries, _texts(document, "removed", [], f"The agents file {path}"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            _require_private(path, os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_FILE_BYTES)
        document = json.loads(content)
    except FileNotFoundError as error:
        raise AgentsFileError(
            f"There is no agents file {path}: create the first agent with `orfeas agents add AGENT_ID`."
        ) from error
    except OSError as error:
        raise AgentsFileError(f"The agents file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError):
        # The parser's error carries the whole file, keys and all, to wherever it is logged.
        raise AgentsFileError(f"The agents file {path} is not JSON.") from None
    return _typed(document, dict, f"The agents file {path} is not an object.")


def parse_agent(agent_id: str, entry: object, defaults: AgentDefaults) -> AgentConfig:
    """Return an agent out of its entry. Raises AgentsFileError, whose words never hold a value: it might be a key."""
    complaint = f"Agent {agent_id[:80]!r} cannot be used: its entry"
    fields = _typed(entry, dict, f"{complaint} is not an object.")
    limits = vars(defaults)
    unknown = set(fields) - {*_FIELDS, *limits, *OPTIONAL_LIMITS}
    if unknown:
        raise AgentsFileError(f"{complaint} has {len(unknown)} fields that are not known; known are name, api_keys, …")
    if not fields.get("internal_id"):
        raise AgentsFileError(f"{complaint} has no internal_id: add agents with `orfeas agents add`.")
    try:
        networks = tuple(ip_network(text) for text in _texts(fields, "allowed_ips", [], complaint))
    except ValueError as error:
        raise AgentsFileError(f"{complaint} has something else than networks in allowed_ips.") from error
    given = {limit: fields[limit] for limit in OPTIONAL_LIMITS if limit in fields}
    return AgentConfig(
        agent_id=agent_id,
        api_keys=_texts(fields, "api_keys", [], complaint),
        name=_text(fields, "name", complaint),
        operations=frozenset(_texts(fields, "operations", DEFAULT_OPERATIONS, complaint)),
        allowed_ips=networks,
        enabled=_typed(fields.get("enabled", True), bool, f"{complaint} has an enabled that is not true or false."),
        internal_id=_text(fields, "internal_id", complaint),
        webhook_prefixes=_texts(fields, "webhook_prefixes", [], complaint),
        webhook_secret=_text(fields, "webhook_secret", complaint),
        token_hashes=_texts(fields, "token_hashes", [], complaint),
        **{
            limit: _typed(value, int, f"{complaint} has a {limit} that is not a whole number.")
            for limit, value in {**limits, **{name: fields[name] for name in limits if name in fields}, **given}.items()
        },
    )


def _require_private(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise AgentsFileError(f"The agents file {path} is not a plain file.")
    if mode & _OTHERS_MAY_USE:
        raise AgentsFileError(
            f"The agents file {path} holds keys, and others than its owner may use it (mode {stat.S_IMODE(mode):04o}): "
            f"run `chmod 600 {path}`."
        )


def _typed(value: object, kind: type[_Value], complaint: str) -> _Value:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise AgentsFileError(complaint)
    return value


def _text(fields: Mapping[str, Any], name: str, complaint: str) -> str:
    return _typed(fields.get(name, ""), str, f"{complaint} has a {name} that is not text.")


def _texts(fields: Mapping[str, Any], name: str, default: Sequence[str], complaint: str) -> tuple[str, ...]:
    complaint = f"{complaint} has {name} that are not a list of texts."
    return tuple(_typed(text, str, complaint) for text in _typed(fields.get(name, list(default)), list, complaint))
