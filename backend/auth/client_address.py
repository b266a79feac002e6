"""Where a request comes from, and how: as the connection shows it, or as a believed proxy reports it.

This module does not know which addresses may call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from backend.setting_values import IPNetwork

IPAddress = IPv4Address | IPv6Address

_WITH_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\](?::[0-9]+)?|(?P<four>[0-9.]+):[0-9]+)")


def client_address(peer: str, forwarded_for: str, trusted_proxies: Sequence[IPNetwork]) -> IPAddress | None:
    """Return the nearest address on a request's way that is not a believed proxy's.

    peer : who opened the connection; forwarded_for : the X-Forwarded-For header, to which each proxy on the way appends
    the address it was called from. Only a believed proxy's word counts, so it is read from the right; where a proxy
    reports something that is no address, the proxy itself is the answer. None when the peer has no address.
    """
    address = parse_address(peer)
    for reported in reversed(forwarded_for.split(",")):
        if address is None or not _is_in(address, trusted_proxies):
            break
        previous = parse_address(reported.strip())
        if previous is None:
            break
        address = previous
    return address


def client_scheme(seen: str, peer: str, forwarded_proto: str, trusted_proxies: Sequence[IPNetwork]) -> str:
    """Return the scheme that the client used: "http" or "https".

    seen : the one on the connection from the peer; forwarded_proto : the X-Forwarded-Proto header, the client's own
    first, which counts only from a believed proxy.
    """
    reported = forwarded_proto.partition(",")[0].strip().lower()
    return reported if reported in ("http", "https") and is_believed(peer, trusted_proxies) else seen


def is_believed(peer: str, trusted_proxies: Sequence[IPNetwork]) -> bool:
    """Return whether who opened the connection is a proxy whose headers are believed."""
    address = parse_address(peer)
    return address is not None and _is_in(address, trusted_proxies)


def parse_address(text: str) -> IPAddress | None:
    """Return an address out of a server's or proxy's text: with or without a port; IPv4 also as it is inside IPv6."""
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((match["six"] or match["four"]) if match else text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def is_allowed(address: IPAddress | None, networks: Sequence[IPNetwork]) -> bool:
    """Return whether an address lies in one of the networks; with no networks every address does."""
    return not networks or (address is not None and _is_in(address, networks))


def _is_in(address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    return any(address in network for network in networks)
