"""Nonces on Redis: refused while it is away, hangs or cannot write, taken again by itself, kept as long as asked."""

from __future__ import annotations

import logging
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.api.statuses import status_of
from backend.auth.nonces import MemoryNonceStore, open_nonce_store
from backend.auth.nonces_redis import RedisNonceStore
from backend.auth.nonces_sql import SqlNonceStore
from backend.auth.redis_client import redis_options
from backend.config import Settings
from backend.errors import AuthUnavailable, ConfigurationError
from benchmarks.support.redis import RedisServer
from tests.support.redis_backend import TTL, redis_server
from tests.support.store_backends import START, empty_database, open_database


@pytest.fixture
def server() -> RedisServer:
    return redis_server()


@contextmanager
def opened(url: str) -> Iterator[RedisNonceStore]:
    store = RedisNonceStore(url)
    yield store
    store.close()


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisNonceStore]:
    with opened(server.url) as store:
        yield store


def is_new(store: RedisNonceStore, nonce: str) -> bool:
    return store.remember("ann", nonce, START, TTL)


def assert_closed(store: RedisNonceStore) -> None:
    with pytest.raises(AuthUnavailable) as refused:
        is_new(store, "nonce-away")
    assert (status_of(refused.value), refused.value.code) == (503, "AUTH_UNAVAILABLE")


def test_killed_server_refuses_and_its_successor_answers(server: RedisServer, store: RedisNonceStore) -> None:
    assert is_new(store, "nonce-1")
    server.kill()
    assert_closed(store)
    assert_closed(store)
    server.start()
    assert [is_new(store, "nonce-2"), is_new(store, "nonce-2")] == [True, False]


def test_restart_between_two_requests_is_not_noticed(server: RedisServer, store: RedisNonceStore) -> None:
    assert is_new(store, "nonce-1")
    server.kill()
    server.start()
    assert is_new(store, "nonce-2")


def test_server_that_keeps_its_data_keeps_the_nonces() -> None:
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    try:
        server.start()
        with opened(server.url) as store:
            assert is_new(store, "nonce-1")
            server.kill()
            server.start()
            assert not is_new(store, "nonce-1")
    finally:
        server.destroy()


def test_hanging_server_refuses_and_answers_when_it_goes_on(server: RedisServer, store: RedisNonceStore) -> None:
    assert is_new(store, "nonce-1")
    server.pause()
    assert_closed(store)
    assert_closed(store)
    server.resume()
    assert is_new(store, "nonce-2")


def test_two_attempts_are_shorter_than_two_seconds() -> None:
    options = redis_options()
    assert 2 * (options["socket_connect_timeout"] + options["socket_timeout"]) < 2
    assert options["retry"].get_retries() == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["out of memory", "read only"],
)
def test_server_that_cannot_write_refuses(
    server: RedisServer, store: RedisNonceStore, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    with server.client() as client:
        client.execute_command(*before)
        try:
            assert_closed(store)
        finally:
            client.execute_command(*after)
    assert is_new(store, "nonce-1")


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Give the address of a server that says the same to everything."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while answer and self.request.recv(65536):
                self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as tcp:
        thread = threading.Thread(target=tcp.serve_forever)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{tcp.server_address[1]}/0"
        finally:
            tcp.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-MISCONF Errors writing to the AOF file\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ],
)
def test_server_that_refuses_is_as_if_away(answer: bytes) -> None:
    with answering(answer) as url, opened(url) as store:
        assert_closed(store)


def test_trouble_is_logged_once_and_its_end(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "backend.auth.nonces_redis")
    with opened(server.url.replace("redis://", "redis://:sesame@")) as store:
        server.kill()
        for _ in range(3):
            assert_closed(store)
        server.start()
        with server.client() as client:
            client.config_set("requirepass", "sesame")
        try:
            assert [is_new(store, "nonce-1"), is_new(store, "nonce-2")] == [True, True]
        finally:
            server.kill()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith("The nonce store does not answer, and signed requests are refused: ")
    assert messages[1] == "The nonce store answers again."
    assert "sesame" not in caplog.text


def test_nonces_end_by_the_service_s_time_and_the_server_forgets_none(
    server: RedisServer, store: RedisNonceStore
) -> None:
    assert is_new(store, "nonce-1")
    start = int(START.timestamp() * 1000)
    with server.client() as client:
        names = ["orfeas:nonces", "orfeas:nonces:newest"]
        assert sorted(client.keys()) == names
        assert [client.ttl(name) for name in names] == [-1, -1]
        assert client.zrange(names[0], 0, -1, withscores=True) == [("3:ann:nonce-1", start + 600_001)]
        assert client.get(names[1]) == str(start)


def test_nonces_that_ended_are_removed_once_a_later_request_was_accepted(
    server: RedisServer, store: RedisNonceStore
) -> None:
    for k in range(6):
        assert is_new(store, f"old-{k}")
    later = START + 2 * TTL
    with server.client() as client:
        # The first of them proves that the time is over.
        for k, left in enumerate((7, 4, 3, 4)):
            assert store.remember("ann", f"new-{k}", later, TTL)
            assert client.zcard("orfeas:nonces") == left


def test_settings_name_the_store(server: RedisServer, tmp_path: Path) -> None:
    kinds = {"memory": MemoryNonceStore, "database": SqlNonceStore, server.url: RedisNonceStore}
    with open_database(empty_database("sqlite", tmp_path)) as database:
        for name, kind in kinds.items():
            assert type(open_nonce_store(Settings(nonce_store=name), database)) is kind


@pytest.mark.parametrize("url", ["redis://:sesame@host:port/0", "redis://[:sesame@host/0"])
def test_unreadable_address_stops_the_start_and_is_not_told(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        RedisNonceStore(url)
    assert raised.value.message == "NONCE_STORE must be redis://HOST:PORT/DB."
    assert raised.value.__cause__ is None


def test_missing_client_stops_the_start_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.retry", None)
    with pytest.raises(ConfigurationError, match="pip install redis"):
        RedisNonceStore("redis://127.0.0.1:1/0")
