"""Tokens that stand for an agent in place of a signature, for tools that cannot sign: whoever has one is the agent.

A token is drawn here, and only its SHA-256 is kept: it is as long as a key, so that a hash of it gives nothing away and
needs no salt. This module does not know which agents there are or what they may do.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence

from backend.auth.client_address import is_believed
from backend.auth.loopback import Caller, is_from_here
from backend.errors import AuthMissing, HttpsRequired
from backend.setting_values import IPNetwork

HEADER = "Authorization"
CHALLENGE = 'Bearer realm="orfeas"'
"""What a refusal says in WWW-Authenticate where tokens are taken."""

TOKEN_MARK = "orfeas_"  # noqa: S105  what each token begins with
_TOKEN_BYTES = 32
_NAME_DIGITS = 12
_SCHEME = re.compile(r"bearer(?: |$)", re.IGNORECASE)
_CREDENTIALS = re.compile(r"bearer +([A-Za-z0-9._~+/-]{1,512}=*)", re.IGNORECASE)


def new_token() -> str:
    """Return a token that nobody can guess."""
    return TOKEN_MARK + secrets.token_urlsafe(_TOKEN_BYTES)


def hash_of(token: str) -> str:
    """Return what is kept of a token: its SHA-256 in lower-case hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def name_of(token_hash: str) -> str:
    """Return what a token is called where it is listed and revoked: the beginning of its hash."""
    return token_hash[:_NAME_DIGITS]


def has_token(authorization: str | None) -> bool:
    """Return whether a request is meant to be admitted by a token, well formed or not."""
    return authorization is not None and _SCHEME.match(authorization) is not None


def read_token(authorization: str) -> str:
    """Return the token of an Authorization header. Raises AuthMissing when there is none, or what cannot be one."""
    match = _CREDENTIALS.fullmatch(authorization)
    if match is None:
        raise AuthMissing(
            f"The header {HEADER} is malformed: it is `Bearer` and one token.", details={"header": HEADER}
        )
    return match[1]


def require_safe_way(
    scheme: str, caller: Caller, header: Callable[[str], str | None], trusted_proxies: Sequence[IPNetwork]
) -> None:
    """See that nobody could listen to what the caller sends: it came by https, or from this machine itself.

    scheme : of the connection that is served. Of a proxy's X-Forwarded-Proto every value counts, since the first is
    the client's own word where a proxy adds to it. Raises HttpsRequired.
    """
    if scheme == "https" or is_from_here(caller, trusted_proxies):
        return
    reported = (header("X-Forwarded-Proto") or "").split(",")
    if not is_believed(caller.peer, trusted_proxies) or any(part.strip().lower() != "https" for part in reported):
        raise HttpsRequired
