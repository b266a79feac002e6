"""What could not be read as a request, and what is said of it: gunicorn's errors as the API's, and those as bytes.

Nothing that came is repeated. This module does not know connections.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from gunicorn.http import errors as http_errors  # type: ignore[import-untyped]

from backend.api.request_context import GUARDING_HEADERS
from backend.api.responses import ErrorAnswer
from backend.api.statuses import status_of
from backend.errors import (
    BadFraming,
    BadRequest,
    ExpectationFailed,
    HeadersTooLarge,
    RetryLater,
    ServiceError,
    TargetTooLong,
    UnsupportedCoding,
)

MOST_HEAD_BYTES = 1 << 16
MOST_LINE_BYTES = 4094
MOST_HEADERS = 64
MOST_HEADER_BYTES = 8190

_FRAMING = {
    "CONTENT-LENGTH": "Content-Length must be one whole number, and not stand beside Transfer-Encoding.",
    "TRANSFER-ENCODING": "Transfer-Encoding must be chunked, once, in HTTP/1.1, with no Content-Length beside it.",
}
_TWICE = "Host and Content-Type may each be there once."
_NO_LINE = "The request line is not a method, a target and HTTP/1.1, with one blank between."
_SAID: Mapping[type[Exception], ServiceError] = {
    http_errors.LimitRequestLine: TargetTooLong(details={"max_bytes": MOST_LINE_BYTES}),
    http_errors.LimitRequestHeaders: HeadersTooLarge(
        details={"max_headers": MOST_HEADERS, "max_bytes_each": MOST_HEADER_BYTES}
    ),
    http_errors.UnsupportedTransferCoding: UnsupportedCoding(),
    http_errors.ExpectationFailed: ExpectationFailed(),
    http_errors.InvalidRequestLine: BadRequest(_NO_LINE),
    http_errors.InvalidRequestMethod: BadRequest("The request line does not begin with a method."),
    http_errors.InvalidHTTPVersion: BadRequest("Only HTTP/1.1 and HTTP/1.0 are spoken here."),
    http_errors.InvalidHeaderName: BadRequest("A header's name has characters that no name may have."),
    http_errors.ObsoleteFolding: BadRequest("A header goes on in the next line, which is no longer allowed."),
    http_errors.InvalidHeader: BadRequest(
        "A header is malformed: it is a name, a colon and printable text in one line."
    ),
    http_errors.ParseException: BadRequest(),
}


def refusal(error: BaseException) -> ServiceError:
    """Return what is said of what came; ServiceError itself for what is the service's own fault."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, http_errors.InvalidHeader) and error.req is not None:
        return BadFraming(_FRAMING[error.hdr]) if error.hdr in _FRAMING else BadRequest(_TWICE)
    return next((said for kind, said in _SAID.items() if isinstance(error, kind)), ServiceError())


def check_start(came: bytes, starts_well: bool) -> None:
    """See that what came is worth parsing. Raises BadRequest, TargetTooLong, HeadersTooLarge."""
    if not starts_well:
        raise BadRequest(_NO_LINE)
    if b"\r\n\r\n" in came[:MOST_HEAD_BYTES]:
        return
    if b"\r\n" not in came[: MOST_LINE_BYTES + 4] and len(came) > MOST_LINE_BYTES + 4:
        raise TargetTooLong(details={"max_bytes": MOST_LINE_BYTES})
    if len(came) > MOST_HEAD_BYTES:
        raise HeadersTooLarge(details={"max_bytes": MOST_HEAD_BYTES})


def check_request(request: Any) -> None:
    """See that a request whose head gunicorn has read is one that is taken here.

    Raises BadRequest without a Host, UnsupportedCoding for any other coding than chunked, which gunicorn lets through.
    """
    headers: list[tuple[str, str]] = request.headers
    if request.version >= (1, 1) and not any(name == "HOST" for name, _ in headers):
        raise BadRequest("A request of HTTP/1.1 has a Host header.")
    codings = [value for name, value in headers if name == "TRANSFER-ENCODING"]
    if codings and [coding.strip().lower() for coding in codings] != ["chunked"]:
        raise UnsupportedCoding


def as_response(error: ServiceError) -> tuple[bytes, str, int]:
    """Return an answer's bytes, after which the connection ends; its request's id; its status."""
    request_id, status = uuid.uuid4().hex, HTTPStatus(status_of(error))
    body = ErrorAnswer(
        error=error.message, code=error.code, request_id=request_id, details=error.details
    ).model_dump_json()
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body.encode())}",
        f"X-Request-ID: {request_id}",
        *(f"{name}: {value}" for name, value in GUARDING_HEADERS.items()),
    ]
    if isinstance(error, RetryLater):
        head.append(f"Retry-After: {error.retry_after}")
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode(), request_id, status.value
