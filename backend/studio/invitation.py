"""How a person on this machine gets into the studio without typing a key: an address with a code, good once.

The code is exchanged for the key of an agent of its own, `studio`, which may call from this machine alone. This module
does not know HTTP.
"""

from __future__ import annotations

from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

from backend.auth.agent_config import AgentConfig
from backend.auth.agents_file import add_agent, find_agent
from backend.auth.studio_codes import StudioCodes
from backend.config import Settings
from backend.errors import (
    AgentDisabled,
    AgentExists,
    AgentsFileError,
    ConfigurationError,
    IpNotAllowed,
)
from backend.periodic import utc_now
from backend.storage.migrations import open_latest

AGENT_ID = "studio"
LOOPBACK = ("127.0.0.0/8", "::1/128")
PAGE = "/studio"

_FOLLOWING_LIMIT = 600
"""Requests a minute that only follow and fetch: a gallery's thumbnails are one each."""


def invite(settings: Settings) -> str:
    """Return the address of the studio with a new code, making the agent where there is none.

    Raises ConfigurationError where no browser could use it, SchemaMismatch, AgentsFileError, StoreUnavailable,
    StorageFull.
    """
    address = _address(settings)
    if not settings.auth_enabled:
        return address
    with closing(open_latest(settings.database_url)) as database:
        _make_agent(settings.agents_file)
        return f"{address}#code={StudioCodes(database, utc_now).make()}"


def studio_agent(agents_file: Path) -> AgentConfig:
    """Return the agent whose key a code is exchanged for. Raises AgentsFileError, AgentDisabled, IpNotAllowed.

    One that may call from elsewhere is another's, whose key is not given away.
    """
    agent = find_agent(agents_file, AGENT_ID)
    if not agent.enabled:
        raise AgentDisabled
    if not agent.allowed_ips or not all(network.is_loopback for network in agent.allowed_ips):
        raise IpNotAllowed(
            f"The agent {AGENT_ID!r} may call from other machines, so its key is given to nobody: sign in with it."
        )
    return agent


def _address(settings: Settings) -> str:
    """Return the page's address for a browser of this machine. Raises ConfigurationError where there is none."""
    if settings.trusted_proxies:
        raise ConfigurationError(
            "Behind a proxy the studio is opened with an agent's id and key: a code is for a browser of this machine "
            "alone, and TRUSTED_PROXIES is set."
        )
    if not settings.port:
        raise ConfigurationError("PORT is 0, so nobody can say where the studio will be: choose a port.")
    host = settings.host.strip("[]")
    if host != "localhost" and not _serves_loopback(host):
        raise ConfigurationError(
            f"The service listens on {host} alone, and a code is for loopback: open {PAGE} there with an agent's key."
        )
    return f"http://{'[::1]' if host in ('::', '::1') else '127.0.0.1'}:{settings.port}{PAGE}"


def _serves_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_unspecified or str(address) in ("127.0.0.1", "::1")


def _make_agent(agents_file: Path) -> None:
    try:
        add_agent(
            agents_file,
            AGENT_ID,
            name="the studio, on this machine",
            allowed_ips=LOOPBACK,
            status_rate_limit=_FOLLOWING_LIMIT,
        )
    except AgentExists:
        studio_agent(agents_file)
    except AgentsFileError as error:
        raise AgentsFileError(f"The studio's agent cannot be made: {error.message}") from error
