"""Nonces that agents have used, in a Redis that every process shares.

Redis keeps them in one sorted set, by the time at which each ends, and forgets none by its own clock. It must not lose
one earlier: no eviction (`maxmemory-policy noeviction`), and after a restart without its data requests that were signed
before could be sent again until their timestamps are too old. This module does not know what a signature is or how long
a nonce matters.
"""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime, timedelta

from backend.auth.clock_jumps import SignedAt, require_no_jump_back
from backend.auth.redis_client import redis_options
from backend.errors import AuthUnavailable, ConfigurationError

_KEYS = ("orfeas:nonces", "orfeas:nonces:newest")
# Lua's numbers keep milliseconds whole as text, and no finer unit.
_NOTE = """
local newest = redis.call('GET', KEYS[2])
local now, forgettable = tonumber(ARGV[2]), tonumber(ARGV[2])
if newest then forgettable = math.min(now, tonumber(newest)) end
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ends and tonumber(ends) >= now then return {0, newest} end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
if not newest or tonumber(newest) < now then redis.call('SET', KEYS[2], ARGV[2]) end
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. forgettable, 'LIMIT', 0, tonumber(ARGV[4]))
if #over > 0 then redis.call('ZREM', KEYS[1], unpack(over)) end
return {1, newest}
"""
_MOST_PRUNED = 4

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
        self._note = self._redis.register_script(_NOTE)
        self._trouble = redis.RedisError
        self._is_away = False

    def remember(
        self, agent_id: str, nonce: str, now: datetime, ttl: timedelta, signed: SignedAt | None = None
    ) -> bool:
        """Return whether this agent's nonce is new; up to and including now + ttl it is then not.

        Of any number of callers at once, in any processes, one gets True. Raises AuthExpired as clock_jumps says, and
        AuthUnavailable within 1 s when Redis cannot be reached or cannot note it.
        """
        # The length keeps any two pairs apart, whatever characters they are made of.
        member = f"{len(agent_id)}:{agent_id}:{nonce}"
        try:
            # Past the last millisecond: up to and including now + ttl it is not new.
            times = (_milliseconds(now), _milliseconds(now + ttl) + 1)
            is_new, newest = self._note(keys=_KEYS, args=(member, *times, _MOST_PRUNED))
        except (self._trouble, OSError) as error:
            self._note_away(error)
            raise AuthUnavailable from error
        if self._is_away:
            self._is_away = False
            _LOG.info("The nonce store answers again.")
        require_no_jump_back(now, _time(newest), signed)
        return bool(is_new)

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._redis.close()

    def _note_away(self, error: Exception) -> None:
        # Once, not for each refused request.
        if not self._is_away:
            self._is_away = True
            _LOG.warning("The nonce store does not answer, and signed requests are refused: %s", error)


def _milliseconds(time: datetime) -> int:
    return math.floor(time.timestamp() * 1000)


def _time(milliseconds: bytes | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
