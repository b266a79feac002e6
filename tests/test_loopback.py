"""What this machine alone may do: nothing that a proxy, a rebound name or a page in a browser could ask for."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import pytest

from backend.auth.loopback import FORWARDING_HEADERS, Caller, MetricsReaders, is_from_here

HERE = ipaddress.ip_network("127.0.0.0/8")
PROMETHEUS = ipaddress.ip_network("10.1.0.0/16")
TOKEN = "sixteen-characters"  # noqa: S105


def caller(peer: str = "127.0.0.1", headers: Mapping[str, str] | None = None, **more: str) -> Caller:
    sent = {"host": "127.0.0.1:5000", **{name.lower(): value for name, value in (headers or {}).items()}, **more}
    return Caller(peer, 5000, lambda name: sent.get(name.lower()))


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "127.0.0.1:40000"])
@pytest.mark.parametrize("host", ["localhost:5000", "LocalHost:5000", "127.0.0.1:5000", "[::1]:5000"])
def test_a_program_of_this_machine_is_from_here(peer: str, host: str) -> None:
    assert is_from_here(caller(peer, {"Host": host}), ())
    assert is_from_here(caller(peer, {"Host": host, "Origin": f"http://{host}"}), ())


@pytest.mark.parametrize("peer", ["192.0.2.7", "10.0.0.1", "::2", "", "localhost"])
def test_other_addresses_are_not(peer: str) -> None:
    assert not is_from_here(caller(peer), ())


@pytest.mark.parametrize("name", FORWARDING_HEADERS)
def test_a_header_that_a_proxy_adds_closes_it_whatever_it_says(name: str) -> None:
    assert not is_from_here(caller(headers={name: ""}), ())
    assert not is_from_here(caller(headers={name: "127.0.0.1"}), ())


def test_a_proxy_that_is_configured_closes_it() -> None:
    assert not is_from_here(caller(), (HERE,))
    assert not is_from_here(caller(), (PROMETHEUS,))


@pytest.mark.parametrize(
    "host",
    ["", "evil.example:5000", "localhost", "localhost:5001", "localhost:80", "127.0.0.1", "127.0.0.2:5000",
     "localhost.:5000", "::1:5000", "user@localhost:5000", "localhost:5000:5000", "localhost:5000\n"],
)  # fmt: skip
def test_a_host_that_is_not_ours_closes_it(host: str) -> None:
    assert not is_from_here(caller(headers={"Host": host}), ())


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.example", "http://localhost:3000", "https://localhost:5000", "http://localhost:5000/x", ""],
)
def test_a_page_of_another_origin_is_not_from_here(origin: str) -> None:
    assert not is_from_here(caller(headers={"Origin": origin}), ())


def test_the_port_80_needs_no_saying() -> None:
    assert is_from_here(Caller("127.0.0.1", 80, {"Host": "localhost"}.get), ())


@pytest.mark.parametrize(
    ("readers", "peer", "headers", "admitted"),
    [
        (MetricsReaders((HERE,)), "127.0.0.1", {}, True),
        (MetricsReaders((HERE,)), "127.0.0.1", {"Via": "1.1 proxy"}, False),
        (MetricsReaders((HERE,)), "127.0.0.1", {"Host": "metrics.example"}, False),
        (MetricsReaders((HERE,), trusted_proxies=(HERE,)), "127.0.0.1", {}, False),
        (MetricsReaders((HERE,), trusted_proxies=(PROMETHEUS,)), "10.1.0.1", {"X-Forwarded-For": "127.0.0.1"}, False),
        (MetricsReaders(()), "127.0.0.1", {}, False),
        (MetricsReaders((PROMETHEUS,)), "10.1.2.3", {"Host": "metrics.example"}, True),
        (MetricsReaders((PROMETHEUS,)), "192.0.2.7", {"X-Forwarded-For": "10.1.2.3"}, False),
        (MetricsReaders((PROMETHEUS,), trusted_proxies=(HERE,)), "127.0.0.1", {"X-Forwarded-For": "10.1.2.3"}, True),
        (MetricsReaders((), TOKEN), "192.0.2.7", {"Authorization": f"Bearer {TOKEN}"}, True),
        (MetricsReaders((), TOKEN), "192.0.2.7", {"Authorization": f"bearer  {TOKEN}"}, True),
        (MetricsReaders((), TOKEN), "127.0.0.1", {"Authorization": "Bearer sixteen-character"}, False),
        (MetricsReaders((), TOKEN), "127.0.0.1", {"Authorization": TOKEN}, False),
        (MetricsReaders((), TOKEN), "127.0.0.1", {"Authorization": "Bearer ½"}, False),
        (MetricsReaders((), TOKEN), "127.0.0.1", {}, False),
        (MetricsReaders(()), "127.0.0.1", {"Authorization": "Bearer "}, False),
    ],
)
def test_metrics_are_for_the_token_and_for_addresses_that_are_named(
    readers: MetricsReaders, peer: str, headers: Mapping[str, str], admitted: bool
) -> None:
    assert readers.admit(caller(peer, headers)) is admitted


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(MetricsReaders((), TOKEN))
