"""The signature of a request: which text is signed, how, and how the two are compared.

Nothing but the standard library, so that a client needs no more than this file. This module does not know which agents
exist, what time it is, or what a body holds.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from backend.errors import AuthInvalid, AuthMissing, InvalidParameter

SCHEME = "v1"
EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()

HEADER_AGENT = "X-Agent-ID"
HEADER_TIMESTAMP = "X-Agent-Timestamp"
HEADER_NONCE = "X-Agent-Nonce"
HEADER_DIGEST = "X-Agent-Content-SHA256"
HEADER_SIGNATURE = "X-Agent-Signature"

AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NONCE = re.compile(r"[A-Za-z0-9._~-]{8,128}")
TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,11}")
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_AUTHORITY = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")

_SHAPES = {
    HEADER_AGENT: (AGENT_ID, "1–64 of A-Z a-z 0-9 . _ - that begin with a letter or digit"),
    HEADER_TIMESTAMP: (TIMESTAMP, "unix seconds, a whole number"),
    HEADER_NONCE: (NONCE, "8–128 of A-Z a-z 0-9 . _ ~ -"),
    HEADER_DIGEST: (_SHA256_HEX, "the SHA-256 of the body, 64 lower-case hex digits"),
    HEADER_SIGNATURE: (_SHA256_HEX, "64 lower-case hex digits"),
}


class Signed(Protocol):
    """What the guard checks of a request, whichever scheme it was signed by.

    timestamp : unix seconds as text; expires : unix seconds, None without an end of its own
    body_digest, signature : lower-case hex; text : what is signed
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

    @property
    def expires(self) -> None:
        """This scheme's signatures end with the tolerance for their timestamp."""
        return None

    @property
    def text(self) -> bytes:
        """What is signed."""
        parts = (SCHEME, self.method, self.path, self.query, self.agent_id, self.timestamp, self.nonce)
        # The request line is bytes; surrogates carry the ones that are not UTF-8 through text and back.
        return "\n".join((*parts, self.body_digest)).encode("utf-8", "surrogateescape")


def sign_request(
    api_key: str, method: str, path: str, query: str, agent_id: str, timestamp: int, nonce: str, body_digest: str
) -> str:
    """The signature of a request, lower-case hex HMAC-SHA256.

    path, query : as they will be sent, percent-encoded; query without "?", empty when there is none
    timestamp : unix seconds; nonce : never used before by this agent; body_digest : see `digest_body`
    Raises InvalidParameter when a part is not of the shape the service takes.
    """
    request = SignedRequest(method, path, query, agent_id, str(timestamp), nonce, body_digest, "")
    headers = {
        HEADER_AGENT: agent_id,
        HEADER_TIMESTAMP: request.timestamp,
        HEADER_NONCE: nonce,
        HEADER_DIGEST: body_digest,
    }
    for name, value in headers.items():
        pattern, shape = _SHAPES[name]
        if not pattern.fullmatch(value):
            raise InvalidParameter(f"{name} must be {shape}.")
    if any(_UNPRINTABLE.search(part) for part in (method, path, query)):
        raise InvalidParameter("Method, path and query must be percent-encoded: no spaces, no control characters.")
    return _hmac(api_key, request.text)


def digest_body(body: bytes) -> str:
    """The lower-case hex SHA-256 of a body as it is sent."""
    return hashlib.sha256(body).hexdigest()


def read_signed_request(method: str, target: str, header: Callable[[str], str | None]) -> SignedRequest:
    """The signed parts out of a request line and its headers.

    target : the request target as it stood on the request line, "/path?query" or "http://host/path?query"
    header : gives a header's value by its name
    Raises AuthMissing for a header that is missing or malformed, AuthInvalid for a target with control characters.
    """
    values = {name: _well_formed(name, header(name)) for name in _SHAPES}
    if _UNPRINTABLE.search(target) or _UNPRINTABLE.search(method):
        raise AuthInvalid
    path, _, query = _AUTHORITY.sub("", target).partition("?")
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


def signature_matches(request: Signed, keys: Sequence[str]) -> bool:
    """Whether one of the keys made the signature; every key is tried, whichever matches, so that time tells nothing."""
    matched = False
    text, signature = request.text, request.signature.encode("utf-8", "surrogateescape")
    for key in keys:
        matched |= hmac.compare_digest(_hmac(key, text).encode("ascii"), signature)
    return matched


def _hmac(key: str, text: bytes) -> str:
    return hmac.new(key.encode("utf-8"), text, hashlib.sha256).hexdigest()


def _well_formed(name: str, value: str | None) -> str:
    pattern, shape = _SHAPES[name]
    if not value:
        raise AuthMissing(f"The header {name} is missing.", details={"header": name})
    if not pattern.fullmatch(value):
        raise AuthMissing(f"The header {name} is malformed: it must be {shape}.", details={"header": name})
    return value
