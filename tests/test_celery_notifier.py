"""Notifications through a broker: never waited for, never lost while the broker is away, and few enough."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from backend.config import Settings
from backend.errors import ConfigurationError
from backend.worker.celery_app import QUEUE, make_celery
from backend.worker.celery_notifier import CeleryNotifier
from benchmarks.support.redis import RedisServer
from tests.support.redis_backend import redis_server
from tests.support.workshop import eventually


def settings(url: str) -> Settings:
    return Settings(data_dir=Path("/nowhere"), broker_url=url, batch_seconds=100, drain_seconds=7)


def notifier_to(server: RedisServer) -> CeleryNotifier:
    return CeleryNotifier(make_celery(settings(server.url)))


def waiting(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.llen(QUEUE))


class Broker:
    """Take notifications, or raise what it is given; hold them up until it is opened."""

    def __init__(self) -> None:
        self.taken = 0
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def send(self) -> None:
        assert self.open.wait(20)
        if self.error is not None:
            raise self.error
        self.taken += 1


def notifier_of(send: Callable[[], None]) -> CeleryNotifier:
    return CeleryNotifier(make_celery(settings("redis://localhost:1/0")), send=send)


def test_each_notification_is_one_task() -> None:
    server = redis_server()
    notifier = notifier_to(server)
    for _ in range(3):
        notifier.notify()
    assert notifier.flush(20)
    assert waiting(server) == 3


def test_tasks_that_nobody_runs_do_not_pile_up() -> None:
    server = redis_server()
    with server.client() as client:
        client.rpush(QUEUE, *["task"] * 256)
    notifier = notifier_to(server)
    notifier.notify()
    assert notifier.flush(20)
    assert waiting(server) == 256


def test_notifications_that_wait_for_a_slow_broker_are_bounded() -> None:
    broker = Broker()
    broker.open.clear()
    notifier = notifier_of(broker.send)
    for _ in range(1000):
        notifier.notify()
    assert not notifier.flush(0)
    broker.open.set()
    assert notifier.flush(20)
    assert broker.taken == 256


def test_a_notification_outlives_a_broker_that_is_away() -> None:
    server = redis_server()
    server.kill()
    notifier = notifier_to(server)
    for _ in range(5):
        notifier.notify()
    assert not notifier.flush(1.5)
    server.start()
    assert notifier.flush(20)
    assert waiting(server) >= 1


def test_a_broker_that_was_emptied_is_told_of_the_queue_again() -> None:
    server = redis_server()
    notifier = notifier_to(server)
    notifier.notify()
    assert notifier.flush(20)
    server.flush()
    notifier.notify()
    assert notifier.flush(20)
    assert waiting(server) == 1


@pytest.mark.parametrize(
    "error", [redis.ConnectionError("gone"), redis.ResponseError("OOM"), OSError("gone"), KeyError("odd")]
)
def test_no_failure_ends_the_notifier_and_each_outage_is_logged_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="backend.worker.celery_notifier")
    broker = Broker()
    broker.error = error
    notifier = notifier_of(broker.send)
    notifier.notify()
    assert not notifier.flush(1.2)
    broker.error = None
    eventually(lambda: broker.taken == 1)
    assert notifier.flush(20)
    away, back = [record.getMessage() for record in caplog.records]
    assert away == f"The broker cannot be reached ({type(error).__name__}); workers hear of jobs later."
    assert back == "The broker is back."


def test_a_worker_without_a_broker_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="CELERY_BROKER_URL"):
        make_celery(settings(""))


def test_what_keeps_notifications_from_being_lost_is_set() -> None:
    conf = make_celery(settings("redis://localhost:1/0")).conf
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost, conf.task_ignore_result) == (True, True, True)
    assert (conf.worker_concurrency, conf.worker_prefetch_multiplier, conf.worker_disable_prefetch) == (1, 1, True)
    assert 100 < conf.task_time_limit < conf.broker_transport_options["visibility_timeout"]
    assert conf.broker_transport_options["unacked_restore_interval"] == 2
    assert conf.broker_transport_options["unacked_restore_throttle"] == 1
    assert conf.worker_soft_shutdown_timeout > 7
    assert conf.worker_cancel_long_running_tasks_on_connection_loss is False
