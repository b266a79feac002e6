"""Calls to addresses that callers name: the one guard of all of them, for image URLs and webhooks alike.

A host is resolved once, each of its addresses is checked, and the connection goes to an address that was checked, so
that a name which answers otherwise the next time changes nothing. Each redirect is checked anew. The environment's
proxies and cookies have no part in it, and a call ends at its deadline however slowly it is answered. This module does
not know what is fetched or sent.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote, urljoin, urlsplit

from backend import __version__

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
"""Returns the addresses of a host, as texts; raises OSError for none."""

Connector = Callable[[tuple[str, int], float], socket.socket]
"""Connects to an address and port within so many seconds; raises OSError."""

PORTS: Mapping[str, int] = {"https": 443, "http": 80}

_MAX_URL = 2048
_CHUNK_BYTES = 1 << 16
_MOST_ADDRESSES = 4
_MOST_LOOKUPS = 32
_REDIRECTS = (301, 302, 303, 307, 308)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
# What the system's resolver takes for an address in numbers, of any base and any count of parts.
_NUMBERS = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")


class OutgoingRefused(Exception):
    """An address is not one that may be called; nothing was sent to it."""


class OutgoingFailed(Exception):
    """An address that may be called gave no whole answer in time."""


@dataclass(frozen=True)
class OutgoingPolicy:
    """Which addresses may be called.

    schemes, ports : None is any port; hosts : names or addresses as `Destination.host` has them, None is any
    private_hosts : those of which no address is asked whether it is public
    """

    schemes: tuple[str, ...] = ("https",)
    ports: tuple[int, ...] | None = (443,)
    hosts: frozenset[str] | None = None
    private_hosts: frozenset[str] = frozenset()

    def require(self, destination: Destination) -> None:
        """Raise OutgoingRefused for what may not be called, whatever its addresses are."""
        if destination.scheme not in self.schemes:
            raise OutgoingRefused(f"The scheme must be {' or '.join(self.schemes)}.")
        if self.ports is not None and destination.port not in self.ports:
            raise OutgoingRefused(f"The port must be {' or '.join(map(str, self.ports))}.")
        if self.hosts is not None and destination.host not in self.hosts:
            raise OutgoingRefused("The host is not one of those that are allowed.")

    def require_addresses(self, destination: Destination, addresses: Sequence[str]) -> None:
        """Raise OutgoingRefused unless every address may be connected to."""
        if destination.host not in self.private_hosts and not all(map(is_public, addresses)):
            raise OutgoingRefused("The host has an address that is not public.")


@dataclass(frozen=True)
class Destination:
    """A URL taken apart: host is in small letters, without a last dot; an address is in its shortest form.

    target : path and query as they are sent
    """

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, url: str) -> Destination:
        """Take a URL apart, strictly: what two readers might read in two ways is refused. Raises OutgoingRefused."""
        if len(url) > _MAX_URL or _UNSAFE.search(url):
            raise OutgoingRefused(f"A URL has at most {_MAX_URL} characters, without blanks and backslashes.")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise OutgoingRefused("This is no URL.") from error
        if parts.scheme not in PORTS:
            raise OutgoingRefused("The scheme must be https or http.")
        if "@" in parts.netloc:
            raise OutgoingRefused("A URL must not carry a user's name.")
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
        return cls(
            parts.scheme,
            _host(parts.hostname or "", is_bracketed="[" in parts.netloc),
            PORTS[parts.scheme] if port is None else port,
            f"{target}?{query}" if query else target,
        )

    @property
    def netloc(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole of it."""
        return f"{self.scheme}://{self.netloc}{self.target}"


@dataclass(frozen=True)
class Reply:
    """What was answered: headers by their names in small letters, and how many bytes of body were taken."""

    status: int
    headers: Mapping[str, str]
    size: int


