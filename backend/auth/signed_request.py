"""The signed parts of a WSGI request, by whichever scheme it was signed with.

This module does not know who may sign, or what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backend.auth.client_address import client_scheme
from backend.auth.hmac_signing import Signed, read_signed_request
from backend.auth.request_body import has_body
from backend.auth.rfc9421 import HEADER_INPUT, Message, read_message_signature
from backend.auth.rfc9421 import HEADER_SIGNATURE as HEADER_MESSAGE_SIGNATURE
from backend.errors import AuthMissing, ConfigurationError
from backend.setting_values import IPNetwork
from orfeas_client.signing import HEADER_SIGNATURE


def read_signed(
    environ: Mapping[str, Any], header: Callable[[str], str | None], trusted_proxies: Sequence[IPNetwork]
) -> Signed:
    """Return the signed parts of a request, by the scheme it was signed with: never by two. Raises AuthMissing."""
    method, target = environ["REQUEST_METHOD"], target_of(environ)
    if header(HEADER_INPUT) is None and header(HEADER_MESSAGE_SIGNATURE) is None:
        return read_signed_request(method, target, header)
    if header(HEADER_SIGNATURE) is not None:
        raise AuthMissing(
            f"The request is signed twice: send {HEADER_SIGNATURE}, or {HEADER_INPUT} with {HEADER_MESSAGE_SIGNATURE}.",
            details={"header": HEADER_SIGNATURE},
        )
    scheme = client_scheme(
        environ["wsgi.url_scheme"],
        environ.get("REMOTE_ADDR", ""),
        header("X-Forwarded-Proto") or "",
        trusted_proxies,
    )
    return read_message_signature(Message(method, target, scheme, has_body(environ), header))


def target_of(environ: Mapping[str, Any]) -> str:
    """Return the request target as it was sent; WSGI's own path is decoded, and two targets may decode to the same."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if not raw:
        raise ConfigurationError("This server reports neither RAW_URI nor REQUEST_URI; no signature holds without.")
    # WSGI carries bytes as Latin-1; a client signs them as UTF-8.
    return str(raw).encode("latin-1", "backslashreplace").decode("utf-8", "surrogateescape")
