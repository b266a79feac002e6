"""Who may call: the agents with their keys and rights, read from one file that only its owner may read.

The file is read again when it changes. This module does not know what a signature is, what a request carries, what time
it is, or how the file is written.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

from backend.auth.hmac_signing import AGENT_ID
from backend.config import IPNetwork
from backend.errors import AgentsFileError

OPERATIONS = ("generate", "batch", "status", "download", "admin")
DEFAULT_OPERATIONS = ("generate", "batch", "status", "download")
MAX_KEYS = 3
"""Keys an agent may have at once; every signature is compared with this many, whoever it claims to be from."""

FORMAT = 1
_KEY_LENGTHS = (24, 128)
_MAX_LIMIT = 1_000_000
_MAX_FILE_BYTES = 16 << 20
_OTHERS_MAY_USE = stat.S_IRWXG | stat.S_IRWXO

_Value = TypeVar("_Value")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AgentDefaults:
    """The limits of an agent whose entry names none."""

    rate_limit: int = 100
    batch_rate_limit: int = 10
    max_active_jobs: int = 20


@dataclass(frozen=True)
class AgentConfig:
    """One agent, with its limits as they apply. Raises AgentsFileError when it is not a possible one.

    api_keys : every accepted key, newest first; operations : some of OPERATIONS
    rate_limit, batch_rate_limit : a minute; max_active_jobs : unfinished jobs at once
    allowed_ips : networks it may call from; empty = anywhere
    """

    agent_id: str
    api_keys: tuple[str, ...] = field(repr=False)
    name: str = ""
    operations: frozenset[str] = frozenset(DEFAULT_OPERATIONS)
    rate_limit: int = AgentDefaults.rate_limit
    batch_rate_limit: int = AgentDefaults.batch_rate_limit
    max_active_jobs: int = AgentDefaults.max_active_jobs
    allowed_ips: tuple[IPNetwork, ...] = ()
    enabled: bool = True

    def __post_init__(self) -> None:
        low, high = _KEY_LENGTHS
        limits = (self.rate_limit, self.batch_rate_limit, self.max_active_jobs)
        rules = {
            "its id must be 1–64 of A-Z a-z 0-9 . _ - and begin with a letter or digit": bool(
                AGENT_ID.fullmatch(self.agent_id)
            ),
            f"it must have from 1 to {MAX_KEYS} keys": 1 <= len(self.api_keys) <= MAX_KEYS,
            f"a key must have from {low} to {high} ASCII characters": all(
                low <= len(key) <= high and key.isascii() and key.isprintable() for key in self.api_keys
            ),
            f"its operations must be some of {', '.join(OPERATIONS)}": self.operations <= set(OPERATIONS),
            f"its limits must be from 1 to {_MAX_LIMIT}": all(1 <= limit <= _MAX_LIMIT for limit in limits),
            "its name must be one line of at most 200 characters": len(self.name) <= 200 and self.name.isprintable(),
        }
        for rule, holds in rules.items():
            if not holds:
                raise AgentsFileError(f"Agent {self.agent_id[:80]!r} cannot be used: {rule}.")

    @property
    def api_key(self) -> str:
        """The newest key."""
        return self.api_keys[0]


class AgentRegistry:
    """The agents of a file as it last made sense. Raises AgentsFileError when it makes none at the start."""

    def __init__(self, path: Path, defaults: AgentDefaults | None = None) -> None:
        self._path = path
        self._defaults = defaults or AgentDefaults()
        self._lock = threading.Lock()
        self._seen = _fingerprint(path)
        self._agents = load_agents(path, self._defaults)

    def get(self, agent_id: str) -> AgentConfig | None:
        """Return the agent of this id, or None where there is no such agent.

        Each call checks whether the file changed, and reads it if so. A file that cannot be used is logged once, and
        the last good set stays.
        """
        if _fingerprint(self._path) != self._seen:
            self._reload()
        return self._agents.get(agent_id)

    def _reload(self) -> None:
        with self._lock:
            # Taken before the file is read: a change in between is then noticed by the next call.
            found = _fingerprint(self._path)
            if found == self._seen:
                return
            try:
                self._agents = load_agents(self._path, self._defaults)
            except AgentsFileError as error:
                logger.error("%s The agents known before stay in force.", error.message)
            self._seen = found


def load_agents(path: Path, defaults: AgentDefaults | None = None) -> Mapping[str, AgentConfig]:
    """Return every agent of a file, by id. Raises AgentsFileError."""
    limits = defaults or AgentDefaults()
    return {agent_id: parse_agent(agent_id, entry, limits) for agent_id, entry in read_entries(path).items()}


def read_entries(path: Path) -> dict[str, Any]:
    """Return the entries of an agents file as they stand in it, by agent id. Raises AgentsFileError."""
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
    if not isinstance(document, dict) or document.get("format") != FORMAT or set(document) != {"format", "agents"}:
        raise AgentsFileError(f'The agents file {path} is not {{"format": {FORMAT}, "agents": {{…}}}}.')
    return _typed(document["agents"], dict, f"The agents of {path} are not an object.")


def parse_agent(agent_id: str, entry: object, defaults: AgentDefaults) -> AgentConfig:
    """Return an agent out of its entry. Raises AgentsFileError, whose words never hold a value: it might be a key."""
    complaint = f"Agent {agent_id[:80]!r} cannot be used: its entry"
    fields = _typed(entry, dict, f"{complaint} is not an object.")
    limits = vars(defaults)
    unknown = set(fields) - {"name", "api_keys", "operations", "allowed_ips", "enabled", *limits}
    if unknown:
        raise AgentsFileError(f"{complaint} has {len(unknown)} fields that are not known; known are name, api_keys, …")
    try:
        networks = tuple(ip_network(text) for text in _texts(fields, "allowed_ips", [], complaint))
    except ValueError as error:
        raise AgentsFileError(f"{complaint} has something else than networks in allowed_ips.") from error
    return AgentConfig(
        agent_id=agent_id,
        api_keys=_texts(fields, "api_keys", [], complaint),
        name=_typed(fields.get("name", ""), str, f"{complaint} has a name that is not text."),
        operations=frozenset(_texts(fields, "operations", list(DEFAULT_OPERATIONS), complaint)),
        allowed_ips=networks,
        enabled=_typed(fields.get("enabled", True), bool, f"{complaint} has an enabled that is not true or false."),
        **{
            limit: _typed(fields.get(limit, default), int, f"{complaint} has a {limit} that is not a whole number.")
            for limit, default in limits.items()
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


def _fingerprint(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def _typed(value: object, kind: type[_Value], complaint: str) -> _Value:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise AgentsFileError(complaint)
    return value


def _texts(fields: dict[str, Any], name: str, default: list[str], complaint: str) -> tuple[str, ...]:
    complaint = f"{complaint} has {name} that are not a list of texts."
    return tuple(_typed(text, str, complaint) for text in _typed(fields.get(name, default), list, complaint))