def is_public(address: str) -> bool:
    """Return whether an address is a global unicast one, and so is every IPv4 address that it stands for."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or _of_nat64(found)
        if inner is not None:
            return is_public(str(inner))
        if found not in _GLOBAL_UNICAST or found.teredo is not None or found.scope_id is not None:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def resolve_by_system(host: str, port: int) -> list[str]:
    """Return the addresses that the system's resolver has for a host, each once. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Outgoing:
    """Makes calls, each on its caller's thread; any thread may use it.

    resolve, connect : in place of the system's; context : whom https trusts, the system's authorities when None
    """

    def __init__(
        self,
        resolve: Resolver = resolve_by_system,
        context: ssl.SSLContext | None = None,
        connect: Connector = socket.create_connection,
    ) -> None:
        self._resolve = resolve
        self._connect = connect
        self._context = context or ssl.create_default_context()
        self._lookups = threading.BoundedSemaphore(_MOST_LOOKUPS)

    def send(
        self,
        method: str,
        url: str,
        policy: OutgoingPolicy,
        *,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        sink: BinaryIO | None = None,
        max_bytes: int = 0,
        max_redirects: int = 0,
    ) -> Reply:
        """Make a call and return what was answered, of whatever status; a redirect too when none is left to follow.

        seconds : for all of it, redirects and name look-ups too
        sink : takes the answer's body, at most max_bytes; None leaves it unread
        Raises OutgoingRefused, OutgoingFailed.
        """
        deadline = _Deadline(seconds)
        for left in range(max_redirects, -1, -1):
            destination = Destination.of(url)
            policy.require(destination)
            addresses = self._addresses(destination, deadline)
            policy.require_addresses(destination, addresses)
            with self._connected(destination, addresses, deadline) as connection:
                try:
                    connection.request(method, destination.target, body, _headers(destination, headers))
                    response = connection.getresponse()
                    location = response.getheader("Location")
                    if response.status in _REDIRECTS and location and left:
                        url = urljoin(destination.url, location)
                        continue
                    size = 0 if sink is None else _copy(response, sink, max_bytes, deadline)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    raise OutgoingFailed("The answer broke off, or is no HTTP.") from error
                return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, size)
        raise OutgoingFailed("There are too many redirects.")

    def _addresses(self, destination: Destination, deadline: _Deadline) -> list[str]:
        """Return the addresses of a host. Raises OutgoingRefused where it has none, OutgoingFailed when it is late."""
        if not self._lookups.acquire(timeout=deadline.left()):
            raise OutgoingFailed("Too many names are looked up at once.")
        found: Future[Sequence[str]] = Future()

        def look_up() -> None:
            try:
                found.set_result(self._resolve(destination.host, destination.port))
            except (OSError, UnicodeError) as error:
                found.set_exception(error)
            finally:
                self._lookups.release()

        # The system's resolver knows no deadline: one that hangs is left behind.
        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        try:
            addresses = list(found.result(deadline.left()))
        except TimeoutError as error:
            raise OutgoingFailed("The host's name was not resolved in time.") from error
        except (OSError, UnicodeError) as error:
            raise OutgoingRefused("The host's name is not known.") from error
        if not addresses:
            raise OutgoingRefused("The host has no address.")
        return addresses

    @contextmanager
    def _connected(
        self, destination: Destination, addresses: Sequence[str], deadline: _Deadline
    ) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(destination.host, destination.port)
        opened = self._opened(destination, addresses[:_MOST_ADDRESSES], deadline)
        try:
            with deadline.ends(opened):
                try:
                    connection.sock = self._secured(opened, destination)
                except (OSError, ValueError) as error:
                    raise OutgoingFailed("No safe connection could be made.") from error
                yield connection
        finally:
            connection.close()
            opened.close()

    def _opened(self, destination: Destination, addresses: Sequence[str], deadline: _Deadline) -> socket.socket:
        """Return a connection to the first address, of those that were checked, that takes one."""
        for number, address in enumerate(addresses):
            try:
                seconds = deadline.left() / (len(addresses) - number)
                opened = self._connect((address, destination.port), seconds)
            except OSError:
                continue
            opened.settimeout(deadline.left())
            return opened
        raise OutgoingFailed("Nothing answers at the host's addresses.")

    def _secured(self, opened: socket.socket, destination: Destination) -> socket.socket:
        if destination.scheme == "http":
            return opened
        return self._context.wrap_socket(opened, server_hostname=destination.host)


class _Deadline:
    """When a call is over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left. Raises OutgoingFailed when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise OutgoingFailed("It took too long.")
        return left

    @contextmanager
    def ends(self, opened: socket.socket) -> Iterator[None]:
        """Have a connection end when the deadline comes within the block, whatever is read or written then.

        A timeout of each read would let a server that sends a byte now and then go on without end.
        """
        # TLS takes the socket's own handle away.
        handle = opened.dup()

        def end() -> None:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self.left(), end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            handle.close()


def _headers(destination: Destination, given: Mapping[str, str] | None) -> dict[str, str]:
    return {
        "Host": destination.netloc,
        "User-Agent": f"ORFEAS/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **(given or {}),
    }


def _copy(response: http.client.HTTPResponse, sink: BinaryIO, max_bytes: int, deadline: _Deadline) -> int:
    """Copy the body of an answer; return its length."""
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise OutgoingFailed("The answer is compressed.")
    size = 0
    while chunk := response.read(_CHUNK_BYTES):
        deadline.left()
        size += len(chunk)
        if size > max_bytes:
            raise OutgoingFailed(f"The answer is larger than {max_bytes} bytes.")
        sink.write(chunk)
    # A connection that ends early looks like the answer's end.
    if response.length:
        raise OutgoingFailed("The answer broke off.")
    deadline.left()
    return size


def _host(host: str, *, is_bracketed: bool) -> str:
    """Return a host in the one form it is compared and resolved in. Raises OutgoingRefused."""
    if is_bracketed:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise OutgoingRefused("This is no address.") from error
    host = host.removesuffix(".")
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass
    if not _NAME.fullmatch(host) or _NUMBERS.fullmatch(host):
        raise OutgoingRefused("The host must be a name in ASCII, or an address as it is usually written.")
    return host


def _of_nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that a NAT64 gateway would call for an address; None where it would not."""
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
