"""Nonces that agents have used, in a Redis that every process shares.

Redis forgets a nonce by its own clock, `ttl` after it was noted. It must not forget one earlier: no eviction
(`maxmemory-policy noeviction`), and after a restart without its data requests that were signed before could be sent
again until their timestamps are too old. This module does not know what a signature is or how long a nonce matters.
"""

from __future__ import annotations

import logging
import math
from datetime import datetime, timedelta

from backend.auth.redis_client import redis_options
from backend.errors import AuthUnavailable, ConfigurationError

_LOG = logging.getLogger(__name__)


class RedisNonceStore:
    """Remembers each agent's nonces until they end; connects at the first use and again after each trouble."""

    def __init__(self, url: str) -> None:
        """Keep the address; url : redis://[:PASSWORD@]HOST:PORT/DB, or rediss:// for TLS. Raises ConfigurationError."""
        options = redis_options()
        import redis

        try:
            self._redis = redis.Redis.from_url(url, **options)
        except ValueError:
            # Neither the value nor the cause is shown: they may carry a password.
            raise ConfigurationError("NONCE_STORE must be redis://HOST:PORT/DB.") from None
        self._trouble = redis.RedisError
        self._is_away = False

    def remember(self, agent_id: str, nonce: str, now: datetime, ttl: timedelta) -> bool:  # noqa: ARG002
        """Return whether this agent's nonce is new; for `ttl` from this moment it is then not, whatever `now` says.

        Of any number of callers at once, in any processes, one gets True. Raises AuthUnavailable within 1 s when Redis
        cannot be reached or cannot note it.
        """
        # The length keeps any two pairs apart, whatever characters they are made of.
        key = f"orfeas:nonce:{len(agent_id)}:{agent_id}:{nonce}"
        # Past the last millisecond: up to and including now + ttl it is not new.
        milliseconds = math.floor(ttl / timedelta(milliseconds=1)) + 1
        try:
            is_new = bool(self._redis.set(key, b"", nx=True, px=milliseconds))
        except (self._trouble, OSError) as error:
            self._note_away(error)
            raise AuthUnavailable from error
        if self._is_away:
            self._is_away = False
            _LOG.info("The nonce store answers again.")
        return is_new

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._redis.close()

    def _note_away(self, error: Exception) -> None:
        # Once, not for each refused request.
        if not self._is_away:
            self._is_away = True
            _LOG.warning("The nonce store does not answer, and signed requests are refused: %s", error)
