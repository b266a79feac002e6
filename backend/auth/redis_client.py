"""How this service calls Redis: with short timeouts and without retries, so that whoever waits is answered in time.

This module does not know what lies in Redis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from backend.errors import ConfigurationError

if TYPE_CHECKING:
    from redis.retry import Retry

# A request may find Redis away and try it once more: both together take less than 2 s.
_CONNECT_SECONDS = 0.4
_ANSWER_SECONDS = 0.5
_CONNECTIONS = 10_000


class RedisOptions(TypedDict):
    """What redis-py's clients are made with."""

    socket_connect_timeout: float
    socket_timeout: float
    max_connections: int
    retry: Retry


def redis_options() -> RedisOptions:
    """Return options with which a command is answered, or has failed, within 1 s.

    Raises ConfigurationError when the package redis is not installed.
    """
    try:
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise ConfigurationError("A setting names Redis; install its client: pip install redis") from error
    return RedisOptions(
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_ANSWER_SECONDS,
        # The number of web threads is the bound; a smaller one here would refuse requests.
        max_connections=_CONNECTIONS,
        retry=Retry(NoBackoff(), 0),
    )
