"""How often a client may call: moving windows of a minute, counted by Flask-Limiter.

An admitted agent is counted by its verified id, whoever is refused by its address, a link by both. The counts lie where
RATE_LIMIT_STORAGE_URL says; when that place is away, each process allows its share of a limit by itself. This module
does not know how an agent is verified, or how many jobs it has.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, g
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItemPerMinute, WindowStats
from limits.errors import StorageError

from backend.auth.agents import AgentConfig
from backend.auth.clock_jumps import JUMP
from backend.auth.redis_client import redis_options
from backend.config import Settings
from backend.errors import ConfigurationError, RateLimited

logger = logging.getLogger(__name__)

_WINDOW_SECONDS = 60
_TRIES = 3
_PREFIX = "orfeas"
_ADDRESS_BUCKETS = 4096


@dataclass(frozen=True)
class RateState:
    """How a request left the limit that it counted towards: how many of `limit` a minute are left, and for how long.

    reset_seconds : until the first of those that were counted leaves the minute, 0–60
    """

    limit: int
    remaining: int
    reset_seconds: int


def rate_state() -> RateState | None:
    """Return how the request at hand left its tightest limit; None when nothing was counted, or it cannot be read."""
    state: RateState | None = g.get("rate_state")
    return state


class RequestLimits:
    """The limits of one app; several processes share them through the storage."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Keep the limits; monotonic : seconds since any moment."""
        self._monotonic = monotonic
        self._clock_ahead = time.time() - monotonic()
        self._refusals_per_minute = settings.unauthenticated_rate_limit
        self._processes = settings.web_processes
        shared = settings.rate_limit_storage.startswith("redis")
        options: dict[str, Any] = {**redis_options(), "wrap_exceptions": True} if shared else {}
        self._limiter = Limiter(
            _client,
            strategy="moving-window",
            storage_uri=settings.rate_limit_storage,
            storage_options=options,
            in_memory_fallback_enabled=shared,
            swallow_errors=False,
            key_prefix=_PREFIX,
            # What is counted is a client's and not a view's: views need no limits of their own.
            request_identifier=_any_request,
        )
        limit = self._limiter.shared_limit
        self._count_request = limit(self._limit, "agent")(_request)
        self._count_following = limit(self._limit, "follow")(_following_request)
        self._count_batch = limit(self._limit, "batch")(_batch_request)
        self._count_link = limit(self._limit, "link")(_link_request)
        self._count_refusal = limit(self._limit, "refused")(_refused_request)

    def init_app(self, app: Flask) -> None:
        """Connect the limits with an app; needed once, before its first request. Raises ConfigurationError."""
        try:
            self._limiter.init_app(app)
        except ValueError:
            # Neither the value nor the cause is shown: they may carry a password.
            raise ConfigurationError("RATE_LIMIT_STORAGE_URL must be memory:// or redis://HOST:PORT/DB.") from None
        app.after_request(_show_state)

    def admit_agent(self, agent: AgentConfig, operation: str, *, follows: bool = False) -> None:
        """Count a request of a verified agent, a batch also as a batch. Raises RateLimited.

        follows : it asks for nothing to be made; where the agent has a limit for those, it counts towards that alone
        """
        if follows and agent.status_rate_limit is not None:
            noun = "requests that follow jobs"
            self._admit(self._count_following, agent.agent_id, agent.status_rate_limit, noun)
            return
        self._admit(self._count_request, agent.agent_id, agent.rate_limit, "requests")
        if operation == "batch":
            self.admit_batch(agent)

    def admit_batch(self, agent: AgentConfig) -> None:
        """Count a batch of a verified agent, whose request was counted already. Raises RateLimited."""
        self._admit(self._count_batch, agent.agent_id, agent.batch_rate_limit, "batch requests")

    def admit_link(self, agent: AgentConfig, address: str) -> None:
        """Count a request by a link to a file, for the address and the agent together. Raises RateLimited.

        An agent hands its links to others: one who fetches too much by them is held back, and neither the agent's own
        requests are nor those of others by the same link.
        """
        per_minute = agent.status_rate_limit or agent.rate_limit
        self._admit(self._count_link, f"{_network_bucket(address)} {agent.agent_id}", per_minute, "requests by links")

    def states(self, agent: AgentConfig) -> dict[str, RateState]:
        """Return how each of an agent's limits is, by its name; one that cannot be read is left out. Counts nothing."""
        limits = {"rate_limit": "agent", "batch_rate_limit": "batch", "status_rate_limit": "follow"}
        found = {}
        for name, scope in limits.items():
            per_minute = getattr(agent, name)
            if per_minute is None:
                continue
            limit = RateLimitItemPerMinute(self._allowed(per_minute))
            with suppress(StorageError):
                # As Flask-Limiter names what it counts.
                window = self._limiter.limiter.get_window_stats(limit, _PREFIX, agent.agent_id, scope)
                found[name] = _state(limit.amount, window)
        return found

    def admit_refusal(self, address: str) -> None:
        """Count a request that is refused before it counts for an agent. Raises RateLimited instead, when too many are.

        Requests that are not refused are not held back by it, whoever else calls from their address.
        """
        self._admit(self._count_refusal, _network_bucket(address), self._refusals_per_minute, "refused requests")

    def _admit(self, count: Callable[[], None], client: str, per_minute: int, noun: str) -> None:
        self._forget_a_clock_set_back()
        g.rate_client, g.rate_per_minute = client, per_minute
        try:
            for _ in range(_TRIES):
                try:
                    count()
                # Flask-Limiter falls back for the request that finds the storage away; those that were waiting for it
                # at the same moment get the storage's error, and fall back when they come again.
                except StorageError:
                    continue
                # A limit for all processes, counted in this one alone, would let too many in.
                counted = self._limiter.current_limit
                if counted is not None and counted.limit.amount == self._allowed(per_minute):
                    self._note_state()
                    return
        except RateLimitExceeded as error:
            self._note_state()
            raise RateLimited(
                f"More than {per_minute} {noun} in a minute; wait before sending the next.",
                retry_after=self._seconds_until_free(),
                details={"limit": per_minute, "window_seconds": _WINDOW_SECONDS},
            ) from error
        raise RateLimited("Requests cannot be counted at the moment; try again.", retry_after=1)

    def _forget_a_clock_set_back(self) -> None:
        """Count anew when the clock was set back: what was counted by the later one would stay until it is over."""
        before, self._clock_ahead = self._clock_ahead, time.time() - self._monotonic()
        if before - self._clock_ahead > JUMP.total_seconds():
            logger.warning("The clock was set back by %.0f s: requests are counted anew.", before - self._clock_ahead)
            with suppress(StorageError):
                self._limiter.reset()

    def _note_state(self) -> None:
        """Keep how the limit that was just counted is now, unless another one of this request is tighter."""
        counted = self._limiter.current_limit
        if counted is None:
            return
        try:
            window = counted.window
        except StorageError:
            return
        state = _state(counted.limit.amount, window)
        known = rate_state()
        if known is None or state.remaining < known.remaining:
            g.rate_state = state

    def _limit(self) -> str:
        """Return the limit of the client at hand as Flask-Limiter writes limits."""
        return f"{self._allowed(g.rate_per_minute)} per minute"

    def _allowed(self, per_minute: int) -> int:
        """Return how many this process may admit: a share, while it counts alone because the storage is away."""
        is_alone = self._limiter.limiter.storage is not self._limiter.storage
        return max(1, per_minute // self._processes) if is_alone else per_minute

    def _seconds_until_free(self) -> int:
        breached = self._limiter.current_limit
        if breached is None:
            return _WINDOW_SECONDS
        try:
            free_at = breached.window.reset_time
        except StorageError:
            return _WINDOW_SECONDS
        return max(1, _seconds_until(free_at))


def _state(limit: int, window: WindowStats) -> RateState:
    remaining = max(0, window.remaining)
    # Nothing was counted: nothing has to leave the minute.
    return RateState(limit, remaining, _seconds_until(window.reset_time) if remaining < limit else 0)


def _seconds_until(free_at: float) -> int:
    # The storage's clock is this one, whatever clock the service was given.
    return max(0, min(_WINDOW_SECONDS, int(free_at - time.time()) + 1))


def _show_state(response: Response) -> Response:
    """Tell the caller of a guarded view how its limit is, in the headers that clients know."""
    # Requests made inside one app context share `g`.
    state: RateState | None = g.pop("rate_state", None)
    if state is not None:
        response.headers["RateLimit-Limit"] = str(state.limit)
        response.headers["RateLimit-Remaining"] = str(state.remaining)
        response.headers["RateLimit-Reset"] = str(state.reset_seconds)
    return response


def _client() -> str:
    client: str = g.rate_client
    return client


def _any_request() -> str:
    return "request"


def _request() -> None:
    """Do nothing: being called is what is counted."""


def _following_request() -> None:
    """Do nothing: being called is what is counted."""


def _batch_request() -> None:
    """Do nothing: being called is what is counted."""


def _link_request() -> None:
    """Do nothing: being called is what is counted."""


def _refused_request() -> None:
    """Do nothing: being called is what is counted."""


def _network_bucket(address: str) -> str:
    """Return one of a fixed number of names for an address, so that many addresses take no more memory.

    Whoever holds one IPv6 address mostly holds all 2^64 of its network: they count as one.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        network = address
    else:
        network = str(ipaddress.ip_network((parsed, 64 if parsed.version == 6 else 32), strict=False))
    digest = hashlib.sha256(network.encode()).digest()
    return str(int.from_bytes(digest[:8], "big") % _ADDRESS_BUCKETS)
