"""How many calls may wait at once, or listen: of each agent, and of all together.

A call that finds no slot is answered at once, as if nobody had asked to wait. This module does not know for what they
wait.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class WaitSlots:
    """The slots of one process; any thread may use it."""

    def __init__(self, per_agent: int, together: int) -> None:
        self._per_agent = per_agent
        self._together = together
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one_of(self, agent_id: str) -> Iterator[bool]:
        """Give whether there is a slot for the agent, and keep it while the block runs."""
        is_free = self.take(agent_id)
        try:
            yield is_free
        finally:
            if is_free:
                self.give_back(agent_id)

    def take(self, agent_id: str) -> bool:
        """Take a slot for the agent, until it is given back; return whether there was one."""
        with self._lock:
            is_free = self._taken[agent_id] < self._per_agent and self._taken.total() < self._together
            self._taken[agent_id] += is_free
            self._tidy(agent_id)
        return is_free

    def give_back(self, agent_id: str) -> None:
        """Give back a slot that was taken."""
        with self._lock:
            self._taken[agent_id] -= 1
            self._tidy(agent_id)

    def _tidy(self, agent_id: str) -> None:
        if not self._taken[agent_id]:
            del self._taken[agent_id]
