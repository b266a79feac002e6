"""Ports of this machine for servers of a test or a benchmark."""

from __future__ import annotations

import functools
import itertools
import random
import socket
from collections.abc import Iterator

# Below what Linux gives to outgoing connections.
_FIRST, _LAST, _BLOCK = 20_000, 32_000, 100


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free now, and that neither the system nor another process that asks here gives away.

    A server listens only seconds after its port was chosen: processes that choose side by side each have ports of
    their own, and one comes again only after all the others.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in itertools.islice(_ports(), _BLOCK):
        try:
            socket.create_server((host, port), family=family).close()
        except OSError:
            continue
        return port
    raise OSError(f"none of this process's {_BLOCK} ports is free")


@functools.cache
def _ports() -> Iterator[int]:
    """Claim a block of ports for as long as this process lives; return its ports, over and over."""
    blocks = range(_FIRST, _LAST, _BLOCK)
    for first in random.sample(blocks, len(blocks)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0orfeas-ports-{first}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return itertools.cycle(range(first, first + _BLOCK))
    raise OSError("every block of ports is claimed")


_claims: list[socket.socket] = []
