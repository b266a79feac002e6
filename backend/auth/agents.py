"""Who may call: the agents with their keys and rights, read from one file that only its owner may read.

The file is read again when it changes. Jobs belong to an agent's internal id: one that is removed and added anew under
the same id has another, and does not inherit them. This module does not know what a signature is, what a request
carries, what time it is, or how the file is written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backend.auth.agent_config import DEFAULT_OPERATIONS, MAX_KEYS, OPERATIONS, AgentConfig, AgentDefaults
from backend.auth.agents_format import parse_agents, read_document
from backend.errors import AgentsFileError

__all__ = [
    "DEFAULT_OPERATIONS",
    "MAX_KEYS",
    "OPERATIONS",
    "AgentConfig",
    "AgentDefaults",
    "AgentRegistry",
    "load_agents",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Known:
    """The agents of a file at one time, and the internal ids of those that are no more."""

    agents: Mapping[str, AgentConfig]
    removed: frozenset[str]
    by_internal_id: Mapping[str, AgentConfig] = field(init=False)
    by_token_hash: Mapping[str, AgentConfig] = field(init=False)

    def __post_init__(self) -> None:
        agents = self.agents.values()
        object.__setattr__(self, "by_internal_id", {agent.internal_id: agent for agent in agents})
        by_token_hash = {token_hash: agent for agent in agents for token_hash in agent.token_hashes}
        object.__setattr__(self, "by_token_hash", by_token_hash)


class AgentRegistry:
    """The agents of a file as it last made sense. Raises AgentsFileError when it makes none at the start."""

    def __init__(self, path: Path, defaults: AgentDefaults | None = None) -> None:
        self._path = path
        self._defaults = defaults or AgentDefaults()
        self._lock = threading.Lock()
        self._seen = _fingerprint(path)
        self._known = self._load(frozenset())

    def get(self, agent_id: str) -> AgentConfig | None:
        """Return the agent of this id, or None where there is no such agent.

        Each call checks whether the file changed, and reads it if so. A file that cannot be used is logged once, and
        the last good set stays.
        """
        self._refresh()
        return self._known.agents.get(agent_id)

    def get_by_internal_id(self, internal_id: str) -> AgentConfig | None:
        """Return the agent whose jobs belong to this id, as get does."""
        self._refresh()
        return self._known.by_internal_id.get(internal_id)

    def get_by_token(self, token_hash: str) -> AgentConfig | None:
        """Return the agent that a token is for, by its hash, as get does.

        The time that it takes tells nothing of any token: what is compared are hashes, of which no caller can choose a
        digit, in a table whose order is drawn at each start.
        """
        self._refresh()
        return self._known.by_token_hash.get(token_hash)

    def removed(self) -> frozenset[str]:
        """Return the internal ids of agents that are no more: those the file names, and those seen to disappear.

        Checks whether the file changed, as get does.
        """
        self._refresh()
        return self._known.removed

    def _refresh(self) -> None:
        if _fingerprint(self._path) == self._seen:
            return
        with self._lock:
            # Taken before the file is read: a change in between is then noticed by the next call.
            found = _fingerprint(self._path)
            if found == self._seen:
                return
            try:
                self._known = self._load(self._known.removed.union(self._known.by_internal_id))
            except AgentsFileError as error:
                logger.error("%s The agents known before stay in force.", error.message)
            self._seen = found

    def _load(self, gone: frozenset[str]) -> _Known:
        """Read the file; gone : internal ids that are removed unless it still has them."""
        document = read_document(self._path)
        agents = parse_agents(document, self._defaults)
        there = {agent.internal_id for agent in agents.values()}
        return _Known(agents, gone.union(document.removed) - there)


def load_agents(path: Path, defaults: AgentDefaults | None = None) -> Mapping[str, AgentConfig]:
    """Return every agent of a file, by id. Raises AgentsFileError."""
    return parse_agents(read_document(path), defaults or AgentDefaults())


def _fingerprint(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
