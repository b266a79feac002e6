"""Links that stand for an agent: an address of a file, an end, and a signature, in place of every header.

What is signed is the path as it is sent, for GET, with the internal id of the agent whose file it is and the end. The
address does not name that agent: the owner of the file is looked up, and one that has none is given a dummy, so that
a wrong signature and an unknown file are refused alike, after as much work. This module does not know HTTP, nor how a
file is sent.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backend.auth.agent_config import AgentConfig
from backend.auth.link_keys import GENERATIONS, LinkKeys
from backend.errors import LinkExpired, LinkInvalid
from backend.jobs.models import Clock
from orfeas_client.signing import hmac_hex

EXPIRES, SIGNATURE = "expires", "signature"
"""What a link's query has."""

OPERATION = "download"
"""What an agent must be granted for its links to be made and honoured."""

_SCHEME, _METHOD = "v1", "GET"
# One writing for each time: no sign, no leading zero, no digits of other scripts.
_TIME = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class LinkQuery:
    """What the query of a link says; each as often as it was given."""

    expires: Sequence[str]
    signature: Sequence[str]

    @property
    def is_one(self) -> bool:
        """Whether a request with it is meant as a link, well made or not."""
        return bool(self.expires or self.signature)


class SignedLinks:
    """Makes links to files and checks them."""

    def __init__(
        self, keys: LinkKeys, owner_of: Callable[[str], str | None], clock: Clock, lifetime: timedelta
    ) -> None:
        """Keep what is needed.

        owner_of : gives the internal id of the agent whose file has this name, or had it; None where there is none
        lifetime : how long links are good
        """
        self._keys = keys
        self._owner_of = owner_of
        self._clock = clock
        self._lifetime = lifetime
        self._dummy = secrets.token_hex(32)

    def sign(self, path: str, agent: AgentConfig, until: datetime | None = None) -> str | None:
        """Return the path with what makes it a link to an agent's file; None for an agent that may fetch none itself.

        path : percent-encoded, without a query; until : the link's end, in place of the lifetime of others
        Raises StoreUnavailable, StorageFull.
        """
        if OPERATION not in agent.operations:
            return None
        expires = str(int((until or self._clock() + self._lifetime).timestamp()))
        signature = hmac_hex(self._keys.newest(), _text(path, agent.internal_id, expires))
        return f"{path}?{EXPIRES}={expires}&{SIGNATURE}={signature}"

    def check(
        self, path: str, filename: str, query: LinkQuery, agent_of: Callable[[str], AgentConfig | None]
    ) -> AgentConfig:
        """Return the agent whose link this is.

        path : as it was sent, percent-encoded; filename : what that names, decoded
        agent_of : gives the agent of an internal id, None where there is no such agent
        Raises LinkInvalid, also when the agent is disabled, removed or may no longer fetch files; then LinkExpired,
        StoreUnavailable.
        """
        if len(query.expires) != 1 or len(query.signature) != 1:
            raise LinkInvalid
        (expires,), (signature,) = query.expires, query.signature
        if not _TIME.fullmatch(expires) or not _HEX.fullmatch(signature):
            raise LinkInvalid
        owner = self._owner_of(filename)
        if not self._matches(_text(path, owner or self._dummy, expires), signature) or owner is None:
            raise LinkInvalid
        agent = agent_of(owner)
        if agent is None or not agent.enabled or OPERATION not in agent.operations:
            raise LinkInvalid
        if self._clock().timestamp() > int(expires):
            raise LinkExpired(details={"expired_at": int(expires)})
        return agent

    def _matches(self, text: bytes, signature: str) -> bool:
        """Return whether an accepted key made the signature; every key is tried, and as many as there may be."""
        keys = self._keys.accepted()
        tried = (*keys, *(self._dummy,) * (GENERATIONS - len(keys)))
        matches = [hmac.compare_digest(hmac_hex(key, text), signature) for key in tried]
        return any(matches[: len(keys)])


def _text(path: str, owner: str, expires: str) -> bytes:
    return "\n".join((_SCHEME, _METHOD, path, owner, expires)).encode("utf-8", "surrogateescape")
