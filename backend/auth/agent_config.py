"""One agent as a value: its keys, what it may do and how much of it, and which values those can have.

This module does not know where agents are kept, or what a signature is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from backend.errors import AgentsFileError
from backend.setting_values import IPNetwork
from orfeas_client.signing import AGENT_ID

OPERATIONS = ("generate", "batch", "status", "download", "admin")
DEFAULT_OPERATIONS = ("generate", "batch", "status", "download")
MAX_KEYS = 3
"""Keys an agent may have at once; every signature is compared with this many, whoever it claims to be from."""

MAX_TOKENS = 10
"""Bearer tokens an agent may have at once."""

SECRET_MARK = "whsec_"  # noqa: S105  what each secret begins with
_KEY_LENGTHS = (24, 128)
_MAX_LIMIT = 1_000_000
_MAX_PREFIXES = 10
_MAX_PREFIX = 500
_TOKEN_HASH = re.compile(r"[0-9a-f]{64}")
_SECRET_BYTES = (24, 64)


@dataclass(frozen=True)
class AgentDefaults:
    """The limits of an agent whose entry names none."""

    rate_limit: int = 100
    batch_rate_limit: int = 10
    max_active_jobs: int = 20


@dataclass(frozen=True)
class AgentConfig:
    """One agent, with its limits as they apply. Raises AgentsFileError when it is not a possible one.

    api_keys : every accepted key, newest first; operations : some of OPERATIONS
    rate_limit, batch_rate_limit : a minute; max_active_jobs : unfinished jobs at once
    allowed_ips : networks it may call from; empty = anywhere
    internal_id : whose its jobs are; empty = the agent's id
    status_rate_limit : a minute, of requests that only follow, which then don't count towards rate_limit; None = none
    daily_jobs : in any 24 hours; None = without bound
    webhook_prefixes : addresses that a webhook's must begin with; webhook_secret : `whsec_…`, empty = none
    token_hashes : SHA-256 of each bearer token, lower-case hex
    """

    agent_id: str
    api_keys: tuple[str, ...] = field(repr=False)
    name: str = ""
    operations: frozenset[str] = frozenset(DEFAULT_OPERATIONS)
    rate_limit: int = AgentDefaults.rate_limit
    batch_rate_limit: int = AgentDefaults.batch_rate_limit
    max_active_jobs: int = AgentDefaults.max_active_jobs
    allowed_ips: tuple[IPNetwork, ...] = ()
    enabled: bool = True
    internal_id: str = ""
    status_rate_limit: int | None = None
    daily_jobs: int | None = None
    webhook_prefixes: tuple[str, ...] = ()
    webhook_secret: str = field(default="", repr=False)
    token_hashes: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.internal_id:
            object.__setattr__(self, "internal_id", self.agent_id)
        for rule, holds in self._rules().items():
            if not holds:
                raise AgentsFileError(f"Agent {self.agent_id[:80]!r} cannot be used: {rule}.")

    def _rules(self) -> Mapping[str, bool]:
        low, high = _KEY_LENGTHS
        limits = (self.rate_limit, self.batch_rate_limit, self.max_active_jobs, self.status_rate_limit, self.daily_jobs)
        ids = (self.agent_id, self.internal_id)
        return {
            "its id must be 1–64 of A-Z a-z 0-9 . _ - and begin with a letter or digit": all(
                map(AGENT_ID.fullmatch, ids)
            ),
            f"it must have from 1 to {MAX_KEYS} keys": 1 <= len(self.api_keys) <= MAX_KEYS,
            f"a key must have from {low} to {high} ASCII characters": all(
                low <= len(key) <= high and key.isascii() and key.isprintable() for key in self.api_keys
            ),
            f"its operations must be some of {', '.join(OPERATIONS)}": self.operations <= set(OPERATIONS),
            f"its limits must be from 1 to {_MAX_LIMIT}": all(
                limit is None or 1 <= limit <= _MAX_LIMIT for limit in limits
            ),
            "its name must be one line of at most 200 characters": len(self.name) <= 200 and self.name.isprintable(),
            f"it may have at most {_MAX_PREFIXES} webhook prefixes, each an http:// or https:// address of at most "
            f"{_MAX_PREFIX} characters with a host, and without user, query and fragment": (
                len(self.webhook_prefixes) <= _MAX_PREFIXES and all(map(_is_prefix, self.webhook_prefixes))
            ),
            f"its webhook secret must be {SECRET_MARK} and {_SECRET_BYTES[0]}–{_SECRET_BYTES[1]} bytes in base64": (
                not self.webhook_secret or _is_secret(self.webhook_secret)
            ),
            f"it may have at most {MAX_TOKENS} token hashes, each 64 lower-case hex digits": (
                len(self.token_hashes) <= MAX_TOKENS and all(map(_TOKEN_HASH.fullmatch, self.token_hashes))
            ),
        }

    @property
    def api_key(self) -> str:
        """The newest key."""
        return self.api_keys[0]


def _is_prefix(text: str) -> bool:
    """Return whether an address can be compared with others by its parts: scheme, host, port, path."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    plain = len(text) <= _MAX_PREFIX and text.isascii() and text.isprintable() and not set(text) & set(" \\?#")
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _is_secret(text: str) -> bool:
    low, high = _SECRET_BYTES
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_MARK), validate=True)
    except ValueError:
        return False
    return text.startswith(SECRET_MARK) and low <= len(secret) <= high
