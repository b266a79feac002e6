"""Listening to a stream of a service's events, opened again where it broke off.

This module does not know what an event tells of.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import requests

from orfeas_client.errors import ClientError, NoEvents, ServiceRefused, UnexpectedAnswer
from orfeas_client.event_lines import read_events
from orfeas_client.models import Json
from orfeas_client.retries import PassingFailure, RetryPolicy
from orfeas_client.transport import Outgoing, Transport

STREAM_SECONDS = 60.0
"""Without a byte of a stream, of which one comes every 15 seconds, before it is taken for dead."""

_TRIES = 3
_LONGEST_PAUSE = 5.0
_NO_STREAM = (404, 405, 406, 501)


def listen(
    transport: Transport,
    path: str,
    policy_of: Callable[[float | None], RetryPolicy],
    end: float | None,
    sleep: Callable[[float], None],
) -> Iterator[Json]:
    """Give what each event of a stream tells, until it is over for good or the time is.

    policy_of : gives how long to try to open it, of the seconds that are left; end : by time.monotonic(), None = never
    Raises NoEvents where there is no stream, or it breaks off again and again; ServiceRefused, ServiceUnreachable,
    UnexpectedAnswer.
    """
    last_id, breaks = "", 0
    while breaks <= _TRIES:
        left = None if end is None else max(0.0, end - time.monotonic())
        if left == 0.0:
            return
        response = _opened(transport, path, policy_of(left), last_id, left)
        with response, suppress(requests.RequestException):
            if response.status_code == 204:
                return
            for event in read_events(response.iter_lines()):
                last_id, breaks = event.id, 0
                yield _object(event.data)
        # A restart, or a proxy that lets nothing go on for long.
        breaks += 1
        sleep(min(2.0 ** (breaks - 1), _LONGEST_PAUSE))
    raise NoEvents("The stream of events breaks off again and again before anything comes.")


def _opened(
    transport: Transport, path: str, policy: RetryPolicy, last_id: str, left: float | None
) -> requests.Response:
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
    seconds = STREAM_SECONDS if left is None else min(STREAM_SECONDS, left)
    outgoing = Outgoing("GET", path, headers=headers, stream=seconds)
    try:
        response = policy.persist(lambda: _open(transport, outgoing))
    except ServiceRefused as refusal:
        raise _without_events(refusal) from refusal
    if response.status_code != 204 and not response.headers.get("Content-Type", "").startswith("text/event-stream"):
        response.close()
        raise NoEvents("The service answered with no stream of events.")
    return response


def _open(transport: Transport, outgoing: Outgoing) -> requests.Response:
    """Open a stream; where all are taken there is no waiting for one, since whoever asks can poll."""
    try:
        return transport.open(outgoing)
    except PassingFailure as failure:
        error = failure.error
        if isinstance(error, ServiceRefused) and error.code == "RATE_LIMITED":
            raise error from failure
        raise


def _without_events(refusal: ServiceRefused) -> ClientError:
    """Return the error for a stream that was refused: NoEvents where there is none, or no room for one more."""
    is_missing = refusal.status in _NO_STREAM and refusal.code != "JOB_NOT_FOUND"
    if is_missing or refusal.code == "RATE_LIMITED":
        return NoEvents(f"There is no stream of events to listen to: {refusal.message}")
    return refusal


def _object(text: str) -> Json:
    try:
        found = json.loads(text)
    except ValueError as failure:
        raise UnexpectedAnswer("An event of the service is not JSON.") from failure
    if not isinstance(found, dict):
        raise UnexpectedAnswer("An event of the service is not a JSON object.")
    return found
