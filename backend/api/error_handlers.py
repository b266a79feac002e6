"""Errors as HTTP answers: any error that a request ends with, in the API's one JSON form.

This module does not know which requests there are or what raises an error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping

from flask import Flask, Response, g, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestedRangeNotSatisfiable
from werkzeug.routing import RequestRedirect

from backend import errors
from backend.api.request_context import note_error
from backend.api.responses import DOCS_PAGE, ErrorAnswer
from backend.api.statuses import status_of
from backend.errors import RetryLater, ServiceError

logger = logging.getLogger(__name__)

_NAMED: Mapping[int, type[ServiceError]] = {
    404: errors.EndpointNotFound,
    405: errors.MethodNotAllowed,
    411: errors.LengthRequired,
    413: errors.FileTooLarge,
    415: errors.UnsupportedMediaType,
    416: errors.RangeNotSatisfiable,
}
_OUR_FAULT = 500
"""From this status on it is not the caller's; 500 itself has a line of its own in the log."""

_LONGEST_CAUSE = 300
_EXPLAINED = (
    errors.AuthMissing,
    errors.UnsupportedMediaType,
    errors.InvalidForm,
    errors.MissingImage,
    errors.UnknownField,
    errors.ConflictingInputs,
    errors.ImageUrlRefused,
)
"""Errors of who has yet to learn how a call is made: their details name the page that shows it."""
_FAILURES = (ServiceError, errors.RateLimited, errors.StoreUnavailable, errors.AuthUnavailable, errors.StorageFull)
_SUBMITTING = (errors.GpuBusy, errors.QueueFull, errors.ServiceStopping, errors.ArtifactStoreUnavailable)


def json_response(answer: BaseModel, status: int = 200) -> Response:
    """Return an answer as it is sent."""
    return Response(answer.model_dump_json(), status, content_type="application/json")


def error_answer(error: ServiceError) -> ErrorAnswer:
    """Return an error as an answer to the request at hand."""
    details = {**error.details, "docs": DOCS_PAGE} if isinstance(error, _EXPLAINED) else error.details
    return ErrorAnswer(error=error.message, code=error.code, request_id=g.request_id, details=details)


def error_response(error: ServiceError, answer: ErrorAnswer | None = None, status: int | None = None) -> Response:
    """Return an error as it is sent; answer, status : in place of the plain one, and of the error's own."""
    status = status or status_of(error)
    note_error(error.code, _cause_of(error) if status > _OUR_FAULT else "")
    response = json_response(answer or error_answer(error), status)
    if isinstance(error, RetryLater):
        response.headers["Retry-After"] = str(error.retry_after)
    if status == 426:
        response.headers["Upgrade"] = "websocket"
    if status == 401:
        response.headers["WWW-Authenticate"] = "Agent-Signature"
    return response


def _cause_of(error: BaseException) -> str:
    """Return what an error goes back to, in a line: why a database or a bucket is away; "" where it is the first."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return "" if cause is error else f"{type(cause).__name__}: {' '.join(str(cause).split())}"[:_LONGEST_CAUSE]


def handle_service_error(error: ServiceError) -> Response:
    """Answer a named error; the log is told of one that is the service's own fault, and the caller is not."""
    if status_of(error) == 500:
        logger.error("%s: %s", error.code, error.message, exc_info=error)
        return error_response(ServiceError())
    return error_response(error)


def handle_http_error(error: HTTPException) -> ResponseReturnValue:
    """Answer what Flask or Werkzeug refused."""
    status = error.code or 500
    if isinstance(error, RequestRedirect):
        # Its address would be made of the Host header, which is the caller's, and a signature is for one path.
        return error_response(errors.EndpointNotFound())
    # A redirect is an answer, not a refusal.
    if status < 400:
        return error
    if status >= 500:
        return handle_service_error(ServiceError(str(error)))
    named = _NAMED.get(status, errors.BadRequest)()
    response = error_response(named)
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    if isinstance(error, RequestedRangeNotSatisfiable):
        response.headers["Content-Range"] = f"bytes */{error.length}"
    return response


def handle_unnamed(error: Exception) -> Response:
    """Answer an error that nobody foresaw."""
    logger.error("An unforeseen error ended the request.", exc_info=error)
    return error_response(ServiceError())


def known_failures(app: Flask, prefix: str) -> Iterator[tuple[str, str, int, str]]:
    """Yield what the routes below a prefix may be refused with through no fault of their caller, or for their rate.

    Each as route, method, status and code.
    """
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"} if rule.rule.startswith(prefix) else ():
            for kind in (*_FAILURES, *(_SUBMITTING if method == "POST" else ())):
                yield rule.rule, method, status_of(kind), kind.code


def register_error_handlers(app: Flask, covered: re.Pattern[str]) -> None:
    """Answer every error of the paths that begin as `covered` says; others keep what the app does with theirs."""
    earlier = dict(app.error_handler_spec[None].get(None, {}))

    def only_covered(kind: type[Exception], handler: Callable[..., ResponseReturnValue]) -> None:
        def handle(error: Exception) -> ResponseReturnValue:
            if covered.match(request.path):
                return handler(error)
            if kind in earlier:
                answer: ResponseReturnValue = app.ensure_sync(earlier[kind])(error)
                return answer
            if isinstance(error, HTTPException):
                return error
            raise error

        app.register_error_handler(kind, handle)

    only_covered(ServiceError, handle_service_error)
    only_covered(HTTPException, handle_http_error)
    only_covered(Exception, handle_unnamed)
