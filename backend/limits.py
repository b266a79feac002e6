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

from flask import Flask, g
from flask_limiter import Limiter, RateLimitExceeded

from backend.agent_registry import AgentConfig
from backend.config import Settings
from backend.errors import RateLimited

_WINDOW_SECONDS = 60
_REDIS_SECONDS = 1
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
        timeouts: dict[str, str | int] = {"socket_connect_timeout": _REDIS_SECONDS, "socket_timeout": _REDIS_SECONDS}
        self._limiter = Limiter(
            _client,
            strategy="moving-window",
            storage_uri=settings.rate_limit_storage,
            storage_options=timeouts if shared else {},
            in_memory_fallback_enabled=shared,
            swallow_errors=False,
            key_prefix="orfeas",
        )
        self._count = self._limiter.shared_limit(self._rate, _scope)(_pass)

    def init_app(self, app: Flask) -> None:
        """Connect the limits with an app; needed once, before its first request."""
        self._limiter.init_app(app)

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
            self._count()
        except RateLimitExceeded as error:
            raise RateLimited(
                f"More than {bucket.per_minute} {_NOUNS[bucket.scope]} in a minute; wait before sending the next.",
                retry_after=self._seconds_until_free(),
                details={"limit": bucket.per_minute, "window_seconds": _WINDOW_SECONDS},
            ) from error
        finally:
            del g.rate_bucket

    def _rate(self) -> str:
        bucket = _bucket()
        # Flask-Limiter also asks before any request that was limited once, when nothing is to be counted yet.
        if bucket is None:
            return ""
        alone = self._limiter.limiter.storage is not self._limiter.storage
        return f"{max(1, bucket.per_minute // self._processes) if alone else bucket.per_minute} per minute"

    def _seconds_until_free(self) -> int:
        breached = self._limiter.current_limit
        if breached is None:
            return _WINDOW_SECONDS
        # The storage's clock is this one, whatever clock the service was given.
        return max(1, min(_WINDOW_SECONDS, int(breached.window.reset_time - time.time()) + 1))


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
