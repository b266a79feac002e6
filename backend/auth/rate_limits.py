"""How often a client may call: moving windows of a minute, counted by Flask-Limiter.

An admitted agent is counted by its verified id, whoever is refused by its address. The counts lie where
RATE_LIMIT_STORAGE_URL says; when that place is away, each process allows its share of a limit by itself. This module
does not know how an agent is verified, or how many jobs it has.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from dataclasses import dataclass
from typing import Any

from flask import Flask, g
from flask_limiter import Limiter, RateLimitExceeded
from limits.errors import StorageError

from backend.auth.agents import AgentConfig
from backend.auth.redis_client import redis_options
from backend.config import Settings
from backend.errors import ConfigurationError, RateLimited

_WINDOW_SECONDS = 60
_TRIES = 3
_ADDRESS_BUCKETS = 4096


@dataclass(frozen=True)
class _Bucket:
    """What is counted together: one client's requests of one kind, and how many a minute it may have."""

    scope: str
    client: str
    per_minute: int


class RequestLimits:
    """The limits of one app; several processes share them through the storage."""

    def __init__(self, settings: Settings) -> None:
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
            key_prefix="orfeas",
        )
        self._count = self._limiter.shared_limit(self._rate, _scope)(_pass)

    def init_app(self, app: Flask) -> None:
        """Connect the limits with an app; needed once, before its first request. Raises ConfigurationError."""
        try:
            self._limiter.init_app(app)
        except ValueError:
            # Neither the value nor the cause is told: they may carry a password.
            raise ConfigurationError("RATE_LIMIT_STORAGE_URL must be memory:// or redis://HOST:PORT/DB.") from None

    def admit_agent(self, agent: AgentConfig, operation: str) -> None:
        """Count a request of a verified agent, a batch also as a batch. Raises RateLimited."""
        self._admit(_Bucket("agent", agent.agent_id, agent.rate_limit))
        if operation == "batch":
            self._admit(_Bucket("batch", agent.agent_id, agent.batch_rate_limit))

    def admit_refusal(self, address: str) -> None:
        """Count a request that is refused before it counts for an agent. Raises RateLimited instead, when too many are.

        Requests that are not refused are not held back by it, whoever else calls from their address.
        """
        self._admit(_Bucket("refused", _neighbourhood(address), self._refusals_per_minute))

    def _admit(self, bucket: _Bucket) -> None:
        g.rate_bucket = bucket
        try:
            self._count_request()
        except RateLimitExceeded as error:
            raise RateLimited(
                f"More than {bucket.per_minute} {_NOUNS[bucket.scope]} in a minute; wait before sending the next.",
                retry_after=self._seconds_until_free(),
                details={"limit": bucket.per_minute, "window_seconds": _WINDOW_SECONDS},
            ) from error
        finally:
            del g.rate_bucket

    def _count_request(self) -> None:
        for _ in range(_TRIES):
            try:
                self._count()
            # Flask-Limiter falls back for the request that finds the storage away; those that were waiting for it at
            # the same moment get the storage's error, and fall back when they come again.
            except StorageError:
                continue
            # A limit for all processes, counted in this one alone, would let too many in.
            if g.rate_is_share == self._is_alone():
                return
        raise RateLimited("Requests cannot be counted at the moment; try again.", retry_after=1)

    def _rate(self) -> str:
        bucket = _bucket()
        # Flask-Limiter also asks before any request that was limited once, when nothing is to be counted yet.
        if bucket is None:
            return ""
        g.rate_is_share = self._is_alone()
        return f"{max(1, bucket.per_minute // self._processes) if g.rate_is_share else bucket.per_minute} per minute"

    def _is_alone(self) -> bool:
        """Whether this process counts by itself because the shared storage is away."""
        return self._limiter.limiter.storage is not self._limiter.storage

    def _seconds_until_free(self) -> int:
        breached = self._limiter.current_limit
        if breached is None:
            return _WINDOW_SECONDS
        try:
            free_at = breached.window.reset_time
        except StorageError:
            return _WINDOW_SECONDS
        # The storage's clock is this one, whatever clock the service was given.
        return max(1, min(_WINDOW_SECONDS, int(free_at - time.time()) + 1))


_NOUNS = {"agent": "requests", "batch": "batch requests", "refused": "refused requests"}


def _bucket() -> _Bucket | None:
    bucket: _Bucket | None = g.get("rate_bucket")
    return bucket


def _client() -> str:
    bucket = _bucket()
    return bucket.client if bucket else ""


def _scope(_endpoint: str) -> str:
    bucket = _bucket()
    return bucket.scope if bucket else ""


def _pass() -> None:
    """What is limited: passing this point."""


def _neighbourhood(address: str) -> str:
    """One of a fixed number of names for an address, so that a flood from many addresses takes no more memory.

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
