"""A signed request as it arrives: its parts, and whether its signature is one of the agent's keys' own.

How a request is signed is the client's to say, `orfeas_client.signing`. This module does not know which agents exist,
what time it is, or what a body holds.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from backend.errors import AuthInvalid, AuthMissing, InvalidParameter
from backend.telemetry.logs import masked
from orfeas_client import signing
from orfeas_client.signing import (
    HEADER_AGENT,
    HEADER_DIGEST,
    HEADER_NONCE,
    HEADER_SIGNATURE,
    HEADER_TIMESTAMP,
    SHAPES,
    UNPRINTABLE,
    canonical_text,
    hmac_hex,
)

_MOST_SHOWN = 2048
_AUTHORITY = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")


class Signed(Protocol):
    """What the guard checks of a request, whichever scheme it was signed by.

    timestamp : unix seconds as text; expires : unix seconds, None without an end of its own
    body_digest, signature : lower-case hex; text : what is signed
    evidence : what helps a caller whose signature is wrong, made of nothing but its own request
    """

    @property
    def agent_id(self) -> str: ...
    @property
    def timestamp(self) -> str: ...
    @property
    def expires(self) -> int | None: ...
    @property
    def nonce(self) -> str: ...
    @property
    def body_digest(self) -> str: ...
    @property
    def signature(self) -> str: ...
    @property
    def text(self) -> bytes: ...
    @property
    def evidence(self) -> Mapping[str, object]: ...


@dataclass(frozen=True)
class SignedRequest:
    """The signed parts of one request as they were sent, and the signature it came with.

    path, query : percent-encoded, query without "?"; timestamp : unix seconds as text
    body_digest, signature : lower-case hex
    """

    method: str
    path: str
    query: str
    agent_id: str
    timestamp: str
    nonce: str
    body_digest: str
    signature: str
    expires: int | None = None
    """Always None: this scheme's signatures end with the tolerance for their timestamp."""

    @property
    def text(self) -> bytes:
        """What is signed."""
        return canonical_text(
            self.method, self.path, self.query, self.agent_id, self.timestamp, self.nonce, self.body_digest
        )

    @property
    def evidence(self) -> Mapping[str, object]:
        """The text that was to be signed, up to _MOST_SHOWN bytes; a link's signature in it is masked."""
        shown = masked(self.text.decode("utf-8", "backslashreplace")).encode()
        cut = shown[:_MOST_SHOWN].decode("utf-8", "ignore")
        return {"canonical_text": cut, "truncated": True} if len(shown) > _MOST_SHOWN else {"canonical_text": cut}


def sign_request(
    api_key: str, method: str, path: str, query: str, agent_id: str, timestamp: int, nonce: str, body_digest: str
) -> str:
    """Return `orfeas_client.signing.sign_request`'s signature. Raises InvalidParameter where that raises ValueError."""
    try:
        return signing.sign_request(api_key, method, path, query, agent_id, timestamp, nonce, body_digest)
    except ValueError as problem:
        raise InvalidParameter(str(problem)) from problem


def read_signed_request(method: str, target: str, header: Callable[[str], str | None]) -> SignedRequest:
    """Return the signed parts out of a request line and its headers.

    target : the request target as it stood on the request line, "/path?query" or "http://host/path?query"
    header : gives a header's value by its name
    Raises AuthMissing for a header that is missing or malformed, AuthInvalid for a target with control characters.
    """
    values: dict[str, str] = {}
    for name, (pattern, shape) in SHAPES.items():
        value = header(name)
        if not value:
            raise AuthMissing(f"The header {name} is missing.", details={"header": name})
        if not pattern.fullmatch(value):
            raise AuthMissing(f"The header {name} is malformed: it must be {shape}.", details={"header": name})
        values[name] = value
    if UNPRINTABLE.search(target) or UNPRINTABLE.search(method):
        raise AuthInvalid
    path, query = split_target(target)
    return SignedRequest(
        method,
        path,
        query,
        values[HEADER_AGENT],
        values[HEADER_TIMESTAMP],
        values[HEADER_NONCE],
        values[HEADER_DIGEST],
        values[HEADER_SIGNATURE],
    )


def split_target(target: str) -> tuple[str, str]:
    """Return the path and the query of a request target, "/path?query" or "http://host/path?query", as it was sent."""
    path, _, query = _AUTHORITY.sub("", target).partition("?")
    return path, query


def signature_matches(request: Signed, keys: Sequence[str], dummy_keys: Sequence[str] = ()) -> bool:
    """Return whether one of the keys made the signature.

    dummy_keys : tried besides, whatever they give. Every key is tried, whichever matches, so that time tells nothing.
    """
    text, signature = request.text, request.signature.encode("utf-8", "surrogateescape")
    made = [hmac.compare_digest(hmac_hex(key, text).encode("ascii"), signature) for key in (*keys, *dummy_keys)]
    return any(made[: len(keys)])
