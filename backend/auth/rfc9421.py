"""The second scheme of signing: RFC 9421 HTTP Message Signatures by hmac-sha256, bodies by RFC 9530's Content-Digest.

What comes out has the shape of the first scheme's SignedRequest, so that the same checks follow in the same order. Its
signed text begins with a quotation mark, the first scheme's with `v1`: no signature of one is one of the other. The
headers' syntax is parsed by http-sf. This module does not know which agents exist or what time it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from backend.errors import AuthInvalid, AuthMissing
from orfeas_client.signing import AGENT_ID, EMPTY_DIGEST, NONCE, TIMESTAMP

if TYPE_CHECKING:
    from http_sf import StructuredType

HEADER_INPUT = "Signature-Input"
HEADER_SIGNATURE = "Signature"
HEADER_DIGEST = "Content-Digest"

Parameters = Mapping[str, object]

_ALGORITHM = "hmac-sha256"
_DIGEST_ALGORITHM = "sha-256"
_SHA256_BYTES = 32
_MAX_HEADER = 4096
_MAX_COMPONENTS = 32

_PARAMETERS = frozenset({"alg", "created", "expires", "keyid", "nonce", "tag"})
_TARGETS = (frozenset({"@target-uri"}), frozenset({"@request-target"}), frozenset({"@path", "@query"}))
# No underscore: WSGI cannot tell it from a hyphen. Not the signature's own headers: nothing can sign itself.
_FIELD = re.compile(r"(?!signature(?:-input)?$)[a-z0-9!#$%&'*+.^`|~-]+")
_BASE_VALUE = re.compile(r"[\t\x20-\x7e]*")
_DEFAULT_PORT = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class Message:
    """A request as it arrived.

    target : the request target as it stood on the request line; scheme : "http" or "https", as the client used it
    has_body : whether the headers announce one; header : gives a header's value by its name
    """

    method: str
    target: str
    scheme: str
    has_body: bool
    header: Callable[[str], str | None]


@dataclass(frozen=True)
class MessageSignature:
    """The signed parts of one request, and the signature it came with; fields as SignedRequest's.

    text : the signature base; expires : unix seconds, None when the signature names no end of its own
    components : the names of what it covers, in their order
    """

    agent_id: str
    timestamp: str
    nonce: str
    body_digest: str
    signature: str
    text: bytes
    expires: int | None
    components: tuple[str, ...]

    @property
    def evidence(self) -> Mapping[str, object]:
        """The names of what the signature covers, and no value of it."""
        return {"components": list(self.components)}


def read_message_signature(message: Message) -> MessageSignature:
    """Return the signed parts out of a request's headers.

    Raises AuthMissing for what is missing, malformed or not covered, AuthInvalid for a message that no text can be made
    of.
    """
    components, parameters, signature = _read_headers(message.header)
    _require_coverage(components, message.has_body)
    created = _integer(parameters, "created")
    if created is None:
        raise _malformed(HEADER_INPUT, "the parameter created is missing")
    return MessageSignature(
        agent_id=_text(parameters, "keyid", AGENT_ID, "the agent's id"),
        timestamp=str(created),
        nonce=_text(parameters, "nonce", NONCE, "8–128 of A-Z a-z 0-9 . _ ~ -"),
        body_digest=_content_digest(message.header) if "content-digest" in components else EMPTY_DIGEST,
        signature=signature.hex(),
        text=signature_base(message, components, parameters),
        expires=_integer(parameters, "expires"),
        components=tuple(components),
    )


def signature_base(message: Message, components: Sequence[str], parameters: Parameters) -> bytes:
    """Return what is signed (RFC 9421 section 2.5).

    Raises AuthMissing for an absent header, AuthInvalid for a value that no signature can hold.
    """
    from http_sf import ser

    lines = [(name, _component(message, name)) for name in components]
    if not all(_BASE_VALUE.fullmatch(value) for _, value in lines):
        raise AuthInvalid
    # http-sf writes an inner list only as a member of a list.
    inner = ser(cast("StructuredType", [(list(components), dict(parameters))]))
    return "\n".join([*(f"{ser(name)}: {value}" for name, value in lines), f'"@signature-params": {inner}']).encode()


def _read_headers(header: Callable[[str], str | None]) -> tuple[list[str], Parameters, bytes]:
    """Return what the one signature covers, its parameters, and its bytes."""
    inputs = _dictionary(HEADER_INPUT, header(HEADER_INPUT))
    signatures = _dictionary(HEADER_SIGNATURE, header(HEADER_SIGNATURE))
    if len(inputs) != 1 or inputs.keys() != signatures.keys():
        raise _malformed(HEADER_INPUT, "exactly one signature is taken, under the same label in both headers")
    ((members, parameters),) = inputs.values()
    ((signature, others),) = signatures.values()
    if not isinstance(members, list):
        raise _malformed(HEADER_INPUT, "it must be a list of covered components in parentheses")
    if not isinstance(signature, bytes) or len(signature) != _SHA256_BYTES or others:
        raise _malformed(HEADER_SIGNATURE, "it must be 32 bytes in base64 between colons")
    if not parameters.keys() <= _PARAMETERS or not isinstance(parameters.get("tag", ""), str):
        raise _malformed(HEADER_INPUT, f"its parameters may be {', '.join(sorted(_PARAMETERS))}")
    # A token compares equal to the string of the same characters.
    if not isinstance(alg := parameters.get("alg", _ALGORITHM), str) or alg != _ALGORITHM:
        raise _malformed(HEADER_INPUT, f"alg must be {_ALGORITHM}")
    return [_component_name(*member) for member in members], parameters, signature


def _dictionary(name: str, value: str | None) -> dict[str, tuple[object, Parameters]]:
    if not value:
        raise AuthMissing(f"The header {name} is missing.", details={"header": name})
    if len(value) > _MAX_HEADER:
        raise _malformed(name, f"it is longer than {_MAX_HEADER} characters")
    from http_sf import parse

    try:
        parsed = parse(value.encode("ascii"), tltype="dictionary", on_duplicate_key=_refuse_twice)
    except (ValueError, TypeError, OverflowError) as error:
        raise _malformed(name, "it is no dictionary of structured fields (RFC 9651)") from error
    return cast("dict[str, tuple[object, Parameters]]", parsed)


def _refuse_twice(key: str, _context: str) -> None:
    raise ValueError(key)


def _component_name(name: object, parameters: Parameters) -> str:
    known = isinstance(name, str) and (name in _DERIVED or _FIELD.fullmatch(name))
    if not known or parameters:
        raise _malformed(
            HEADER_INPUT, f"a covered component must be one of {', '.join(_DERIVED)} or a header, without parameters"
        )
    return str(name)


def _require_coverage(components: Sequence[str], has_body: bool) -> None:
    covered = frozenset(components)
    if len(covered) != len(components):
        raise _malformed(HEADER_INPUT, "a component is covered twice")
    if len(components) > _MAX_COMPONENTS:
        raise _malformed(HEADER_INPUT, f"more than {_MAX_COMPONENTS} components are covered")
    if "@method" not in covered or not any(target <= covered for target in _TARGETS):
        raise _malformed(
            HEADER_INPUT, "it must cover @method, and @target-uri or @request-target or both @path and @query"
        )
    if has_body and "content-digest" not in covered:
        raise _malformed(HEADER_INPUT, "it must cover content-digest where there is a body")


def _text(parameters: Parameters, name: str, pattern: re.Pattern[str], shape: str) -> str:
    value = parameters.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _malformed(HEADER_INPUT, f"the parameter {name} must be there, as a string: {shape}")
    return value


def _integer(parameters: Parameters, name: str) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    # A boolean is an int to Python; a date is none to anybody.
    if type(value) is not int or not TIMESTAMP.fullmatch(str(value)):
        raise _malformed(HEADER_INPUT, f"the parameter {name} must be unix seconds, a whole number")
    return value


def _content_digest(header: Callable[[str], str | None]) -> str:
    """Return the body's SHA-256 in lower-case hex; digests by other algorithms beside it are ignored."""
    digests = _dictionary(HEADER_DIGEST, header(HEADER_DIGEST))
    value, _ = digests.get(_DIGEST_ALGORITHM, (None, {}))
    if not isinstance(value, bytes) or len(value) != _SHA256_BYTES:
        raise _malformed(HEADER_DIGEST, f"it must hold {_DIGEST_ALGORITHM} with 32 bytes in base64 between colons")
    return value.hex()


