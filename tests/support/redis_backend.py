"""The Redis that tests share within one process, and what runs against it in processes of its own."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path

from flask import Flask

from backend.auth.agents import AgentConfig
from backend.auth.nonces import NonceStore, open_nonce_store
from backend.auth.nonces_redis import RedisNonceStore
from backend.auth.rate_limits import RequestLimits
from backend.config import Settings
from backend.errors import RateLimited
from benchmarks.support.redis import RedisServer
from tests.support.store_backends import START, open_database

TTL = timedelta(seconds=600)


@cache
def _shared_server() -> RedisServer:
    server = RedisServer()
    atexit.register(server.destroy)
    return server


def redis_server() -> RedisServer:
    """Return this process's server, running and empty; a test may kill it."""
    server = _shared_server()
    server.resume()
    server.start()
    server.flush()
    return server


@contextmanager
def nonce_store(nonce_url: str, database_url: str) -> Iterator[NonceStore]:
    """Give the store as the service opens it, closed at the end."""
    settings = Settings(data_dir=Path("/nowhere"), nonce_store=nonce_url, database_url=database_url)
    with open_database(database_url) as database:
        store = open_nonce_store(settings, database)
        yield store
        if isinstance(store, RedisNonceStore):
            store.close()


def remember_all(nonce_url: str, database_url: str, nonces: list[str]) -> list[str]:
    """Show nonces to a store; return those that were new."""
    with nonce_store(nonce_url, database_url) as store:
        return [nonce for nonce in nonces if store.remember("ann", nonce, START, TTL)]


class Door:
    """One web process's limits on Redis, and a count of who came through."""

    def __init__(self, url: str, processes: int = 4) -> None:
        self.app = Flask("door")
        self.app.add_url_rule("/", "index", lambda: "")
        self.limits = RequestLimits(Settings(rate_limit_storage=url, web_processes=processes))
        self.limits.init_app(self.app)

    def is_admitted(self, agent_id: str, rate: int) -> bool:
        agent = AgentConfig(agent_id, ("secret-key-0123456789abcdef",), rate_limit=rate)
        with self.app.test_request_context("/"):
            try:
                self.limits.admit_agent(agent, "status")
            except RateLimited:
                return False
            return True

    def count(self, agent_id: str, rate: int, times: int) -> int:
        return sum(self.is_admitted(agent_id, rate) for _ in range(times))


def count_admitted(url: str, agent_id: str, rate: int, times: int) -> int:
    """Send so many requests through limits of its own; return how many were admitted."""
    return Door(url).count(agent_id, rate, times)
