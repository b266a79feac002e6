"""The signature of a request: which text is signed, and how.

Nothing but the standard library, for the service signs and checks by this module too. It does not know which agents
exist, what time it is, or what a body holds.
"""

from __future__ import annotations

import hashlib
import hmac
import re

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
UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")

SHAPES = {
    HEADER_AGENT: (AGENT_ID, "1–64 of A-Z a-z 0-9 . _ - that begin with a letter or digit"),
    HEADER_TIMESTAMP: (TIMESTAMP, "unix seconds, a whole number"),
    HEADER_NONCE: (NONCE, "8–128 of A-Z a-z 0-9 . _ ~ -"),
    HEADER_DIGEST: (_SHA256_HEX, "the SHA-256 of the body, 64 lower-case hex digits"),
    HEADER_SIGNATURE: (_SHA256_HEX, "64 lower-case hex digits"),
}
"""For each header, the pattern of a whole value and the same in words."""


def canonical_text(
    method: str, path: str, query: str, agent_id: str, timestamp: str, nonce: str, body_digest: str
) -> bytes:
    """Return what is signed: the scheme and these parts, a line each.

    path, query : percent-encoded, query without "?"; timestamp : unix seconds; body_digest : see `digest_body`
    """
    parts = (SCHEME, method, path, query, agent_id, timestamp, nonce, body_digest)
    # The request line is bytes; surrogates carry the ones that are not UTF-8 through text and back.
    return "\n".join(parts).encode("utf-8", "surrogateescape")


def hmac_hex(key: str, text: bytes) -> str:
    """Return the HMAC-SHA256 of a text under a key, in lower-case hex."""
    return hmac.new(key.encode("utf-8"), text, hashlib.sha256).hexdigest()


def digest_body(body: bytes) -> str:
    """Return the lower-case hex SHA-256 of a body as it is sent."""
    return hashlib.sha256(body).hexdigest()


def sign_request(
    api_key: str, method: str, path: str, query: str, agent_id: str, timestamp: int, nonce: str, body_digest: str
) -> str:
    """Return the signature of a request: lower-case hex HMAC-SHA256 of its canonical text.

    path, query : as they will be sent, percent-encoded; query without "?", empty when there is none
    timestamp : unix seconds; nonce : never used before by this agent; body_digest : see `digest_body`
    Raises ValueError, with a sentence, when a part is not of the shape that the service takes.
    """
    headers = {
        HEADER_AGENT: agent_id,
        HEADER_TIMESTAMP: str(timestamp),
        HEADER_NONCE: nonce,
        HEADER_DIGEST: body_digest,
    }
    for name, value in headers.items():
        pattern, shape = SHAPES[name]
        if not pattern.fullmatch(value):
            raise ValueError(f"{name} must be {shape}.")
    if any(UNPRINTABLE.search(part) for part in (method, path, query)):
        raise ValueError("Method, path and query must be percent-encoded: no spaces, no control characters.")
    return hmac_hex(api_key, canonical_text(method, path, query, agent_id, str(timestamp), nonce, body_digest))
