"""Limits: how many requests a minute are admitted, for whom, and when the next is."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
from flask import Flask

from backend.api.statuses import status_of
from backend.auth.agents import AgentConfig
from backend.auth.rate_limits import RateState, RequestLimits, _network_bucket
from backend.config import Settings
from backend.errors import RateLimited

KEY = "secret-key-0123456789abcdef"


class Door:
    """An app with limits, and a count of who came through."""

    def __init__(self, settings: Settings | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.app = Flask("door")
        self.app.add_url_rule("/", "index", lambda: "")
        self.limits = RequestLimits(settings or Settings(), monotonic)
        self.limits.init_app(self.app)

    def admit(self, agent: AgentConfig, operation: str = "status", *, follows: bool = False) -> RateLimited | None:
        with self.app.test_request_context("/"):
            try:
                self.limits.admit_agent(agent, operation, follows=follows)
            except RateLimited as error:
                return error
            return None

    def refuse(self, address: str) -> RateLimited | None:
        with self.app.test_request_context("/"):
            try:
                self.limits.admit_refusal(address)
            except RateLimited as error:
                return error
            return None

    def states(self, agent: AgentConfig) -> dict[str, RateState]:
        with self.app.test_request_context("/"):
            return self.limits.states(agent)

    def count(self, agent: AgentConfig, times: int, operation: str = "status", *, follows: bool = False) -> int:
        return sum(self.admit(agent, operation, follows=follows) is None for _ in range(times))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Give the time of the limits' storage, to be moved."""
    moment = SimpleNamespace(seconds=1_760_000_000.25)
    clock = SimpleNamespace(time=lambda: moment.seconds)
    for module in ("limits.storage.memory", "limits.strategies", "backend.auth.rate_limits"):
        monkeypatch.setattr(f"{module}.time", clock)
    return moment


def agent(agent_id: str = "a1", rate: int = 3, batches: int = 2) -> AgentConfig:
    return AgentConfig(agent_id, (KEY,), rate_limit=rate, batch_rate_limit=batches)


def test_agent_is_admitted_up_to_its_rate() -> None:
    door = Door()
    assert door.count(agent(rate=3), 5) == 3
    refused = door.admit(agent(rate=3))
    assert refused is not None
    assert (status_of(refused), refused.code) == (429, "RATE_LIMITED")
    assert refused.details == {"limit": 3, "window_seconds": 60}


def test_agents_have_limits_of_their_own() -> None:
    door = Door()
    assert door.count(agent("a1", rate=2), 3) == 2
    assert door.count(agent("a2", rate=4), 6) == 4


def test_requests_that_follow_count_apart_where_there_is_a_limit_for_them() -> None:
    door = Door()
    apart = replace(agent(rate=2), status_rate_limit=3)
    assert door.count(apart, 5, follows=True) == 3
    refused = door.admit(apart, follows=True)
    assert refused is not None
    assert refused.details == {"limit": 3, "window_seconds": 60}
    assert door.count(apart, 5) == 2
    assert door.count(agent("a2", rate=2), 5, follows=True) == 2


def test_what_is_left_is_told_without_counting() -> None:
    door = Door()
    apart = replace(agent(rate=4, batches=2), status_rate_limit=3)
    door.count(apart, 1, "batch")
    door.count(apart, 2, follows=True)
    for _ in range(3):
        states = door.states(apart)
        assert {name: (state.limit, state.remaining) for name, state in states.items()} == {
            "rate_limit": (4, 3),
            "batch_rate_limit": (2, 1),
            "status_rate_limit": (3, 1),
        }
    assert "status_rate_limit" not in door.states(agent("a2"))
    assert door.states(agent("a2"))["rate_limit"].reset_seconds == 0


def test_a_clock_that_was_set_back_locks_nobody_out(now: SimpleNamespace) -> None:
    seconds = SimpleNamespace(now=0.0)
    door = Door(monotonic=lambda: seconds.now)
    assert door.count(agent(rate=3), 4) == 3
    now.seconds -= 3
    assert door.count(agent(rate=3), 1) == 0
    now.seconds -= 3600
    assert door.count(agent(rate=3), 4) == 3
    now.seconds += 61
    seconds.now += 61
    assert door.count(agent(rate=3), 4) == 3


def test_batches_count_as_requests_and_as_batches() -> None:
    door = Door()
    assert door.count(agent(rate=4, batches=2), 3, "batch") == 2
    assert door.count(agent(rate=4, batches=2), 3, "generate") == 1


def test_every_operation_counts_as_a_request() -> None:
    door = Door()
    admitted = [door.admit(agent(rate=3), name) is None for name in ("generate", "status", "download", "admin")]
    assert admitted == [True, True, True, False]


def test_window_moves_and_retry_after_says_when(now: SimpleNamespace) -> None:
    door = Door()
    assert door.count(agent(rate=2), 1) == 1
    now.seconds += 20
    assert door.count(agent(rate=2), 1) == 1
    now.seconds += 30
    refused = door.admit(agent(rate=2))
    assert refused is not None
    assert refused.retry_after == 11
    now.seconds += refused.retry_after
    assert door.count(agent(rate=2), 2) == 1


def test_refusals_are_counted_by_address_and_leave_agents_alone() -> None:
    door = Door(Settings(unauthenticated_rate_limit=2))
    assert [door.refuse("10.0.0.1") is None for _ in range(3)] == [True, True, False]
    assert door.refuse("10.0.0.2") is None
    assert door.count(agent(rate=3), 3) == 3


def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    door = Door(Settings(unauthenticated_rate_limit=2))
    addresses = ["2001:db8::1", "2001:db8::2:3", "2001:db8::ffff", "2001:db8:0:1::1"]
    assert [door.refuse(address) is None for address in addresses] == [True, True, False, True]


def test_addresses_take_a_bounded_number_of_names() -> None:
    names = {_network_bucket(f"10.{k // 256}.{k % 256}.1") for k in range(20_000)}
    assert 3000 < len(names) <= 4096
    assert _network_bucket("") == _network_bucket("")


def test_many_threads_are_admitted_exactly_up_to_the_rate() -> None:
    door = Door()
    door.count(agent(rate=40), 1)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: door.admit(agent(rate=40)) is None, range(100))) == 39


def test_unreachable_storage_leaves_each_process_its_share() -> None:
    door = Door(Settings(rate_limit_storage="redis://127.0.0.1:1/0", web_processes=4))
    assert door.count(agent(rate=12), 8) == 3
    assert door.count(agent("a2", rate=2), 3) == 1
