"""What this machine alone may do: which calls come from here, and through nothing in between.

A proxy on this machine connects from loopback like a program on it does, on behalf of callers from anywhere; so the
address decides only where nothing hints at a proxy, or at a page in somebody's browser. This module does not know what
such a call may do.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.auth.client_address import client_address, is_allowed, parse_address
from backend.config import Settings
from backend.errors import IpNotAllowed
from backend.setting_values import IPNetwork

FORWARDING_HEADERS = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Forwarded-Server",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Original-Forwarded-For",
    "X-Original-Host",
    "X-ProxyUser-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Ray",
    "CDN-Loop",
    "Fastly-Client-IP",
)
"""Headers that proxies add; a program that calls by itself sends none of them."""

_NAMES = ("localhost", "127.0.0.1", "[::1]")
_ORIGIN = re.compile(r"http://(?P<host>[^/?#]+)", re.IGNORECASE)
_PORT = re.compile(r"(?P<name>.*?)(?::(?P<port>[0-9]{1,5}))?", re.DOTALL)
_HTTP_PORT = 80
_BEARER = "bearer "

Header = Callable[[str], str | None]


@dataclass(frozen=True)
class Caller:
    """Who opened a connection, and what the request on it says of itself.

    peer : the connection's other end; port : the one that was connected to; header : gives a header's value by its name
    """

    peer: str
    port: int
    header: Header

    @classmethod
    def of(cls, environ: dict[str, Any], header: Header) -> Caller:
        """Return the caller of a WSGI request."""
        return cls(environ.get("REMOTE_ADDR", ""), int(environ.get("SERVER_PORT") or _HTTP_PORT), header)


def is_from_here(caller: Caller, trusted_proxies: Sequence[IPNetwork]) -> bool:
    """Return whether a program of this machine calls by itself: what loopback alone may do is allowed to nobody else.

    Not where a proxy is configured, where any header hints at one, where Host is not localhost, 127.0.0.1 or [::1] with
    our port (a name that was made to point here), or where Origin is another's (a page in a browser).
    """
    peer = parse_address(caller.peer)
    if trusted_proxies or peer is None or not peer.is_loopback:
        return False
    if any(caller.header(name) is not None for name in FORWARDING_HEADERS):
        return False
    if not _is_ours(caller.header("Host"), caller.port):
        return False
    origin = caller.header("Origin")
    match = None if origin is None else _ORIGIN.fullmatch(origin)
    return origin is None or (match is not None and _is_ours(match["host"], caller.port))


def require_own_page(caller: Caller, public_url: str, trusted_proxies: Sequence[IPNetwork]) -> None:
    """Refuse what a page in a browser sends, unless it is of PUBLIC_URL or of this machine. Raises IpNotAllowed.

    A page in a browser on an agent's machine could send what the agent's tools send.
    """
    origin = caller.header("Origin")
    if origin is None or origin == public_url or is_from_here(caller, trusted_proxies):
        return
    raise IpNotAllowed("A page of another origin may not call this: the header Origin is not ours.")


@dataclass(frozen=True)
class MetricsReaders:
    """Who may read /metrics: whoever sends the token ("" for none), and these networks' addresses (none: nobody)."""

    allowed: tuple[IPNetwork, ...] = ()
    token: str = field(default="", repr=False)
    trusted_proxies: tuple[IPNetwork, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> MetricsReaders:
        """Return those that METRICS_TOKEN and METRICS_ALLOWED name."""
        return cls(settings.metrics_allowed, settings.metrics_token, settings.trusted_proxies)

    def admit(self, caller: Caller) -> bool:
        """Return whether the caller may read; this machine's own address counts only where is_from_here says so."""
        if self.token and _has_token(caller.header("Authorization"), self.token):
            return True
        forwarded_for = caller.header("X-Forwarded-For") or ""
        address = client_address(caller.peer, forwarded_for, self.trusted_proxies)
        # No networks at all would mean any address there; here it means nobody.
        if not self.allowed or address is None or not is_allowed(address, self.allowed):
            return False
        return is_from_here(caller, self.trusted_proxies) if address.is_loopback else True


def _is_ours(host: str | None, port: int) -> bool:
    match = _PORT.fullmatch((host or "").lower())
    return match is not None and match["name"] in _NAMES and int(match["port"] or _HTTP_PORT) == port


def _has_token(authorization: str | None, token: str) -> bool:
    """Return whether the header carries the token; takes as long whatever it carries."""
    given = authorization or ""
    sent = given[len(_BEARER) :].strip() if given[: len(_BEARER)].lower() == _BEARER else ""
    return hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), token.encode())
