"""Who may call: the agents with their keys and rights, read from one file that only its owner may read.

The file is read again when it changes. Jobs belong to an agent's internal id: one that is removed and added anew under
the same id has another, and does not inherit them. This module does not know what a signature is, what a request
carries, what time it is, or how the file is written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
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


class AgentRegistry:
    """The agents of a file as it last made sense. Raises AgentsFileError when it makes none at the start."""

    def __init__(self, path: Path, defaults: AgentDefaults | None = None) -> None:
        self._path = path
        self._defaults = defaults or AgentDefaults()
        self._lock = threading.Lock()
        self._seen = _fingerprint(path)
        self._agents, self._removed = self._load(frozenset())

    def get(self, agent_id: str) -> AgentConfig | None:
        """Return the agent of this id, or None where there is no such agent.

        Each call checks whether the file changed, and reads it if so. A file that cannot be used is logged once, and
        the last good set stays.
        """
        self._refresh()
        return self._agents.get(agent_id)

    def removed(self) -> frozenset[str]:
        """Return the internal ids of agents that are no more: those the file names, and those seen to disappear.

        Checks whether the file changed, as get does.
        """
        self._refresh()
        return self._removed

    def _refresh(self) -> None:
        if _fingerprint(self._path) == self._seen:
            return
        with self._lock:
            # Taken before the file is read: a change in between is then noticed by the next call.
            found = _fingerprint(self._path)
            if found == self._seen:
                return
            try:
                gone = self._removed | {agent.internal_id for agent in self._agents.values()}
                self._agents, self._removed = self._load(gone)
            except AgentsFileError as error:
                logger.error("%s The agents known before stay in force.", error.message)
            self._seen = found

    def _load(self, gone: frozenset[str]) -> tuple[Mapping[str, AgentConfig], frozenset[str]]:
        """Read the file; gone : internal ids that are removed unless it still has them."""
        document = read_document(self._path)
        agents = parse_agents(document, self._defaults)
        there = {agent.internal_id for agent in agents.values()}
        return agents, gone.union(document.removed) - there


def load_agents(path: Path, defaults: AgentDefaults | None = None) -> Mapping[str, AgentConfig]:
    """Return every agent of a file, by id. Raises AgentsFileError."""
    return parse_agents(read_document(path), defaults or AgentDefaults())


def _fingerprint(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