def _component(message: Message, name: str) -> str:
    if name in _DERIVED:
        return _DERIVED[name](message)
    value = message.header(name)
    if value is None:
        raise AuthMissing(f"The covered header {name} is missing.", details={"header": name})
    return value.strip(" \t")


def _host(message: Message) -> str:
    """Return scheme and authority as the client wrote them, in front of the target or in the header Host."""
    absolute = _AUTHORITY.match(message.target)
    return absolute[0] if absolute else f"{message.scheme}://{message.header('Host') or ''}"


def _authority(message: Message) -> str:
    scheme, _, authority = _host(message).lower().partition("://")
    return authority.removesuffix(_DEFAULT_PORT.get(scheme, ""))


def _origin_form(message: Message) -> str:
    """Return path and query of the target."""
    target = _AUTHORITY.sub("", message.target)
    return target if target.startswith("/") else f"/{target}"


_AUTHORITY = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_DERIVED: Mapping[str, Callable[[Message], str]] = {
    "@method": lambda message: message.method,
    "@target-uri": lambda message: _host(message) + _origin_form(message),
    "@authority": _authority,
    "@scheme": lambda message: _host(message).lower().partition("://")[0],
    "@request-target": lambda message: message.target,
    "@path": lambda message: _origin_form(message).partition("?")[0],
    "@query": lambda message: "?" + _origin_form(message).partition("?")[2],
}


def _malformed(header: str, why: str) -> AuthMissing:
    return AuthMissing(f"The header {header} is malformed: {why}.", details={"header": header})
